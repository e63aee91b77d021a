"""Reading JSON lines and Parquet, whose cells have types, as the text a CSV would have."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl

from recbole_mm.errors import DataError
from recbole_mm.prepare.tabular.opening import open_bytes, text_lines

_LOOKED_AT = 1000  # lines; keys that occur later only are found when they are asked for
_EXACT = 2**53
# Damaged files come out of polars in many ways; its panics are no Exceptions.
_BROKEN = (Exception, pl.exceptions.PanicException)


def cell_text(value: object, joined: bool = False) -> str:
    """Return a value as text: nothing for null and NaN, ``12`` for 12.0, ISO dates.

    Parameters
    ----------
    value
        What JSON or Parquet gave.
    joined
        Whether a list may stand there, as of categories; its texts are joined by blanks.

    Raises
    ------
    ValueError
        Saying what the value is, where no text can stand for it.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError("half a character (a lone surrogate)")
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, int | float | Decimal):
        return str(value)
    if joined and isinstance(value, list):
        return " ".join(filter(None, (cell_text(part, joined) for part in value)))
    what: dict[type, str] = {dict: "an object", list: "a list", bytes: "bytes"}
    raise ValueError(what.get(type(value), f"a {type(value).__name__}"))


def _text(where: str, column: str, value: object, joined: bool) -> str:
    try:
        return cell_text(value, joined)
    except ValueError as error:
        raise DataError(
            f"{where}: {column} is {error}, expected a text, a number or a date. Write one value "
            "per cell, one row per interaction."
        ) from error


def json_keys(path: Path) -> list[str]:
    """Return the keys of the first thousand objects, in order of appearance."""
    keys: dict[str, None] = {}
    for (_, row), _ in zip(_objects(path), range(_LOOKED_AT), strict=False):
        keys |= dict.fromkeys(row)
    return list(keys)


def read_json(
    path: Path, columns: Sequence[str], joined: Collection[str]
) -> tuple[list[list[str]], list[int]]:
    """Return columns of JSON lines and the lines; a key that a line lacks is an empty cell.

    Raises
    ------
    DataError
        With file and line: not one JSON object, or a value that is no text.
    """
    cells: list[list[str]] = [[] for _ in columns]
    numbers = []
    for number, row in _objects(path):
        numbers.append(number)
        for cell, name in zip(cells, columns, strict=True):
            cell.append(_text(f"{path}, line {number}", name, row.get(name), name in joined))
    return cells, numbers


def _objects(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield line number and object of every line that is not blank."""
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: no JSON ({error}). Expected one object per line, like "
                '{"session": "s1", "item": "a"}.'
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, line {number}: a {type(row).__name__}, expected one JSON object per line."
            )
        yield number, row


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    try:
        with open_bytes(path) as stream:
            return list(pl.read_parquet_schema(stream))
    except _BROKEN as error:
        raise _no_parquet(path, error) from error


def read_parquet(
    path: Path, columns: Sequence[str], joined: Collection[str]
) -> tuple[list[list[str]], list[int]]:
    """Return columns of a Parquet file, and the numbers of the rows from 1.

    Raises
    ------
    DataError
        If the file is damaged, or a value is no text (with the row).
    """
    try:
        with open_bytes(path) as stream:
            frame = pl.read_parquet(stream.read(), columns=list(columns))
    except _BROKEN as error:
        raise _no_parquet(path, error) from error
    cells = [
        [
            _text(f"{path}, row {number}", name, value, name in joined)
            for number, value in enumerate(frame[name].to_list(), start=1)
        ]
        for name in columns
    ]
    return cells, list(range(1, len(frame) + 1))


def _no_parquet(path: Path, error: Exception) -> DataError:
    first = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(f"{path}: no readable Parquet file ({first}). Write it again.")
