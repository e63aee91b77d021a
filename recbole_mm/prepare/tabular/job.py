"""A table of interactions, and a table of items if there is one, to RecBole's atomic files."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_mm.data.card import DatasetCard
from recbole_mm.data.prices import parse_prices
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.prepare.output import (
    INTER_TYPES,
    counts,
    refuse_overwriting,
    way_between,
    write_dataset,
)
from recbole_mm.prepare.sessions import cut_by_gap, k_core, order_by_session
from recbole_mm.prepare.tabular.guess import complete, event_column
from recbole_mm.prepare.tabular.options import TableOptions
from recbole_mm.prepare.tabular.table import Table, read_table
from recbole_mm.prepare.tabular.times import parse_times

logger = logging.getLogger(__name__)

GAP_MINUTES = 30.0
_BAD_IN_ID = re.compile(r'["\t\n\r\v\f\0\x1c-\x1f\x85\u2028\u2029]')
_BAD_IN_COLUMN = re.compile(r"[\s:,]+")
_PAD = "[PAD]"


def prepare_tabular(options: TableOptions, out: str | Path, force: bool = False) -> Path:
    """Write a data set made from tables to ``<out>/<dataset>`` and return that folder.

    Parameters
    ----------
    options
        Files and columns; columns that are not named are guessed.
    out
        Folder of all data sets.
    force
        Overwrite existing files.

    Raises
    ------
    ConfigError
        Naming all options that are missing and cannot be guessed.
    DataError
        If the input is bad (with file and line), nothing is left after filtering, or files exist
        and ``force`` is false.
    """
    options, guessed = complete(options)
    folder = Path(out) / options.dataset
    refuse_overwriting(folder, options.dataset, force)
    rows, positional, report = _interactions(options)
    if guessed:
        report = {"guessed": " ".join(guessed), **report}
    item = None
    if options.items:
        item = _items(options, pd.unique(rows["item_id"]), report)
    card = DatasetCard(
        name=options.dataset,
        source=options.source_note or f"{Path(options.inter).name}, prepared by recbole-mm",
        licence=options.licence,
        timestamps="positional" if positional else "real",
        session=_what_a_session_is(options),
        text_fields=tuple(_column_name(name) for name in options.text_cols),
        image_field=_column_name(options.image_col or ""),
        image_folder=_way_to_pictures(options, folder),
        report=report,
    )
    return write_dataset(folder, card, (rows, INTER_TYPES), item)


def _way_to_pictures(options: TableOptions, folder: Path) -> str:
    """Return the item table's folder, where relative paths begin, as seen from the data set's."""
    if not (options.items and options.image_col):
        return ""
    return way_between(folder, Path(options.items).resolve().parent)


def _what_a_session_is(options: TableOptions) -> str:
    """Say what one session is."""
    if options.user_col:
        return f"rows of one {options.user_col} without a pause over {_gap(options):g} minutes"
    return f"rows with one {options.session_col}"


def _gap(options: TableOptions) -> float:
    """Return the longest pause inside a session, minutes."""
    return GAP_MINUTES if options.gap_minutes is None else options.gap_minutes


def _interactions(options: TableOptions) -> tuple[pd.DataFrame, bool, dict[str, object]]:
    """Return the rows of the ``.inter`` file, whether their times are positions, and counts."""
    owner, item = options.session_col or options.user_col or "", options.item_col or ""
    columns = {"session": owner, "item": item, "time": options.time_col}
    wanted = [*columns.values(), options.event_col]
    table = read_table(options.inter, list(dict.fromkeys(name for name in wanted if name)))
    report: dict[str, object] = {"rows_read": len(table.lines)}
    table = _keep_events(table, options, report)
    table = _drop_incomplete(table, columns, report)
    for column in (owner, item):
        _check_ids(table, column)
    times, positional = _times(table, options)
    names = table.frame[owner]
    if options.user_col:
        sitting = cut_by_gap(names.factorize()[0], times, _gap(options) * 60) + 1
        names = names + "_" + pd.Series(sitting).astype(str)
    frame = pd.DataFrame({"session_id": names, "item_id": table.frame[item], "timestamp": times})
    if options.time_col:
        report["repeated_rows_kept"] = int(frame.duplicated().sum())
    rows = _filter_and_order(frame, options, report)
    if not options.time_col:
        rows["timestamp"] = rows.groupby("session_id", sort=False).cumcount() + 1
    rows["timestamp"] = _tidy_numbers(rows["timestamp"].to_numpy())
    return rows, positional, report


def _keep_events(table: Table, options: TableOptions, report: dict[str, object]) -> Table:
    """Keep the kinds of events that were asked for and count the others; without a word, all."""
    if not options.event_col:
        if kind := event_column(options):
            logger.warning(
                "%s: the column %s seems to tell kinds of events; rows of all kinds are kept. To "
                "choose: --event_col=%s --keep=<kind,kind>", table.path, kind, kind,
            )  # fmt: skip
        return table
    kinds = table.frame[options.event_col].value_counts()
    named = ", ".join(f"{kind} ({count})" for kind, count in kinds.head(20).items())
    if not options.keep:
        raise ConfigError(
            f"--event_col needs --keep=<kind,kind>; the kinds in {table.path} are: {named}."
        )
    if unknown := [kind for kind in options.keep if kind not in kinds]:
        raise ConfigError(
            f"--keep names {', '.join(unknown)}, but the kinds in {table.path} are: {named}."
        )
    dropped = kinds.drop(list(options.keep))
    report["dropped_rows_of_other_events"] = {str(k): int(n) for k, n in dropped.items()}
    return table.keep(table.frame[options.event_col].isin(options.keep).to_numpy())


def _drop_incomplete(
    table: Table, columns: Mapping[str, str | None], report: dict[str, object]
) -> Table:
    """Drop rows with an empty session, item or time and count them by the first reason."""
    complete = np.ones(len(table.lines), dtype=bool)
    for what, column in columns.items():
        if column:
            empty = (table.frame[column] == "").to_numpy()
            report[f"dropped_rows_without_{what}"] = int((empty & complete).sum())
            complete &= ~empty
    if not complete.any():
        raise DataError(
            f"{table.path}: every row lacks one of {', '.join(filter(None, columns.values()))}."
        )
    return table.keep(complete)


def _check_ids(table: Table, column: str) -> None:
    """Raise a DataError for an id that atomic files cannot hold as it is."""
    cells = table.frame[column]
    bad = (cells.str.contains(_BAD_IN_ID) | (cells == _PAD)).to_numpy(dtype=bool)
    if bad.any():
        row = int(np.argmax(bad))
        raise table.fail(
            row,
            f"{column} is {cells.iloc[row]!r}. An id must not hold a double quote, a tab or a line "
            f"end, nor be {_PAD}. Rename it, in the item table too.",
        )


def _times(table: Table, options: TableOptions) -> tuple[NDArray[np.float64], bool]:
    """Return times, or the order of the rows if there is no time column."""
    if not options.time_col:
        return np.arange(len(table.lines), dtype=np.float64), True
    times, positional = parse_times(table, options.time_col, options.timestamps)
    if positional and options.user_col:
        raise DataError(
            f"{table.path}: {options.time_col} holds positions, not times, so that users cannot be "
            "cut at pauses. Give --session_col instead, or another --time_col."
        )
    return times, positional


def _filter_and_order(
    frame: pd.DataFrame, options: TableOptions, report: dict[str, object]
) -> pd.DataFrame:
    """Apply the k-core and put the rows in order."""
    sessions, items = frame["session_id"].factorize()[0], frame["item_id"].factorize()[0]
    keep, dropped = k_core(sessions, items, options.min_session, options.min_item)
    if not keep.any():
        raise DataError(
            f"{options.inter}: no row is left with --min_session={options.min_session} and "
            f"--min_item={options.min_item}. Lower them, or check --session_col and --item_col."
        )
    order = order_by_session(sessions, frame["timestamp"].to_numpy())
    rows = frame.iloc[order[keep[order]]].reset_index(drop=True)
    report |= {
        "dropped_sessions_too_short_or_of_rare_items": dropped.sessions,
        "dropped_items_too_rare_or_of_short_sessions": dropped.items,
        "dropped_rows_of_these": dropped.rows,
        "rounds_of_dropping": dropped.rounds,
        **counts(rows),
    }
    return rows


def _tidy_numbers(values: NDArray) -> NDArray:
    """Return whole numbers as integers, others rounded to microseconds."""
    whole = np.rint(values)
    return whole.astype(np.int64) if (whole == values).all() else np.round(values, 6)


def _items(
    options: TableOptions, used: NDArray, report: dict[str, object]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the rows and types of the ``.item`` file: items that occur, first row of each."""
    id_column = options.items_item_col or options.item_col or ""
    extra = [*options.text_cols, *filter(None, [options.price_col, options.image_col])]
    table = read_table(
        options.items or "", list(dict.fromkeys([id_column, *extra])), options.text_cols
    )
    frame = table.frame
    repeated = frame[id_column].duplicated()
    different = repeated & ~frame.duplicated()
    is_used = frame[id_column].isin(used)
    kept = frame[is_used & ~repeated]
    report |= {
        "item_rows_read": len(frame),
        "dropped_item_rows_repeated": int(repeated.sum()),
        "of_these_with_other_content": int(different.sum()),
        "dropped_item_rows_never_in_a_session": int((~is_used & ~repeated).sum()),
        "items_without_a_row": len(used) - len(kept),
    }
    if different.any():
        logger.warning(
            "%s: %d repeated item rows differ from the first one, which is kept (%s is the first "
            "such row)", table.path, different.sum(), table.where(int(np.argmax(different))),
        )  # fmt: skip
    if kept.empty:
        raise DataError(
            f"{table.path}: no {id_column} occurs in {options.inter}. Check --items_item_col."
        )
    return _item_columns(options, kept, id_column, report)


def _item_columns(
    options: TableOptions, kept: pd.DataFrame, id_column: str, report: dict[str, object]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the columns under their final names with their types."""
    columns: dict[str, object] = {"item_id": kept[id_column]}
    types = {"item_id": "token"}
    for name in options.text_cols:
        if _column_name(name) in {*types, *INTER_TYPES, "price"}:
            raise ConfigError(f"--text_cols: the name {name!r} is taken. Rename the column.")
        columns[_column_name(name)], types[_column_name(name)] = kept[name], "token_seq"
    if options.image_col:
        name = _column_name(options.image_col)
        if name in {*types, *INTER_TYPES, "price"}:
            raise ConfigError(f"--image_col: the name {name!r} is taken. Rename the column.")
        columns[name], types[name] = kept[options.image_col], "token"
        report["items_with_a_picture"] = int((kept[options.image_col] != "").sum())
    if options.price_col:
        columns["price"], report["prices"] = parse_prices(kept[options.price_col])
        types["price"] = "float"
    return pd.DataFrame(columns), types


def _column_name(name: str) -> str:
    """Return a column name that the header of an atomic file can hold."""
    return _BAD_IN_COLUMN.sub("_", name)
