"""What a table's file is, told from its content before its name, and its lines."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from recbole_mm.errors import DataError

CSV, TABS, JSON_LINES, PARQUET = "csv", "tabs", "json lines", "parquet"
FORMS = "CSV, tab-separated, JSON lines or Parquet"
_GZIP, _PARQUET, _ZIP = b"\x1f\x8b", b"PAR1", b"PK\x03\x04"
_BY_NAME = {
    ".csv": CSV, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES, ".json": JSON_LINES,
    ".parquet": PARQUET, ".pq": PARQUET,
}  # fmt: skip


def form_of(path: Path) -> str:
    """Return which kind of table a file is.

    Packed (gzip) and Parquet files are known by their first bytes, the others by their name: the
    end ``.gz`` aside, ``.csv``, ``.jsonl``, ``.ndjson``, ``.json``; any other name is
    tab-separated.

    Raises
    ------
    DataError
        No such file, or a spreadsheet.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Give the path of a table: {FORMS}.")
    with open_bytes(path) as stream:
        first = _first_bytes(path, stream)
    if first == _ZIP:
        raise DataError(f"{path}: a zip file or a spreadsheet. Unpack it, or save it as CSV.")
    if first == _PARQUET:
        return PARQUET
    suffixes = [part.lower() for part in path.suffixes if part.lower() != ".gz"]
    form = _BY_NAME.get(suffixes[-1] if suffixes else "", TABS)
    if form == PARQUET:
        raise DataError(f"{path}: not a Parquet file, whatever its name says. Expected {FORMS}.")
    return form


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, unpacked if it is gzip."""
    with open(path, "rb") as stream:
        packed = stream.read(2) == _GZIP
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else open(path, "rb")


def _first_bytes(path: Path, stream: IO[bytes]) -> bytes:
    try:
        return stream.read(4)
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path, 1, error) from error


def _damaged(path: Path, line: int, error: Exception) -> DataError:
    return DataError(
        f"{path}, line {line}: the packed file is damaged or cut off ({error}). Fetch it again."
    )


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file with their ends, decoded one by one to know the bad one.

    Raises
    ------
    DataError
        With file and line: bytes that are not UTF-8, a NUL character, a damaged packed file.
    """
    with open_bytes(path) as stream:
        for number, raw in enumerate(_raw_lines(path, stream), start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: the bytes are not UTF-8. Save the file as UTF-8, or "
                    f"name it by what it is ({FORMS})."
                ) from error
            if "\0" in line:
                raise DataError(f"{path}, line {number}: a NUL character. Remove it.")
            yield line


def _raw_lines(path: Path, stream: IO[bytes]) -> Iterator[bytes]:
    read = 0
    try:
        for line in stream:
            read += 1
            yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, read + 1, error) from error
