"""Reading sessions: CSV, TSV, atomic files, Parquet, JSON lines, standard input."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_mm.errors import DataError, MMError

if TYPE_CHECKING:
    import polars

STDIN = "-"
_TABS = (".tsv", ".inter", ".item")
_LISTS = "items"
_KINDS = ".csv, .tsv, .inter, .parquet or .jsonl"


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table of interactions; ``time`` need not be there."""

    session: str = "session_id"
    item: str = "item_id"
    time: str = "timestamp"


@dataclass(frozen=True)
class Asked:
    """Sessions to recommend to: a name each, and their item ids, the newest last."""

    names: list[str]
    sessions: list[list[str]]

    def __len__(self) -> int:
        return len(self.names)


def read_sessions(path: str, columns: Columns) -> Asked:
    """Read sessions from a file, or from standard input if ``path`` is ``-``.

    A table has one row per interaction, in order of time or with a column of times; a row without
    item makes an empty session. A Parquet file may instead have a list per session in a column
    ``items``. A JSON line is a list of item ids, or an object with ``items`` and, if it likes,
    the session's name.

    Raises
    ------
    DataError
        The file is missing or of another kind, a column is missing, or a line is wrong.
    """
    kind, data = Path(path).suffix.lower(), _read(path)
    if path == STDIN:
        kind = ".jsonl" if data.lstrip()[:1] in (b"{", b"[") else ".csv"
    if kind == ".jsonl":
        return _from_lines(path, data, columns)
    frame = _table(path, kind, data)
    with _readable(path, "no table of sessions"):
        return _from_table(path, frame, columns)


def read_table(path: str) -> polars.DataFrame:
    """Read a table of any kind but JSON lines; cells of text files are texts.

    Raises
    ------
    DataError
        The file is missing or no table.
    """
    return _table(path, Path(path).suffix.lower(), _read(path))


def _read(path: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == STDIN else Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a file of {_KINDS}.") from error


def _table(path: str, kind: str, data: bytes) -> polars.DataFrame:
    if kind == ".parquet":
        return _parquet(path, data)
    if kind == ".csv" or kind in _TABS:
        return _csv(path, data, "\t" if kind in _TABS else ",")
    raise DataError(f"{path}: '{kind or 'no suffix'}' is not read; expected {_KINDS}.")


def _from_lines(path: str, data: bytes, columns: Columns) -> Asked:
    """Read JSON lines."""
    names, sessions = [], []
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: no JSON ({error}).") from error
        found = {_LISTS: found} if isinstance(found, list) else found
        items = found.get(_LISTS) if isinstance(found, dict) else None
        if not isinstance(items, list) or not all(map(_is_id, items)):
            raise DataError(
                f'{path}, line {number}: expected a list of item ids, or {{"items": [...]}}.'
            )
        name = found.get(columns.session, number)
        if not _is_id(name):
            raise DataError(
                f"{path}, line {number}: {columns.session} is {name!r}, expected text or a number."
            )
        names.append(str(name))
        sessions.append([str(item) for item in items])
    return Asked(names, sessions)


def _is_id(value: object) -> bool:
    """Return whether a JSON value is a number or a text, without half characters."""
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, int)


@contextmanager
def _readable(path: str, what: str) -> Iterator[None]:
    """Name the file where polars cannot do what it is asked; its panics are no Exceptions."""
    import polars

    try:
        yield
    except (MMError, MemoryError):
        raise
    except (Exception, polars.exceptions.PanicException) as error:
        raise DataError(f"{path}: {what} ({_first_line(error)}).") from error


def _csv(path: str, data: bytes, separator: str) -> polars.DataFrame:
    import polars

    with _readable(path, "no table with a header line"):
        frame = polars.read_csv(io.BytesIO(data), separator=separator, infer_schema=False)
        # The header of an atomic file names the type behind the column.
        return frame.rename({name: name.partition(":")[0] for name in frame.columns})


def _parquet(path: str, data: bytes) -> polars.DataFrame:
    import polars

    with _readable(path, "no Parquet file"):
        return polars.read_parquet(io.BytesIO(data))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _from_table(path: str, frame: polars.DataFrame, columns: Columns) -> Asked:
    """Collect the sessions of a table, in the order of their first rows."""
    import polars

    if _LISTS in frame.columns and frame[_LISTS].dtype == polars.List:
        frame = frame.with_columns(polars.col(_LISTS).cast(polars.List(polars.String)))
        numbers = [str(number + 1) for number in range(len(frame))]
        named = columns.session in frame.columns
        names = frame[columns.session].cast(polars.String).to_list() if named else numbers
        return Asked(names, [_texts(items or ()) for items in frame[_LISTS].to_list()])
    for name in (columns.session, columns.item):
        if name not in frame.columns:
            raise DataError(
                f"{path}: no column '{name}'. It has: {', '.join(frame.columns)}. Name yours with "
                "--session_col and --item_col."
            )
    session, item = polars.col(columns.session), polars.col(columns.item)
    frame = _in_order(path, frame, columns)
    frame = frame.with_columns(session.cast(polars.String), item.cast(polars.String))
    lists = frame.group_by(columns.session, maintain_order=True).agg(item)
    names = [str(name) for name in lists[columns.session].to_list()]
    return Asked(names, [_texts(items) for items in lists[columns.item].to_list()])


def _texts(items: Iterable[str | None]) -> list[str]:
    """Return the ids without empty cells."""
    return [item for item in items if item]


def _in_order(path: str, frame: polars.DataFrame, columns: Columns) -> polars.DataFrame:
    """Sort by the column of times, if there is one; sessions keep the order of their first rows."""
    import polars

    if columns.time not in frame.columns:
        return frame
    cells = frame[columns.time]
    times = cells.cast(polars.Float64, strict=False)
    if cells.dtype == polars.String and times.null_count():
        # polars refuses a column in which it finds no date at all.
        with suppress(polars.exceptions.PolarsError):
            times = cells.str.to_datetime(strict=False, time_unit="us")
    if times.null_count():
        line = int(times.is_null().arg_true()[0]) + 2
        raise DataError(
            f"{path}, line {line}: {columns.time} is '{cells[line - 2]}', expected a number or a "
            "date. Name another column with --time_col, or an absent one to keep the file's order."
        )
    first = frame.with_columns(times.alias("_time")).with_row_index("_row")
    first = first.with_columns(polars.col("_row").min().over(columns.session).alias("_first"))
    return first.sort("_first", "_time", "_row").drop("_first", "_time", "_row")


def read_ids(text: str | None) -> list[str] | None:
    """Return item ids: those of a file with one per line, or the words of the text.

    Raises
    ------
    DataError
        The file is not text.
    """
    if text is None:
        return None
    path = Path(text)
    if not path.is_file():
        return text.split()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a text file with one item id per line.") from error
    return [line.strip() for line in lines if line.strip()]
