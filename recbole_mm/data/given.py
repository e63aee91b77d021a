"""A split that comes with the data: ``<Dataset>.split`` says which part each session belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_mm.data.atomic import read_atomic, write_atomic
from recbole_mm.errors import DataError

PARTS = ("train", "valid", "test")
_TYPES = {"session_id": "token", "part": "token"}


def split_path(folder: str | Path, dataset: str) -> Path:
    """Return ``<folder>/<dataset>.split``."""
    return Path(folder) / f"{dataset}.split"


def write_parts(path: str | Path, frame: pd.DataFrame) -> None:
    """Write ``session_id`` and ``part`` (``train``, ``valid`` or ``test``), one row per session."""
    write_atomic(path, frame, _TYPES)


def read_parts(path: str | Path, sessions: Sequence[str]) -> np.ndarray:
    """Return the ``(S,)`` names of the parts of ``sessions``.

    Raises
    ------
    DataError
        If the file is missing or broken, names a session twice or an unknown part, or lacks a
        session.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path}: no such file, but split_by is given. Write one row of session_id and part "
            "(train, valid or test) per session, or use --split_by=session_random."
        )
    frame = read_atomic(path, list(_TYPES))
    _refuse(path, frame, frame["session_id"].duplicated(), "this session stands higher up already")
    _refuse(path, frame, ~frame["part"].isin(PARTS), "part is none of train, valid, test")
    parts = frame.set_index("session_id")["part"].reindex(list(sessions))
    missing = parts.index[parts.isna()]
    if len(missing):
        raise DataError(
            f"{path}: {len(missing)} session(s) of the .inter file are missing, the first is "
            f"{missing[0]}. Name the part of every session."
        )
    return parts.to_numpy(dtype=str)


def _refuse(path: Path, frame: pd.DataFrame, bad: pd.Series, what: str) -> None:
    """Raise a DataError about the first bad row."""
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        cells = ", ".join(frame.iloc[row])
        raise DataError(f"{path}, line {row + 2}: {what} ({cells}).")
