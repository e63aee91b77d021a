"""MicroLens, comments on short videos with titles and covers, from the published files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from numpy.typing import NDArray

from recbole_mm.data.card import DatasetCard
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.prepare.output import (
    INTER_TYPES,
    counts,
    refuse_overwriting,
    way_between,
    write_dataset,
)
from recbole_mm.prepare.reading import Tally, clean
from recbole_mm.prepare.sessions import cut_by_gap, k_core, order_by_session
from recbole_mm.prepare.settings import given_options
from recbole_mm.prepare.tabular.opening import text_lines
from recbole_mm.prepare.tabular.table import column_names, read_table
from recbole_mm.prepare.tabular.times import parse_times

TITLES = {
    "50k": "MicroLens-50k_titles.csv",
    "100k": "MicroLens-100k_title_en.csv",
    "1M": "MicroLens-1M_title.csv",
}
"""Published size -> its file of titles."""
DEFAULT_RAW = "./microlens_raw"
_SITE = "https://recsys.westlake.edu.cn"
_PAGE = "https://github.com/westlake-repl/MicroLens"
LICENCE = (
    "Its page forbids to change the data and offer them for download again. Cite Ni et al., A "
    "Content-Driven Micro-Video Recommendation Dataset at Scale (arXiv:2309.15379)."
)
NOT_A_TITLE = "without an item's number in front of a comma"
_TITLE_LINE = re.compile(r"(\d+),(.*)", re.DOTALL)


@dataclass(frozen=True)
class MicroLensOptions:
    """What is read; the command line's options carry the same names.

    Attributes
    ----------
    preset
        Published size: 50k, 100k or 1M (users).
    raw
        Folder with the published files.
    gap_minutes
        Longest pause inside a session; None: one sequence per user.
    min_session, min_item
        Fewest rows of a session and of an item.
    """

    preset: str = "50k"
    raw: str = DEFAULT_RAW
    gap_minutes: float | None = None
    min_session: int = 2
    min_item: int = 1

    @property
    def name(self) -> str:
        """Name of the data set, with which its files begin."""
        return f"MicroLens-{self.preset}"

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> MicroLensOptions:
        """Build options from parsed command-line values, where None means the default.

        Raises
        ------
        ConfigError
            Naming the option that is wrong.
        """
        options = cls(**given_options(cls, settings))
        if options.preset not in TITLES:
            raise ConfigError(f"--preset is {options.preset}, expected {', '.join(TITLES)}.")
        if options.min_session < 2 or options.min_item < 1:
            raise ConfigError(
                f"--min_session is {options.min_session} (expected 2 or more) and --min_item is "
                f"{options.min_item} (expected 1 or more)."
            )
        return options


def prepare_microlens(options: MicroLensOptions, out: str | Path, force: bool = False) -> Path:
    """Write a size of MicroLens to ``<out>/MicroLens-<size>`` and return that folder.

    Covers stay where they are: ``.item`` names the pictures, the card their folder.

    Parameters
    ----------
    options
        Size, folder of the raw files, and what a session is.
    out
        Folder of all data sets.
    force
        Overwrite existing files.

    Raises
    ------
    DataError
        If raw files are missing or bad, no row is left, or files exist and ``force`` is false.
    """
    folder = Path(out) / options.name
    refuse_overwriting(folder, options.name, force)
    pairs, titles = _files(options)
    report: dict[str, object] = {}
    rows = _interactions(pairs, options, report)
    covers = _find(options, f"{options.name}_covers")
    item = _items(titles, covers, pd.unique(rows["item_id"]), report)
    if not covers:
        report["covers"] = f"no folder {options.name}_covers in {options.raw}"
    session = "all comments of one user"
    if options.gap_minutes is not None:
        session = f"one user's comments without a pause over {options.gap_minutes:g} minutes"
    card = DatasetCard(
        name=options.name,
        source=f"MicroLens ({_PAGE}), {pairs.name}",
        licence=LICENCE,
        timestamps="real",
        session=session,
        text_fields=("title",),
        image_field="cover" if covers else "",
        image_folder=way_between(folder, covers) if covers else "",
        report=report,
    )
    types = {"item_id": "token", "title": "token_seq", **({"cover": "token"} if covers else {})}
    return write_dataset(folder, card, (rows, INTER_TYPES), (item, types))


def _find(options: MicroLensOptions, name: str) -> Path | None:
    """Return where a raw file or folder is: in the raw folder, or in the size's one."""
    raw = Path(options.raw)
    places = (raw, raw / options.name, raw / f"{options.name}-Dataset")
    return next((place / name for place in places if (place / name).exists()), None)


def _files(options: MicroLensOptions) -> tuple[Path, Path]:
    """Return the paths of the interactions and the titles.

    Raises
    ------
    DataError
        Naming the missing ones, where they are published, and the command to type then.
    """
    names = (f"{options.name}_pairs.csv", TITLES[options.preset])
    pairs, titles = (_find(options, name) for name in names)
    if pairs and titles:
        return pairs, titles
    missing = [name for name, path in zip(names, (pairs, titles), strict=True) if not path]
    addresses = " and ".join(f"{_SITE}/{options.name}-Dataset/{name}" for name in missing)
    raise DataError(
        f"missing raw file(s): {', '.join(missing)}. Put them into the folder {options.raw}, and "
        f"if pictures are wanted the unpacked covers: {options.name}_covers/<item>.jpg. They are "
        f"published at {addresses} (page: {_PAGE}). Then type: recbole-mm prepare microlens "
        f"--preset={options.preset} --raw={options.raw}"
    )


def _interactions(path: Path, options: MicroLensOptions, report: dict[str, object]) -> pd.DataFrame:
    """Return the rows of the ``.inter`` file."""
    frame = _pairs(path, report)
    sessions, times = frame["session_id"], frame["timestamp"].to_numpy()
    if options.gap_minutes is not None:
        sitting = cut_by_gap(sessions.factorize()[0], times, options.gap_minutes * 60) + 1
        sessions = sessions + "_" + pd.Series(sitting).astype(str)
    codes, items = sessions.factorize()[0], frame["item_id"].factorize()[0]
    keep, dropped = k_core(codes, items, options.min_session, options.min_item)
    if not keep.any():
        raise DataError(
            f"{path}: no row is left with --min_session={options.min_session} and --min_item="
            f"{options.min_item}. Lower them, or give a longer --gap_minutes."
        )
    report["users"] = int(frame["session_id"][keep].nunique())
    order = order_by_session(codes, times)
    rows = frame.assign(session_id=sessions).iloc[order[keep[order]]].reset_index(drop=True)
    report |= {
        "dropped_sessions_too_short_or_of_rare_items": dropped.sessions,
        "dropped_items_too_rare_or_of_short_sessions": dropped.items,
        "dropped_rows_of_these": dropped.rows,
        **counts(rows),
    }
    return rows


def _pairs(path: Path, report: dict[str, object]) -> pd.DataFrame:
    """Return user (as ``session_id``), item and seconds of all rows, none of them twice.

    The columns are known by their places: their names differ between the sizes' descriptions.
    """
    names = column_names(path)
    if len(names) != 3 or names[2].isdigit():
        raise DataError(
            f"{path}, line 1: {','.join(names)}. Expected a header of three columns: user, item, "
            "timestamp. Is it the published file?"
        )
    table = read_table(path, names)
    times, positional = parse_times(table, names[2])
    if positional:
        raise table.fail(0, f"{names[2]} holds no times. Expected Unix times in milliseconds.")
    frame = table.frame.set_axis(list(INTER_TYPES), axis=1).assign(timestamp=times)
    repeated = frame.duplicated()
    report |= {"rows_read": len(frame), "dropped_repeated_rows": int(repeated.sum())}
    return frame[~repeated].reset_index(drop=True)


def _items(
    path: Path, covers: Path | None, used: NDArray, report: dict[str, object]
) -> pd.DataFrame:
    """Return the table of the ``.item`` file: items that occur, with title and cover."""
    titles, left_out = _titles(path)
    frame = pd.DataFrame({"item_id": used})
    frame["title"] = [titles.get(item, "") for item in used]
    report |= {
        "titles_left_out": left_out.plain(),
        "items_without_title": int((frame["title"] == "").sum()),
    }
    if covers:
        there = {entry.name for entry in os.scandir(covers)}
        names = (f"{item}.jpg" for item in used)
        frame["cover"] = [name if name in there else "" for name in names]
        report["items_without_cover"] = int((frame["cover"] == "").sum())
    return frame


def _titles(path: Path) -> tuple[dict[str, str], Tally]:
    """Return the title of each item, the first if there are more, and what was left out.

    Titles hold lone quotes, so that a line is cut at its first comma and not read as CSV. Only some
    sizes have a header.
    """
    titles: dict[str, str] = {}
    left_out = Tally()
    for number, line in enumerate(text_lines(path), start=1):
        found = _TITLE_LINE.fullmatch(line.strip())
        if found:
            titles.setdefault(found[1], clean(_unquoted(found[2].strip())))
        elif number > 1:
            left_out.add(NOT_A_TITLE, [number])
    if not titles:
        raise DataError(f"{path}: no line has an item's number and a title with a comma between.")
    return titles, left_out


def _unquoted(text: str) -> str:
    """Return a cell of CSV without the quotes around it; one with lone quotes as it is."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text
