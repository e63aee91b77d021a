"""Reading CSV and tab-separated tables so that every complaint can name its line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_mm.errors import DataError
from recbole_mm.prepare.tabular.opening import CSV, text_lines

if TYPE_CHECKING:
    from _csv import Reader


def header(path: Path, form: str) -> list[str]:
    """Return the names in the first line."""
    lines = text_lines(path)
    return _open(path, form, next(lines, ""), lines)[0]


def read(path: Path, form: str, places: Sequence[int]) -> tuple[list[list[str]], list[int]]:
    """Return the columns at ``places`` without blanks at the ends of cells, and the rows' lines.

    ``csv`` has commas (semicolons, if the header has more of those) and quoted cells, ``tabs`` no
    quoting. UTF-8, with or without a byte-order mark; CRLF is accepted; blank lines are skipped.
    The line of a row is the one in which it ends.

    Raises
    ------
    DataError
        With file and line: a row of another width than the header, bytes that are not UTF-8, a
        NUL character, an open quote.
    """
    lines = text_lines(path)
    names, reader = _open(path, form, next(lines, ""), lines)
    cells: list[list[str]] = [[] for _ in places]
    numbers: list[int] = []
    for row in _rows(path, reader):
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {reader.line_num + 1}: {len(row)} cell(s), expected {len(names)} "
                "as in the header. Quote cells that hold the separator or a line end."
            )
        numbers.append(reader.line_num + 1)
        for column, place in zip(cells, places, strict=True):
            column.append(row[place].strip())
    return cells, numbers


def _open(path: Path, form: str, first: str, lines: Iterator[str]) -> tuple[list[str], Reader]:
    """Return the header's cells and a reader of the lines after it."""
    if not first.strip():
        raise DataError(f"{path}, line 1: empty. Expected a header line with the column names.")
    if form == CSV:
        separator = ";" if first.count(";") > first.count(",") else ","
        reader = csv.reader(lines, delimiter=separator, strict=True)
        names = next(csv.reader([first], delimiter=separator))
    else:
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        names = first.rstrip("\r\n").split("\t")
    return [cell.strip() for cell in names], reader


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
