"""MovieLens 100K, cut into sittings, from the copy that the recbole wheel carries.

The ratings are written elsewhere in RecBole's format already; what is added here are sessions,
mended item rows and a card. MovieLens itself is not part of this package.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pandas as pd

from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import DatasetCard
from recbole_mm.errors import DataError
from recbole_mm.prepare.output import (
    INTER_TYPES,
    counts,
    is_complete,
    refuse_overwriting,
    write_dataset,
)
from recbole_mm.prepare.sessions import CoreReport, cut_by_gap, k_core, order_by_session

logger = logging.getLogger(__name__)

NAME = "ml-100k"
GAP_MINUTES = 10.0
ITEM_TYPES = {
    "item_id": "token",
    "title": "token_seq",
    "genres": "token_seq",
    "release_year": "token",
}
LICENCE = (
    "GroupLens MovieLens terms of use: research only, no redistribution without permission, cite "
    "Harper and Konstan (2015). Made from the user's own copy in the recbole wheel; not "
    "distributed with recbole_mm."
)
# The wheel writes a missing title or year with this slip of the pen.
_MISSING = "unkonwn"
_YEAR = r"^(?:18|19|20)\d\d$"
_YEAR_IN_TITLE = r"\((\d{4})\)$"


def prepare_movielens(
    out: str | Path, gap_minutes: float = GAP_MINUTES, force: bool = False
) -> Path:
    """Write MovieLens 100K to ``<out>/ml-100k`` and return that folder.

    A session is a sitting: the ratings of one user without a pause longer than ``gap_minutes``.
    Sittings of one rating are dropped.

    Parameters
    ----------
    out
        Folder of all data sets.
    gap_minutes
        Longest pause inside a session, minutes.
    force
        Overwrite existing files.

    Raises
    ------
    DataError
        If files exist and ``force`` is false, or the recbole wheel lacks its copy.
    """
    folder = Path(out) / NAME
    refuse_overwriting(folder, NAME, force)
    return _write(folder, gap_minutes)


def ensure_ml100k(folder: str | Path) -> Path:
    """Write MovieLens 100K with the default gap to ``folder`` unless all its files are there."""
    folder = Path(folder)
    if not is_complete(folder, NAME):
        refuse_overwriting(folder, NAME, force=False)
        logger.info("preparing %s in %s", NAME, folder)
        _write(folder, GAP_MINUTES)
    return folder


def bundled_folder() -> Path:
    """Return the folder of the recbole wheel that holds ``ml-100k.inter`` and ``ml-100k.item``.

    The wheel is found without importing recbole (which would import torch).

    Raises
    ------
    DataError
        If recbole or its copy of the data is missing.
    """
    spec = importlib.util.find_spec("recbole")
    roots = list(spec.submodule_search_locations or []) if spec else []
    for root in roots:
        folder = Path(root) / "dataset_example" / NAME
        if (folder / f"{NAME}.inter").is_file() and (folder / f"{NAME}.item").is_file():
            return folder
    raise DataError(
        f"recbole/dataset_example/{NAME}: the installed recbole has no copy of MovieLens 100K. "
        "Reinstall it: pip install --force-reinstall 'recbole>=1.2.1,<1.3'"
    )


def _write(folder: Path, gap_minutes: float) -> Path:
    """Read the wheel's files and write ours."""
    source = bundled_folder()
    ratings = read_atomic(source / f"{NAME}.inter", ["user_id", "item_id", "timestamp"])
    rows, dropped = _sittings(ratings, gap_minutes)
    items, mended = _films(read_atomic(source / f"{NAME}.item"))
    items = items[items["item_id"].isin(set(rows["item_id"]))]
    card = DatasetCard(
        name=NAME,
        source="MovieLens 100K (GroupLens, University of Minnesota), from the recbole wheel",
        licence=LICENCE,
        timestamps="real",
        session=f"one user's ratings without a pause longer than {gap_minutes:g} minutes",
        text_fields=("title", "genres"),
        report={
            "gap_minutes": gap_minutes,
            **counts(rows),
            "dropped_sessions_of_one_rating": dropped.sessions,
            "dropped_items_of_such_sessions_only": dropped.items,
            "mended_item_rows": mended,
        },
    )
    return write_dataset(folder, card, (rows, INTER_TYPES), (items, ITEM_TYPES))


def _sittings(ratings: pd.DataFrame, gap_minutes: float) -> tuple[pd.DataFrame, CoreReport]:
    """Return ratings in session order with a ``session_id`` ``<user>_<k>``, k from 1."""
    times = ratings["timestamp"].to_numpy()
    sitting = cut_by_gap(ratings["user_id"].factorize()[0], times, gap_minutes * 60) + 1
    names = ratings["user_id"] + "_" + pd.Series(sitting, index=ratings.index).astype(str)
    sessions = names.factorize()[0]
    keep, dropped = k_core(sessions, ratings["item_id"].factorize()[0], min_session=2, min_item=1)
    order = order_by_session(sessions, times)
    order = order[keep[order]]
    rows = ratings.assign(session_id=names, timestamp=times.astype("int64")).iloc[order]
    return rows[list(INTER_TYPES)], dropped


def _films(raw: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return item rows with empty cells for missing values, and how many rows were mended.

    One film has no title and no year; another one's year column holds a fragment of its title while
    the title still ends with the year.
    """
    title = raw["movie_title"].replace(_MISSING, "")
    year = raw["release_year"]
    odd = ~year.str.match(_YEAR)
    year = year.mask(odd, title.str.extract(_YEAR_IN_TITLE)[0].fillna(""))
    title = title.mask(odd, title.str.replace(_YEAR_IN_TITLE, "", regex=True).str.strip())
    films = pd.DataFrame(
        {
            "item_id": raw["item_id"],
            "title": title,
            "genres": raw["class"].replace("unknown", ""),
            "release_year": year,
        }
    )
    return films, int(odd.sum())
