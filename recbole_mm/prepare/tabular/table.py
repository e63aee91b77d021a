"""Reading CSV and tab-separated tables so that every complaint can name its line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_mm.errors import DataError
from recbole_mm.prepare.sessions import IntArray

if TYPE_CHECKING:
    from _csv import Reader


@dataclass(frozen=True)
class Table:
    """Wanted columns of a file as text without blanks at the ends.

    ``lines`` ``(n,)`` holds the line of the file in which each row ends.
    """

    path: Path
    frame: pd.DataFrame
    lines: IntArray

    def keep(self, rows: NDArray[np.bool_]) -> Table:
        """Return the table with the marked rows only."""
        return Table(self.path, self.frame[rows].reset_index(drop=True), self.lines[rows])

    def fail(self, row: int, message: str) -> DataError:
        """Return an error about one row."""
        return DataError(f"{self.path}, line {self.lines[row]}: {message}")


def read_table(path: str | Path, columns: Sequence[str]) -> Table:
    """Read ``columns`` of a table with a header line.

    ``*.csv`` is read with commas (with semicolons, if the header has more of those) and quoted
    cells; any other name as tab-separated without quoting. UTF-8, with or without a byte-order
    mark; CRLF is accepted; blank lines are skipped.

    Parameters
    ----------
    path
        The file.
    columns
        Names in the header to keep, each once.

    Raises
    ------
    DataError
        With file and line: no such file, no rows, a missing or repeated column, a row of another
        width than the header, bytes that are not UTF-8, a NUL character, an open quote.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give the path of a CSV or tab-separated table.")
    lines = _text_lines(path)
    first = next(lines, "")
    header, reader = _open(path, first, lines)
    places = [_place(path, header, column) for column in columns]
    cells: list[list[str]] = [[] for _ in places]
    numbers: list[int] = []
    for row in _rows(path, reader):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {reader.line_num + 1}: {len(row)} cell(s), expected {len(header)} "
                "as in the header. Quote cells that hold the separator or a line end."
            )
        numbers.append(reader.line_num + 1)
        for column, place in zip(cells, places, strict=True):
            column.append(row[place].strip())
    if not numbers:
        raise DataError(f"{path}: a header without rows. Expected at least one row of data.")
    frame = pd.DataFrame(dict(zip(columns, cells, strict=True)), dtype=object)
    return Table(path, frame, np.array(numbers, dtype=np.int64))


def _text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file with their ends, decoded one by one to know the bad one."""
    with open(path, "rb") as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: the bytes are not UTF-8. Save the file as UTF-8."
                ) from error
            if "\0" in line:
                raise DataError(f"{path}, line {number}: a NUL character. Remove it.")
            yield line


def _open(path: Path, first: str, lines: Iterator[str]) -> tuple[list[str], Reader]:
    """Return the header's cells and a reader of the lines after it."""
    if not first.strip():
        raise DataError(f"{path}, line 1: empty. Expected a header line with the column names.")
    if path.suffix.lower() == ".csv":
        separator = ";" if first.count(";") > first.count(",") else ","
        reader = csv.reader(lines, delimiter=separator, strict=True)
        header = next(csv.reader([first], delimiter=separator))
    else:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        header = first.rstrip("\r\n").split("\t")
    return [cell.strip() for cell in header], reader


def _rows(path: Path, reader: Reader) -> Iterator[list[str]]:
    """Yield rows that are not blank; the csv module's complaints become ours."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num + 1}: not a readable row ({error}). Check the "
                "quotes of this cell and the line ends of the file."
            ) from error
        if row:
            yield row


def _place(path: Path, header: list[str], column: str) -> int:
    """Return where a column stands."""
    if header.count(column) != 1:
        how_often = "twice" if column in header else "not"
        raise DataError(
            f"{path}, line 1: column {column!r} is {how_often} in the header, which has: "
            f"{', '.join(header)}. Name the right one on the command line."
        )
    return header.index(column)
