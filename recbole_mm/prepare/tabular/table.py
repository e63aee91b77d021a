"""Reading tables of any form so that every complaint can name its line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_mm.errors import DataError
from recbole_mm.prepare.sessions import IntArray
from recbole_mm.prepare.tabular import delimited, typed
from recbole_mm.prepare.tabular.opening import JSON_LINES, PARQUET, form_of


@dataclass(frozen=True)
class Table:
    """Wanted columns of a file as text without blanks at the ends.

    ``lines`` ``(n,)`` holds the line of the file in which each row ends; where a file has no
    lines, the row's number. ``unit`` says which.
    """

    path: Path
    frame: pd.DataFrame
    lines: IntArray
    unit: str = "line"

    def keep(self, rows: NDArray[np.bool_]) -> Table:
        """Return the table with the marked rows only."""
        frame = self.frame[rows].reset_index(drop=True)
        return Table(self.path, frame, self.lines[rows], self.unit)

    def where(self, row: int) -> str:
        """Return the place of a row, such as ``line 7``."""
        return f"{self.unit} {self.lines[row]}"

    def fail(self, row: int, message: str) -> DataError:
        """Return an error about one row."""
        return DataError(f"{self.path}, {self.where(row)}: {message}")


def column_names(path: str | Path) -> list[str]:
    """Return the names of a table's columns; of JSON lines those of the first thousand.

    Raises
    ------
    DataError
        No such file, an empty one, or one that cannot be read.
    """
    path = Path(path)
    form = form_of(path)
    if form == PARQUET:
        return typed.parquet_columns(path)
    if form != JSON_LINES:
        return delimited.header(path, form)
    if names := typed.json_keys(path):
        return names
    raise DataError(f"{path}: empty. Expected one JSON object per line.")


def read_table(path: str | Path, columns: Sequence[str], joined: Collection[str] = ()) -> Table:
    """Read ``columns`` of a table.

    Parameters
    ----------
    path
        CSV, tab-separated, JSON lines or Parquet, packed with gzip or not; see
        `recbole_mm.prepare.tabular.opening.form_of`.
    columns
        Names to keep, each once.
    joined
        Those in which JSON lines and Parquet may hold lists; their texts are joined by blanks.

    Raises
    ------
    DataError
        With file and line: no such file, no rows, a missing or repeated column, or what the form's
        reader finds wrong.
    """
    path = Path(path)
    form, names = form_of(path), column_names(path)
    if form == JSON_LINES:
        cells, numbers = typed.read_json(path, columns, joined)
        names += [name for name, column in zip(columns, cells, strict=True) if any(column)]
        names = list(dict.fromkeys(names))
    places = [_place(path, names, column) for column in columns]
    if form == PARQUET:
        cells, numbers = typed.read_parquet(path, columns, joined)
    elif form != JSON_LINES:
        cells, numbers = delimited.read(path, form, places)
    if not numbers:
        raise DataError(f"{path}: a header without rows. Expected at least one row of data.")
    frame = pd.DataFrame(dict(zip(columns, cells, strict=True)), dtype=object)
    unit = "row" if form == PARQUET else "line"
    return Table(path, frame, np.array(numbers, dtype=np.int64), unit)


def _place(path: Path, header: list[str], column: str) -> int:
    """Return where a column stands."""
    if header.count(column) != 1:
        how_often = "twice" if column in header else "not"
        raise DataError(
            f"{path}, line 1: column {column!r} is {how_often} in the header, which has: "
            f"{', '.join(header)}. Name the right one on the command line."
        )
    return header.index(column)
