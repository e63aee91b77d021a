"""Amazon reviews of 2014, 2018 and 2023 to RecBole's atomic files, as sessions or as sequences."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_mm.data.card import DatasetCard
from recbole_mm.data.prices import parse_prices
from recbole_mm.errors import DataError
from recbole_mm.prepare.amazon.items import ITEM_COLUMNS
from recbole_mm.prepare.amazon.lines import ItemReader, review_reader
from recbole_mm.prepare.amazon.presets import AmazonOptions
from recbole_mm.prepare.amazon.published import LICENCES, PAGES
from recbole_mm.prepare.amazon.raw import BLOCK_BYTES, Parts, stream_parts
from recbole_mm.prepare.output import INTER_TYPES, counts, refuse_overwriting, write_dataset
from recbole_mm.prepare.sessions import (
    IntArray,
    cut_by_gap,
    k_core,
    order_by_session,
    stable_order,
)

if TYPE_CHECKING:
    import polars as pl

ITEM_TYPES = {
    "item_id": "token",
    "title": "token_seq",
    "brand": "token",
    "categories": "token_seq",
    "category": "token",
    "description": "token_seq",
    "price": "float",
    "image_url": "token",
}
_DAY = 86_400


@dataclass(frozen=True)
class _Reviews:
    """Reviews in file order as numbers: ``(n,)`` codes of users and items, and Unix seconds.

    Seconds are whole but in 2023, which has milliseconds.
    """

    users: IntArray
    items: IntArray
    times: NDArray

    def take(self, rows: NDArray) -> _Reviews:
        """Return the rows that a mask or positions select."""
        return _Reviews(self.users[rows], self.items[rows], self.times[rows])


def prepare_amazon(
    options: AmazonOptions, out: str | Path, force: bool = False, block_bytes: int = BLOCK_BYTES
) -> Path:
    """Write a data set of Amazon reviews to ``<out>/<dataset>`` and return that folder.

    The raw files are read block by block into a cache, so they may be larger than the memory; what
    is held in memory is three numbers per review and the texts of the items that are kept. A run
    that was killed goes on when it is started again and ends with the same bytes.

    Parameters
    ----------
    options
        Files and rules; see :class:`AmazonOptions`.
    out
        Folder of all data sets.
    force
        Overwrite existing files.
    block_bytes
        Unpacked bytes that are read at a time.

    Raises
    ------
    DataError
        If a raw file is missing or damaged, nothing is left after filtering, or files exist and
        ``force`` is false.
    """
    folder = Path(out) / options.dataset
    refuse_overwriting(folder, options.dataset, force)
    source, meta = options.files()
    cache = Path(options.cache) if options.cache else Path(out) / ".amazon_cache"
    parts = stream_parts(source, cache, review_reader(source, options.year), block_bytes)
    item_names = _names(parts, "item")
    known = None
    if meta is not None:
        known = stream_parts(meta, cache, ItemReader(options.year, item_names), block_bytes)
    report: dict[str, object] = {"reviews": parts.report()}
    rows, sessions = _filtered(_load(parts), options, _allowed(known, item_names, options), report)
    inter = _inter(parts, rows, sessions, report)
    item = None if known is None else _items(known, pd.unique(inter["item_id"]), report)
    return _publish(folder, _card(options, source, report), inter, item)


def _codes(parts: Parts, name: str) -> IntArray:
    """Return a column as numbers from 0, in the order of the sorted names."""
    column = parts.scan().select(name).collect().to_series()
    return column.rank("dense").to_numpy().astype(np.int64) - 1


def _names(parts: Parts, name: str) -> pl.Series:
    """Return the sorted names of a column; a name's place is its code."""
    return parts.scan().select(name).unique().collect().to_series().sort()


def _load(parts: Parts) -> _Reviews:
    """Load one column after the other, so that the text of one column is in memory at a time."""
    times = parts.scan().select("time").collect().to_series().to_numpy()
    if len(times) == 0:
        raise DataError(f"{parts.source}: no line holds a review. Is it the right file?")
    return _Reviews(_codes(parts, "user"), _codes(parts, "item"), times)


def _allowed(
    known: Parts | None, names: pl.Series, options: AmazonOptions
) -> NDArray[np.bool_] | None:
    """Return which items have all columns of ``require``, by code; None if nothing is required."""
    if known is None or not options.require:
        return None
    import polars as pl

    columns = dict.fromkeys(["item_id", *options.require, "line"])
    columns.pop("row", None)
    rows = known.scan().select(*columns).collect()
    rows = rows.unique("item_id", keep="first", maintain_order=True)
    for column in options.require:
        if column == "price":
            readable = np.isfinite(parse_prices(rows["price"].to_list())[0])
            rows = rows.filter(pl.Series(readable))
        elif column != "row":
            rows = rows.filter(pl.col(column) != "")
    good = set(rows["item_id"].to_list())
    return np.array([name in good for name in names.to_list()], dtype=bool)


def _filtered(
    reviews: _Reviews,
    options: AmazonOptions,
    allowed: NDArray[np.bool_] | None,
    report: dict[str, object],
) -> tuple[IntArray, IntArray]:
    """Return the kept rows in the order to write, and the number of each one's session.

    The number of a session counts the sessions of its user, from 0.
    """
    report["times_are_whole_days"] = bool((reviews.times % _DAY == 0).all())
    rows = _without_repeats(reviews, options, report)
    if allowed is not None:
        keep = allowed[reviews.items[rows]]
        lacking = np.unique(reviews.items[rows[~keep]])
        report["dropped_items_without_" + "_or_".join(options.require)] = len(lacking)
        report["dropped_rows_of_these"] = int((~keep).sum())
        rows = rows[keep]
    rows = rows[_core(reviews.take(rows), options, report)]
    kept = reviews.take(rows)
    sitting = np.zeros(len(rows), dtype=np.int64)
    if options.session_gap is not None:
        sitting = cut_by_gap(kept.users, kept.times // _DAY, options.session_gap)
    numbered = kept.users * (sitting.max(initial=0) + 1) + sitting
    sessions = np.unique(numbered, return_inverse=True)[1]
    keep, dropped = k_core(sessions, kept.items, options.min_session, options.min_item)
    report |= {
        "dropped_sessions_too_short_or_of_rare_items": dropped.sessions,
        "dropped_items_too_rare_or_of_short_sessions": dropped.items,
        "dropped_rows_of_such_sessions": dropped.rows,
        "rounds_of_dropping_sessions": dropped.rounds,
    }
    if not keep.any():
        raise DataError(
            f"{options.reviews}: no row is left with --core={options.core}, --min_session="
            f"{options.min_session} and --min_item={options.min_item}: of {len(reviews.times)} "
            f"reviews {len(kept.times)} are in the core, none is in a session. Lower them."
        )
    order = order_by_session(sessions, kept.times)
    order = order[keep[order]]
    if options.sequences:
        sitting -= 1  # a sequence needs no number
    return rows[order], sitting[order]


def _without_repeats(
    reviews: _Reviews, options: AmazonOptions, report: dict[str, object]
) -> IntArray:
    """Return the rows that are no repeats, in file order."""
    order = stable_order(reviews.users, reviews.items, reviews.times)
    sorted_ = reviews.take(order)
    same_pair = np.zeros(len(order), dtype=bool)
    same_pair[1:] = (np.diff(sorted_.users) == 0) & (np.diff(sorted_.items) == 0)
    same_time = same_pair.copy()
    same_time[1:] &= np.diff(sorted_.times) == 0
    later = same_pair & ~same_time
    report["dropped_rows_with_equal_user_item_and_time"] = int(same_time.sum())
    if options.repeats == "first":
        report["dropped_later_reviews_of_the_same_item"] = int(later.sum())
        return np.sort(order[~same_pair])
    report["kept_later_reviews_of_the_same_item"] = int(later.sum())
    return np.sort(order[~same_time])


def _core(
    reviews: _Reviews, options: AmazonOptions, report: dict[str, object]
) -> NDArray[np.bool_]:
    """Return the rows of the largest set in which every user and item has ``core`` rows."""
    keep, dropped = k_core(reviews.users, reviews.items, options.core, options.core)
    report |= {
        "core": options.core,
        "dropped_users_outside_the_core": dropped.sessions,
        "dropped_items_outside_the_core": dropped.items,
        "dropped_rows_outside_the_core": dropped.rows,
        "rounds_of_the_core": dropped.rounds,
    }
    return keep


def _inter(
    parts: Parts, rows: IntArray, sitting: IntArray, report: dict[str, object]
) -> pd.DataFrame:
    """Return the table of the ``.inter`` file."""
    texts = {
        name: parts.scan().select(name).collect().to_series().gather(rows).to_list()
        for name in ("user", "item", "time")
    }
    users = pd.Series(texts["user"], dtype=object)
    report["users"] = int(users.nunique())
    if len(sitting) and sitting[0] >= 0:
        users = users + "_" + pd.Series(sitting + 1).astype(str)
    frame = pd.DataFrame(
        {"session_id": users, "item_id": texts["item"], "timestamp": texts["time"]}
    )
    report |= counts(frame)
    return frame


def _items(known: Parts, used: NDArray, report: dict[str, object]) -> pd.DataFrame:
    """Return the table of the ``.item`` file: items that occur, the first row of each."""
    import polars as pl

    wanted = pl.LazyFrame({"item_id": pl.Series(list(used), dtype=pl.String)})
    rows = known.scan().join(wanted, on="item_id", how="semi").collect().sort("line")
    first = rows.unique("item_id", keep="first", maintain_order=True)
    frame = pd.DataFrame({name: first[name].to_list() for name in ITEM_COLUMNS})
    frame["price"], prices = parse_prices(frame["price"])
    report |= {
        "metadata": known.report(),
        "metadata_rows_repeated": len(rows) - len(first),
        "items_without_metadata": len(used) - len(first),
        "items_with": {
            name: int((frame[name] != "").sum())
            for name in ITEM_COLUMNS
            if name not in ("item_id", "price")
        },
        "prices": prices,
    }
    return frame


def _card(options: AmazonOptions, source: Path, report: dict[str, object]) -> DatasetCard:
    """Return the data set's word about itself."""
    if options.sequences:
        session = "all reviews of one user"
    elif options.session_gap == 0:
        session = "the reviews of one user on one day"
    else:
        session = f"reviews of one user without a pause over {options.session_gap} day(s)"
    if report["times_are_whole_days"]:
        session += "; times are whole days, and reviews of one day keep the order of the file"
    return DatasetCard(
        name=options.dataset,
        source=f"Amazon reviews {options.year} ({PAGES[options.year]}), {source.name}",
        licence=LICENCES[options.year],
        timestamps="real",
        session=session,
        text_fields=options.text_cols if options.meta else (),
        report=report,
    )


def _publish(
    folder: Path, card: DatasetCard, inter: pd.DataFrame, item: pd.DataFrame | None
) -> Path:
    """Write all files aside and then give them their place at once.

    A run killed while writing so leaves nothing that the next one would refuse to overwrite.
    """
    aside = folder.parent / f".{card.name}.new"
    shutil.rmtree(aside, ignore_errors=True)
    write_dataset(aside, card, (inter, INTER_TYPES), None if item is None else (item, ITEM_TYPES))
    if not folder.exists():
        os.replace(aside, folder)
        return folder
    for name in (f"{card.name}.inter", f"{card.name}.item", "dataset.json"):
        if (aside / name).exists():
            os.replace(aside / name, folder / name)
    shutil.rmtree(aside)
    return folder
