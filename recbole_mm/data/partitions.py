"""Interactions as Parquet partitions, as Spark and its like write them.

A part of a file is read at a time, and of a part three columns; sessions and items become numbers
there and then, so that no interaction is ever a Python object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from recbole_mm.errors import DataError

if TYPE_CHECKING:
    import polars as pl

PARTITIONS = ".inter.parquet"
"""End of the name of a folder of partitions, or of one Parquet file, with interactions."""

# Rows read at once: some 50 MB of names.
_ROWS = 1 << 20
# Names turned into NumPy's text at once.
_NAMES = 1 << 16
# What breaks the tab-separated files that name sessions and items.
_BAD_IN_NAME = '["\t\n\r\v\f\0\x1c-\x1f\x85\u2028\u2029]'
_PAD = "[PAD]"


class Fields(NamedTuple):
    """Names of the columns that hold session, item and time."""

    session: str
    item: str
    time: str


@dataclass(frozen=True)
class Coded:
    """Interactions whose sessions and items are numbers.

    Attributes
    ----------
    session, item
        ``(n,)`` int64 places in the lists of names, in the order of files and rows.
    time
        ``(n,)`` float64.
    session_names, item_names
        Distinct names, sorted, as NumPy's text.
    """

    session: np.ndarray
    item: np.ndarray
    time: np.ndarray
    session_names: np.ndarray
    item_names: np.ndarray


class SortedNames(Mapping[str, int]):
    """Numbers of names that are kept sorted, from 1; 0 is the padding's.

    Parameters
    ----------
    names
        ``(S,)`` sorted names.

    Attributes
    ----------
    padded
        ``(S + 1,)`` the same with the padding's name before them.
    """

    def __init__(self, names: np.ndarray) -> None:
        width = max(names.dtype.itemsize // 4, len(_PAD))
        self.padded = np.empty(len(names) + 1, f"<U{width}")
        self.padded[0], self.padded[1:] = _PAD, names

    def __getitem__(self, name: str) -> int:
        if name == _PAD:
            return 0
        place = 1 + int(np.searchsorted(self.padded[1:], name))
        if place == len(self.padded) or self.padded[place] != name:
            raise KeyError(name)
        return place

    def __iter__(self) -> Iterator[str]:
        return (str(name) for name in self.padded)

    def __len__(self) -> int:
        return len(self.padded)


def datasets_in(root: Path) -> list[str]:
    """Return the names of the data sets under a folder, by their interactions."""
    ends = (".inter", PARTITIONS)
    found = {(path.parent.name, path.name) for end in ends for path in root.glob(f"*/*{end}")}
    return sorted({folder for folder, name in found if name in [folder + end for end in ends]})


def partitions(path: Path) -> list[Path]:
    """Return the Parquet files of a folder in the order of their paths, or the one file itself.

    What begins with ``_`` or ``.`` does not count, as for the engines that write such files.

    Raises
    ------
    DataError
        If there is none.
    """
    if path.is_file():
        return [path]
    found = sorted(
        file
        for file in path.rglob("*.parquet")
        if file.is_file() and not any(p[0] in "_." for p in file.relative_to(path).parts)
    )
    if not found:
        raise DataError(f"{path}: no file *.parquet in this folder. Expected partitions of rows.")
    return found


def read_partitions(path: Path, fields: Fields) -> Coded:
    """Read sessions, items and times of Parquet partitions.

    Parameters
    ----------
    path
        A folder of ``*.parquet``, flat or in folders ``key=value``, or one such file.
    fields
        Columns. Sessions and items are text or whole numbers, times are seconds or moments (which
        become Unix seconds). Other columns are not read.

    Raises
    ------
    DataError
        With the file: it is damaged, lacks a column, or a column is of another type; with the row
        besides: a cell is empty, a time is not finite, a name holds a tab, a quote or a line end.
    """
    parts = [(file, _opened(file, fields)) for file in partitions(path)]
    names = {fields.session: _Names(), fields.item: _Names()}
    total = 0
    for file, start, frame in _chunks(parts):
        for name, collected in names.items():
            distinct = frame[name].unique()
            _check_names(file, start, frame[name], distinct)
            collected.add(distinct)
        _check_times(file, start, frame[fields.time])
        total += len(frame)
    if not total:
        raise DataError(f"{path}: files without rows. Expected at least one interaction.")
    known = {name: _text(collected.sorted()) for name, collected in names.items()}
    numbers = {name: np.empty(total, np.int64) for name in names}
    time = np.empty(total)
    done = 0
    for _, _, frame in _chunks(parts):
        here = slice(done, done := done + len(frame))
        for name in names:
            numbers[name][here] = _places(frame[name], known[name])
        time[here] = frame[fields.time].to_numpy()
    session, item = numbers.values()
    return Coded(session, item, time, *known.values())


def _places(cells: pl.Series, known: np.ndarray) -> np.ndarray:
    """Return the places ``(n,)`` of cells among sorted names; each name is looked up once."""
    import polars as pl

    distinct = cells.unique().sort()
    codes = cells.cast(pl.Enum(distinct)).to_physical().to_numpy()
    return np.searchsorted(known, _text(distinct))[codes]


class _Names:
    """Distinct names of a long table, collected piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[pl.Series] = []
        self._distinct = 0

    def add(self, names: pl.Series) -> None:
        """Take distinct names of some rows."""
        self._pieces.append(names)
        # Not at every piece, or a long table would be gone through once per piece.
        if sum(map(len, self._pieces)) > 2 * max(self._distinct, _ROWS):
            self._pieces = [self.sorted()]
            self._distinct = len(self._pieces[0])

    def sorted(self) -> pl.Series:
        """Return all names, each once, in their order."""
        import polars as pl

        return pl.concat(self._pieces).unique().sort()


def _opened(file: Path, fields: Fields) -> pl.LazyFrame:
    """Return the three columns of a file, names as text and times as seconds, not yet read."""
    import polars as pl

    with _broken_told(file):
        # Keys may stand in the folders' names; the rest of the path must not be taken for keys.
        table = pl.scan_parquet(file, hive_partitioning=True)
        types = dict(table.collect_schema())
    missing = [name for name in fields if name not in types]
    if missing:
        raise DataError(
            f"{file}: column(s) {', '.join(missing)} not found. The file has: {', '.join(types)}. "
            "Rename the column, or name yours in the configuration (for example "
            "--USER_ID_FIELD=user_id --TIME_FIELD=time)."
        )
    for name in (fields.session, fields.item):
        if not (types[name].is_integer() or types[name] in (pl.String, pl.Categorical, pl.Enum)):
            raise _wrong_type(file, name, types[name], "text or whole numbers")
    columns = [pl.col(name).cast(pl.String) for name in (fields.session, fields.item)]
    return table.select(*columns, _seconds(file, fields.time, types[fields.time]))


def _seconds(file: Path, name: str, kind: pl.DataType) -> pl.Expr:
    """Return the expression of a time in seconds."""
    import polars as pl

    column = pl.col(name)
    if kind in (pl.Datetime, pl.Date):
        return column.cast(pl.Datetime("us")).dt.timestamp("us") / 1e6
    if not kind.is_numeric():
        raise _wrong_type(file, name, kind, "numbers (seconds), or moments")
    return column.cast(pl.Float64)


def _wrong_type(file: Path, name: str, kind: pl.DataType, expected: str) -> DataError:
    return DataError(f"{file}: {name} is of type {kind}, expected {expected}. Cast the column.")


def _chunks(
    parts: Sequence[tuple[Path, pl.LazyFrame]],
) -> Iterator[tuple[Path, int, pl.DataFrame]]:
    """Yield file, place of the first row in it, and rows, some at a time."""
    for file, table in parts:
        start = 0
        while True:
            with _broken_told(file):
                frame = table.slice(start, _ROWS).collect()
            if len(frame):
                yield file, start, frame
            if len(frame) < _ROWS:
                break
            start += len(frame)


@contextmanager
def _broken_told(file: Path) -> Iterator[None]:
    """Name a file that polars cannot read; its panics are no Exceptions."""
    import polars as pl

    try:
        yield
    except MemoryError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{file}: no readable Parquet file ({first}). Write it again.") from error


def _check_names(file: Path, start: int, cells: pl.Series, distinct: pl.Series) -> None:
    """Refuse a cell that names no session or item."""
    name = cells.name
    if distinct.is_null().any() or (distinct == "").any():
        raise _bad_row(file, start, cells.is_null() | (cells == ""), f"{name} is empty")
    if ((distinct == _PAD) | distinct.str.contains(_BAD_IN_NAME)).any():
        bad = (cells == _PAD) | cells.str.contains(_BAD_IN_NAME)
        what = f"{name} holds a double quote, a tab or a line end, or is {_PAD}"
        raise _bad_row(file, start, bad, what)


def _check_times(file: Path, start: int, times: pl.Series) -> None:
    """Refuse a cell that is no time."""
    bad = ~times.is_finite().fill_null(value=False)
    if bad.any():
        raise _bad_row(file, start, bad, f"{times.name} is empty or no finite number")


def _bad_row(file: Path, start: int, bad: pl.Series, what: str) -> DataError:
    row = start + int(np.argmax(bad.to_numpy())) + 1
    return DataError(f"{file}, row {row}: {what}. Mend or remove such rows.")


def _text(names: pl.Series) -> np.ndarray:
    """Return names as NumPy's text; they are Python objects a few at a time."""
    width = int(names.str.len_chars().max())  # type: ignore[arg-type]
    text = np.empty(len(names), f"<U{width}")
    for start in range(0, len(names), _NAMES):
        text[start : start + _NAMES] = names[start : start + _NAMES].to_list()
    return text
