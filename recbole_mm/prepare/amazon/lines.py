"""Lines of the Amazon review dumps of 2014, 2018 and 2023: reviews, and what is known of an item.

Reviews are strict JSON in all releases; that of 2023 has tables of ratings, too. Metadata are
strict JSON but in 2014, where a line is a Python dict literal, parsed as data and never executed.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_mm.prepare.amazon.items import ITEM_COLUMNS, item_cells, item_id_key
from recbole_mm.prepare.reading import Tally

if TYPE_CHECKING:
    import polars as pl

NOT_RECORDS = "not one JSON record of the expected types"
NOT_RATINGS = "not a user, an item, a rating and a time, with commas"
HEADER = "the header"
INCOMPLETE = "without user, item or time"
ODD_IDS = "with an id that is not letters, digits, _ or -"
NO_TIME = "with a time outside 1995 to 2100"
NOT_REVIEWED = "of items without a review, not read"
NO_ITEM = "without an id"
# Seconds of 1995-01-01 and 2100-01-01.
_EARLIEST, _LATEST = 788_918_400, 4_102_444_800
_ID = r"^[A-Za-z0-9_-]+$"
_RATINGS = b"user_id,parent_asin,rating,timestamp"
# Keys of user, item and time, and how many units of the time make a second.
_KEYS = {
    2014: ("reviewerID", "asin", "unixReviewTime", 1),
    2018: ("reviewerID", "asin", "unixReviewTime", 1),
    2023: ("user_id", "parent_asin", "timestamp", 1000),
}


class ReviewReader:
    """Reads user, item, time (seconds) and line number of the reviews of a release."""

    harmless: frozenset[str] = frozenset()

    def __init__(self, year: int = 2018) -> None:
        *self._keys, self._units = _KEYS[year]
        # Parts of 2014 and 2018 that were made before 2023 came stay good.
        self.stamp = "reviews 1" if year != 2023 else "reviews 1 2023"
        user, item, time = self._keys
        self.expects = f"lines of JSON with {user}, {item} and {time}"

    def read(self, block: bytes, first_line: int) -> tuple[pl.DataFrame, Tally]:
        """Return ``user``, ``item``, ``time`` and ``line`` of the good lines of a block."""
        import polars as pl

        tally = Tally()
        frame = self._rows(block, first_line, tally)
        if self._units > 1:
            frame = frame.with_columns(pl.col("time") / self._units)
        bad_id = ~(pl.col("user").str.contains(_ID) & pl.col("item").str.contains(_ID))
        for reason, bad in (
            (INCOMPLETE, pl.any_horizontal(pl.col("user", "item", "time").is_null())),
            (ODD_IDS, bad_id),
            (NO_TIME, ~pl.col("time").is_between(_EARLIEST, _LATEST, closed="left")),
        ):
            tally.add(reason, frame.filter(bad)["line"].to_list())
            frame = frame.filter(~bad)
        return frame, tally

    def _rows(self, block: bytes, first_line: int, tally: Tally) -> pl.DataFrame:
        """Return the columns of all lines that are records; the time as it stands there."""
        import polars as pl

        frame = _parse(block, self._keys)
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if frame is not None and frame.height == lines:
            return frame.with_columns(line=pl.int_range(first_line, first_line + lines))
        return _one_by_one(block, first_line, tally, self._keys)


class RatingReader(ReviewReader):
    """Reads the tables of ratings that the release of 2023 has beside the reviews."""

    harmless = frozenset({HEADER})

    def __init__(self) -> None:
        super().__init__(2023)
        self.stamp = "ratings 1 2023"
        self.expects = f"the header {_RATINGS.decode()} and lines of it"

    def _rows(self, block: bytes, first_line: int, tally: Tally) -> pl.DataFrame:
        """Return the columns of all lines with four cells, the last one a whole number."""
        import polars as pl

        lines = block.removesuffix(b"\n").split(b"\n")
        rows: list[tuple[str, str, int, int]] = []
        broken: list[int] = []
        if first_line == 1 and lines[0].rstrip() != _RATINGS:
            broken = list(range(1, len(lines) + 1))  # of another table: the file is refused
            lines = []
        for number, line in enumerate(lines, first_line):
            cells = line.rstrip().split(b",")
            if number == 1:
                tally.add(HEADER, [1])
            elif len(cells) == 4 and cells[3].isdigit() and len(cells[3]) < 19:
                user, item, time = (cells[place].decode("latin-1") for place in (0, 1, 3))
                rows.append((user, item, int(time), number))
            else:
                broken.append(number)
        tally.add(NOT_RATINGS, broken)
        return pl.DataFrame(rows, schema=_review_schema(), orient="row")


def review_reader(path: Path, year: int) -> ReviewReader:
    """Return the reader of a file of reviews; ``.csv`` of 2023 holds ratings."""
    table = ".csv" in path.suffixes[-2:] and year == 2023
    return RatingReader() if table else ReviewReader(year)


def _parse(block: bytes, keys: Sequence[str]) -> pl.DataFrame | None:
    """Return the wanted columns of lines of JSON, or None if a line is no record."""
    import polars as pl

    # polars would unpack what looks packed; a record begins with a brace.
    if block.lstrip()[:1] != b"{":
        return None
    user, item, time = keys
    schema = {user: pl.String, item: pl.String, time: pl.Int64}
    try:
        frame = pl.read_ndjson(io.BytesIO(block), schema=schema)
    except pl.exceptions.PolarsError:
        return None
    return frame.select(user=user, item=item, time=time)


def _one_by_one(block: bytes, first_line: int, tally: Tally, keys: Sequence[str]) -> pl.DataFrame:
    """Read a block with broken lines: halve it until the broken ones stand alone."""
    import polars as pl

    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    good = [pl.DataFrame(schema=_review_schema())]
    broken: list[int] = []
    todo = [(0, len(lines))]
    while todo:
        start, stop = todo.pop()
        frame = _parse(b"\n".join(lines[start:stop]), keys)
        if frame is not None and frame.height == stop - start:
            numbers = pl.int_range(first_line + start, first_line + stop)
            good.append(frame.with_columns(line=numbers))
        elif stop - start == 1:
            broken.append(first_line + start)
        else:
            middle = (start + stop) // 2
            todo += [(middle, stop), (start, middle)]
    tally.add(NOT_RECORDS, broken)
    return pl.concat(good)


def _review_schema() -> pl.Schema:
    """Return the columns of a part of reviews."""
    import polars as pl

    return pl.Schema({"user": pl.String, "item": pl.String, "time": pl.Int64, "line": pl.Int64})


class ItemReader:
    """Reads what is known of the items in ``wanted``.

    Lines of other items are told by their id alone and skipped, which saves most of the time.
    """

    harmless = frozenset({NOT_REVIEWED})

    def __init__(self, year: int, wanted: Iterable[str]) -> None:
        self._literals = year == 2014
        self._year, self._key = year, item_id_key(year)
        self._ids = re.compile(rb"""["']%b["']\s*:\s*["']([^"'\\]*)["']""" % self._key.encode())
        self._wanted = frozenset(wanted)
        digest = hashlib.sha256("\n".join(sorted(self._wanted)).encode()).hexdigest()
        self.stamp = f"items 1 {year} {digest}"
        kind = "Python dict literals or JSON" if self._literals else "JSON"
        self.expects = f"lines of {kind} with {self._key}"

    def read(self, block: bytes, first_line: int) -> tuple[pl.DataFrame, Tally]:
        """Return the cleaned columns and ``line`` of the wanted items of a block."""
        import polars as pl

        rows: list[list[str | int]] = []
        left_out: dict[str, list[int]] = {NOT_RECORDS: [], NO_ITEM: [], NOT_REVIEWED: []}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd backslashes in literals
            for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), first_line):
                found = self._item(line)
                if isinstance(found, str):
                    left_out[found].append(number)
                else:
                    rows.append([*found, number])
        tally = Tally()
        for reason, numbers in left_out.items():
            tally.add(reason, numbers)
        schema = pl.Schema({**dict.fromkeys(ITEM_COLUMNS, pl.String()), "line": pl.Int64()})
        return pl.DataFrame(rows, schema=schema, orient="row"), tally

    def _item(self, line: bytes) -> str | list[str]:
        """Return the cells of an item, or why there are none."""
        ids = self._ids.findall(line)
        if ids and not any(name.decode("latin-1") in self._wanted for name in ids):
            return NOT_REVIEWED
        record = _record(line, self._literals)
        if record is None:
            return NOT_RECORDS
        name = record.get(self._key)
        if not isinstance(name, str):
            return NO_ITEM
        return item_cells(record, self._year) if name in self._wanted else NOT_REVIEWED


def _record(line: bytes, literals: bool) -> dict[str, object] | None:
    """Return the record of a line, or None."""
    try:
        text = line.decode("utf-8").strip()
        record = ast.literal_eval(text) if literals and text[1:2] != '"' else json.loads(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return record if isinstance(record, dict) else None
