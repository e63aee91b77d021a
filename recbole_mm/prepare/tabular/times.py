"""Reading times: seconds, milliseconds and finer, ISO dates, or mere positions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_mm.errors import DataError
from recbole_mm.prepare.tabular.table import Table

# Seconds of 1973-03-03 and 2100-01-01: what lies outside is no time of an interaction.
_EARLIEST, _LATEST = 1e8, 4_102_444_800.0
_UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
_POSITION = "a position"
_EIGHT_DIGITS = (19_000_101, 21_001_231)


def parse_times(
    table: Table, column: str, kind: str | None = None
) -> tuple[NDArray[np.float64], bool]:
    """Read a column of times, none of them empty.

    Numbers are Unix times in seconds, milliseconds, microseconds or nanoseconds, all in one unit,
    told from their size; numbers below 1e8 are positions inside the session. Texts are ISO 8601
    dates with or without time; without a zone they are UTC.

    Parameters
    ----------
    table, column
        The cells.
    kind
        ``real`` or ``positional`` to insist; default: told from the numbers.

    Returns
    -------
    tuple
        Seconds since 1970 (or positions) ``(n,)``, and whether they are positions.

    Raises
    ------
    DataError
        With file and line: a cell that is no time, or units that are mixed.
    """
    cells = table.frame[column]
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    numeric = np.isfinite(numbers)
    if not numeric.any():
        return _parse_dates(table, column, kind), False
    if not numeric.all():
        row = int(np.argmin(numeric))
        raise table.fail(
            row,
            f"{column} is {cells.iloc[row]!r} while {table.where(int(np.argmax(numeric)))} has the "
            "number there. Write all times as numbers of one unit, or all as ISO dates.",
        )
    if kind == "positional":
        return numbers, True
    return _from_numbers(table, column, numbers, kind)


def _from_numbers(
    table: Table, column: str, numbers: NDArray[np.float64], kind: str | None
) -> tuple[NDArray[np.float64], bool]:
    """Return seconds or positions from numbers of one unit."""
    units = [_POSITION, *_UNITS]
    found = np.full(len(numbers), -1)
    found[np.abs(numbers) < _EARLIEST] = 0
    for place, factor in enumerate(_UNITS.values(), start=1):
        found[(numbers >= _EARLIEST * factor) & (numbers < _LATEST * factor)] = place
    if (found < 0).any():
        row = int(np.argmax(found < 0))
        raise table.fail(
            row,
            f"{column} is {table.frame[column].iloc[row]!r}, which is no Unix time between 1973 "
            "and 2100 in any unit. Write Unix seconds or ISO dates such as 2024-05-31T12:00:00.",
        )
    first = found[0]
    if (found != first).any():
        raise _mixed(table, column, units[first], units, found)
    if first > 0:
        return numbers / _UNITS[units[first]], False
    _refuse_dates_without_dashes(table, column, numbers)
    if kind == "real":
        raise DataError(
            f"{table.path}: --timestamps=real, but {column} holds numbers like {numbers[0]:g}, "
            "which are positions, not Unix times. Leave the option out, or give another --time_col."
        )
    return numbers, True


def _mixed(
    table: Table, column: str, first: str, units: list[str], found: NDArray[np.int64]
) -> DataError:
    """Return the error about two units in one column."""
    row = int(np.argmax(found != found[0]))
    cells = table.frame[column]
    return table.fail(
        row,
        f"{column} is {cells.iloc[row]!r}, which looks like {units[found[row]]}, while "
        f"{table.where(0)} has {cells.iloc[0]!r}, which looks like {first}. "
        "Convert all times to one unit (milliseconds / 1000 = seconds), or remove such rows.",
    )


def _refuse_dates_without_dashes(table: Table, column: str, numbers: NDArray[np.float64]) -> None:
    """Raise a DataError if all numbers look like 20240531."""
    low, high = _EIGHT_DIGITS
    if ((numbers >= low) & (numbers <= high)).all():
        raise table.fail(
            0,
            f"{column} is {table.frame[column].iloc[0]!r}, which looks like a date without dashes. "
            "Write 2024-05-31, or say --timestamps=positional if it is none.",
        )


def _parse_dates(table: Table, column: str, kind: str | None) -> NDArray[np.float64]:
    """Return seconds of ISO dates."""
    cells = table.frame[column]
    dates = pd.to_datetime(cells, format="ISO8601", utc=True, errors="coerce")
    bad = dates.isna().to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise table.fail(
            row,
            f"{column} is {cells.iloc[row]!r}, expected a Unix time or an ISO date such as "
            "2024-05-31 or 2024-05-31T12:00:00+02:00.",
        )
    if kind == "positional":
        raise DataError(
            f"{table.path}: --timestamps=positional, but {column} holds dates. Leave it out."
        )
    seconds = (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return seconds.to_numpy(np.float64)
