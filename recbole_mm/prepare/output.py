"""Writing a prepared data set: ``.inter``, ``.item`` and ``dataset.json`` in one folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from recbole_mm.data.atomic import write_atomic
from recbole_mm.data.card import DatasetCard
from recbole_mm.data.given import split_path, write_parts
from recbole_mm.errors import DataError
from recbole_mm.files import remove_unfinished

INTER_TYPES = {"session_id": "token", "item_id": "token", "timestamp": "float"}
"""Columns of every ``.inter`` file."""


def counts(inter: pd.DataFrame) -> dict[str, int]:
    """Return the numbers of sessions, items and interactions of an ``.inter`` table."""
    return {
        "sessions": int(inter["session_id"].nunique()),
        "items": int(inter["item_id"].nunique()),
        "interactions": len(inter),
    }


def refuse_overwriting(folder: Path, name: str, force: bool) -> None:
    """Raise a DataError if a file of the data set ``name`` exists in ``folder``, unless forced.

    What a killed process left half-written is removed.

    Parameters
    ----------
    folder
        Where the files will be written.
    name
        Name of the data set, the stem of its files.
    force
        Allow overwriting.
    """
    paths = [*_files(folder, name), split_path(folder, name)]
    present = [path.name for path in paths if path.exists()]
    if present and not force:
        raise DataError(
            f"{folder}: {', '.join(present)} exist(s) already and would be overwritten. Choose "
            "another --out, or add --force=true to replace them."
        )
    for name_of_set in (f"{name}.*", "dataset.json"):
        remove_unfinished(folder, name_of_set)


def way_between(folder: Path, place: Path) -> str:
    """Return the way from a data set's folder to ``place``, for its card."""
    try:
        return Path(os.path.relpath(place.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return place.resolve().as_posix()


def is_complete(folder: Path, name: str) -> bool:
    """Tell whether all files of the data set are there (``dataset.json`` is written last)."""
    return all(path.is_file() for path in _files(folder, name))


def write_dataset(
    folder: Path,
    card: DatasetCard,
    inter: tuple[pd.DataFrame, Mapping[str, str]],
    item: tuple[pd.DataFrame, Mapping[str, str]] | None,
    split: pd.DataFrame | None = None,
) -> Path:
    """Write the files of a data set, each of them whole or not at all, and return ``folder``.

    Parameters
    ----------
    folder
        ``<data_path>/<dataset>``; made if missing.
    card
        Goes to ``dataset.json``; its name is the stem of the other files.
    inter, item
        Table and ``{column: type}`` of the ``.inter`` and the ``.item`` file. Without an item
        table no ``.item`` is written.
    split
        ``session_id`` and ``part`` of every session, for data that come with their own split.
    """
    write_atomic(folder / f"{card.name}.inter", *inter)
    if item is not None:
        write_atomic(folder / f"{card.name}.item", *item)
    if split is not None:
        write_parts(split_path(folder, card.name), split)
    else:
        split_path(folder, card.name).unlink(missing_ok=True)  # of what was overwritten
    card.save(folder)
    return folder


def _files(folder: Path, name: str) -> list[Path]:
    """Return the paths of a data set's files."""
    return [folder / f"{name}.inter", folder / f"{name}.item", folder / "dataset.json"]
