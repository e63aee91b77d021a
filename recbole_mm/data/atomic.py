"""Strict reader and writer of RecBole's atomic files.

An atomic file is UTF-8 text: a header of ``name:type`` cells and rows of cells, separated by tabs.
RecBole's own reader guesses (quotes open quoted cells, ``NA`` means missing); this one does not:
every row has as many cells as the header, an empty cell is a missing value, all else is itself.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_mm.errors import DataError
from recbole_mm.files import atomic_write

TYPES = ("token", "token_seq", "float", "float_seq")
_BLANK = re.compile(r"[\s\0]+")


def header(path: str | Path) -> dict[str, str]:
    """Return the columns of an atomic file as ``{name: type}``, in file order.

    Raises
    ------
    DataError
        If the file is missing, empty, not UTF-8, or a header cell is not ``name:type``.
    """
    path = Path(path)
    if not path.is_file():
        raise _no_such_file(path)
    stat = path.stat()
    return dict(_header(path, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=64)
def _header(path: Path, changed_ns: int, size: int) -> dict[str, str]:
    """Parse the first line; a file that stays as it is is asked many times and parsed once."""
    with open(path, "rb") as stream:
        return _parse_header(path, _decoded(path, stream.readline()).split("\n", 1)[0])


def read_atomic(path: str | Path, columns: Iterable[str] | None = None) -> pd.DataFrame:
    """Read an atomic file.

    Parameters
    ----------
    path
        The file. A byte-order mark and CRLF line ends are accepted.
    columns
        Names to keep; all of them must be in the header. Default: all.

    Returns
    -------
    pandas.DataFrame
        One row per line; ``float`` columns as float64 (empty cell: NaN), all others as ``str``
        (empty cell: ``""``). Row ``r`` is line ``r + 2`` of the file.

    Raises
    ------
    DataError
        With file and line, for a wrong number of cells, bytes that are not UTF-8, a stray carriage
        return, a missing or repeated column, or a number that is not one.
    """
    path = Path(path)
    types = header(path)
    text = _decoded(path, path.read_bytes())
    wanted = list(types) if columns is None else list(columns)
    require_columns(path, types, wanted)
    frame = _read_cells(path, text, list(types))[wanted]
    for name in wanted:
        if types[name] == "float":
            frame[name] = _to_float(path, name, frame[name])
    return frame


def write_atomic(path: str | Path, frame: pd.DataFrame, types: Mapping[str, str]) -> None:
    """Write ``frame`` as an atomic file, whole or not at all.

    Runs of white space (and NUL) become one blank, because a tab or a line end breaks the file,
    and double quotes are removed, because RecBole's stock reader takes them for quoted cells.

    Parameters
    ----------
    path
        Final name.
    frame
        Columns named by the keys of ``types``.
    types
        ``{column: token | token_seq | float | float_seq}``, in the order to write.

    Raises
    ------
    DataError
        If a type is unknown or a column is missing.
    """
    for name, kind in types.items():
        if kind not in TYPES or name not in frame:
            raise DataError(f"{path}: cannot write column {name}:{kind}; types are {TYPES}.")
    cells = pd.DataFrame({f"{name}:{kind}": frame[name] for name, kind in types.items()})
    for name in cells.columns[~cells.columns.str.endswith(":float")]:
        text = cells[name].fillna("").astype(str).str.replace('"', "", regex=False)
        cells[name] = text.str.replace(_BLANK, " ", regex=True).str.strip()
    with atomic_write(path) as stream:
        cells.to_csv(stream, sep="\t", index=False, quoting=csv.QUOTE_NONE, lineterminator="\n")


def require_columns(path: Path, types: Mapping[str, str], wanted: Iterable[str]) -> None:
    """Raise a DataError that names every column of ``wanted`` missing from the header ``types``."""
    missing = [name for name in wanted if name not in types]
    if missing:
        raise DataError(
            f"{path}, line 1: column(s) {', '.join(missing)} not found. The header has: "
            f"{', '.join(types)}. Rename the column in the file, or name yours in the "
            "configuration (for example --USER_ID_FIELD=user_id --TIME_FIELD=time)."
        )


def _no_such_file(path: Path) -> DataError:
    return DataError(f"{path}: no such file. Expected an atomic file; check --data_path.")


def _decoded(path: Path, raw: bytes) -> str:
    """Return a file's text with bare line feeds and without a byte-order mark."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if not raw.strip():
        raise DataError(f"{path}: the file is empty. Expected a header of name:type cells.")
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: the bytes are not UTF-8. Save the file as UTF-8."
        ) from error
    for character, name in (("\r", "a carriage return"), ("\0", "a NUL character")):
        if character in text:
            line = text.count("\n", 0, text.index(character)) + 1
            raise DataError(f"{path}, line {line}: {name} stands inside the line. Remove it.")
    return text


def _parse_header(path: Path, line: str) -> dict[str, str]:
    """Return ``{name: type}`` of a header line."""
    types: dict[str, str] = {}
    for cell in line.split("\t"):
        name, _, kind = cell.rpartition(":")
        if not name or kind not in TYPES:
            raise DataError(
                f"{path}, line 1: header cell {cell!r} is not name:type with a type of "
                f"{', '.join(TYPES)}. Columns are separated by tabs."
            )
        if name in types:
            raise DataError(f"{path}, line 1: column {name} stands twice. Remove one.")
        types[name] = kind
    return types


def _read_cells(path: Path, text: str, names: list[str]) -> pd.DataFrame:
    """Return all cells as strings; every row must have ``len(names)`` cells."""
    body = text.rstrip("\n") + "\n"
    if body.count("\n") < 2:
        raise DataError(f"{path}: a header without rows. Expected at least one row of data.")
    _check_widths(path, body, len(names))
    return pd.read_csv(
        io.StringIO(body),
        sep="\t",
        header=None,
        skiprows=1,
        names=names,
        dtype=str,
        na_filter=False,
        quoting=csv.QUOTE_NONE,
        lineterminator="\n",
        skip_blank_lines=False,
    )


def _check_widths(path: Path, body: str, width: int) -> None:
    """Raise a DataError for the first line without ``width`` cells; pandas would fill or cut it."""
    raw = np.frombuffer(body.encode(), np.uint8)
    line_ends = np.flatnonzero(raw == ord("\n"))
    tabs = np.diff(np.searchsorted(np.flatnonzero(raw == ord("\t")), line_ends), prepend=0)
    wrong = np.flatnonzero(tabs != width - 1)
    if len(wrong):
        raise DataError(
            f"{path}, line {wrong[0] + 1}: {tabs[wrong[0]] + 1} cell(s), expected {width}. A tab "
            "in a text, or a line end inside a row, splits it: replace it by a blank."
        )


def _to_float(path: Path, name: str, cells: pd.Series) -> np.ndarray:
    """Return cells as float64, empty ones as NaN; anything else must be a finite number."""
    empty = (cells == "").to_numpy()
    # pandas tells numbers from text quickly but may miss the last digit; Python's float does not.
    guess = pd.to_numeric(cells.where(~empty, "0"), errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(guess)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(
            f"{path}, line {row + 2}: {name} is {cells.iloc[row]!r}, expected a finite number "
            "like 12.99 or an empty cell."
        )
    return cells.where(~empty, "nan").to_numpy(dtype=object).astype(np.float64)
