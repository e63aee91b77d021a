"""Lines of the Amazon review dumps of 2014 and 2018: reviews, and what is known of an item.

Reviews are strict JSON in both releases. Metadata are strict JSON in 2018; in 2014 a line is a
Python dict literal, which is parsed as data and never executed.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from recbole_mm.prepare.reading import Tally, clean

if TYPE_CHECKING:
    import polars as pl

NOT_RECORDS = "not one JSON record of the expected types"
INCOMPLETE = "without reviewerID, asin or unixReviewTime"
ODD_IDS = "with an id that is not letters, digits, _ or -"
NO_TIME = "with a time outside 1995 to 2100"
NOT_REVIEWED = "of items without a review, not read"
NO_ITEM = "without asin"
ITEM_COLUMNS = (
    "item_id", "title", "brand", "categories", "category", "description", "price", "image_url",
)  # fmt: skip
# Seconds of 1995-01-01 and 2100-01-01.
_EARLIEST, _LATEST = 788_918_400, 4_102_444_800
_ID = r"^[A-Za-z0-9_-]+$"
_ASIN = re.compile(rb"""["']asin["']\s*:\s*["']([^"'\\]*)["']""")
_BLANK = re.compile(r"\s+")
# The scraper of 2018 took the code of the page for the title of some items.
_PAGE_CODE = "getTime("
_NO_IMAGE = "/no-img"


class ReviewReader:
    """Reads user, item, time and line number of reviews."""

    stamp = "reviews 1"
    expects = "lines of JSON with reviewerID, asin and unixReviewTime"
    harmless: frozenset[str] = frozenset()

    def read(self, block: bytes, first_line: int) -> tuple[pl.DataFrame, Tally]:
        """Return ``user``, ``item``, ``time`` and ``line`` of the good lines of a block."""
        import polars as pl

        tally = Tally()
        frame = _parse(block)
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if frame is not None and frame.height == lines:
            frame = frame.with_columns(line=pl.int_range(first_line, first_line + lines))
        else:
            frame = _one_by_one(block, first_line, tally)
        bad_id = ~(pl.col("user").str.contains(_ID) & pl.col("item").str.contains(_ID))
        for reason, bad in (
            (INCOMPLETE, pl.any_horizontal(pl.col("user", "item", "time").is_null())),
            (ODD_IDS, bad_id),
            (NO_TIME, ~pl.col("time").is_between(_EARLIEST, _LATEST, closed="left")),
        ):
            tally.add(reason, frame.filter(bad)["line"].to_list())
            frame = frame.filter(~bad)
        return frame, tally


def _parse(block: bytes) -> pl.DataFrame | None:
    """Return the wanted columns of lines of JSON, or None if a line is no record."""
    import polars as pl

    # polars would unpack what looks packed; a record begins with a brace.
    if block.lstrip()[:1] != b"{":
        return None
    schema = {"reviewerID": pl.String, "asin": pl.String, "unixReviewTime": pl.Int64}
    try:
        frame = pl.read_ndjson(io.BytesIO(block), schema=schema)
    except pl.exceptions.PolarsError:
        return None
    return frame.select(user="reviewerID", item="asin", time="unixReviewTime")


def _one_by_one(block: bytes, first_line: int, tally: Tally) -> pl.DataFrame:
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
        frame = _parse(b"\n".join(lines[start:stop]))
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

    Lines of other items are told by their ``asin`` alone and skipped, which saves most of the time.
    """

    harmless = frozenset({NOT_REVIEWED})

    def __init__(self, year: int, wanted: Iterable[str]) -> None:
        self._literals = year == 2014
        self._wanted = frozenset(wanted)
        digest = hashlib.sha256("\n".join(sorted(self._wanted)).encode()).hexdigest()
        self.stamp = f"items 1 {year} {digest}"
        kind = "Python dict literals or JSON" if self._literals else "JSON"
        self.expects = f"lines of {kind} with asin"

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
        asins = _ASIN.findall(line)
        if asins and not any(asin.decode("latin-1") in self._wanted for asin in asins):
            return NOT_REVIEWED
        record = _record(line, self._literals)
        if record is None:
            return NOT_RECORDS
        asin = record.get("asin")
        if not isinstance(asin, str):
            return NO_ITEM
        return item_cells(record) if asin in self._wanted else NOT_REVIEWED


def _record(line: bytes, literals: bool) -> dict[str, object] | None:
    """Return the record of a line, or None."""
    try:
        text = line.decode("utf-8").strip()
        record = ast.literal_eval(text) if literals and text[1:2] != '"' else json.loads(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return record if isinstance(record, dict) else None


def item_cells(record: Mapping[str, object]) -> list[str]:
    """Return the cells of ``ITEM_COLUMNS`` of a record of either release.

    Texts have their HTML entities resolved and white space collapsed. ``categories`` lists every
    category once, blanks inside a name written ``_``; ``category`` is the finest one of the first
    path. A title that is page code and a picture that says there is none are missing.
    """
    title = _text(record.get("title"))
    paths = _paths(record.get("category") or record.get("categories"))
    names = dict.fromkeys(name.replace(" ", "_") for path in paths for name in path)
    return [
        str(record["asin"]),
        "" if _PAGE_CODE in title else title,
        _text(record.get("brand")),
        " ".join(names),
        paths[0][-1].replace(" ", "_") if paths else "",
        _text(record.get("description")),
        _text(record.get("price")),
        _image(record),
    ]


def _text(value: object) -> str:
    """Return a text, a number, or the texts of a list behind one another."""
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(_text, value)))
    if value is None or isinstance(value, dict | bool):
        return ""
    return clean(str(value))


def _paths(value: object) -> list[list[str]]:
    """Return category paths, none of them empty: 2014 has a list of paths, 2018 one path."""
    if not isinstance(value, list) or not value:
        return []
    nested = value if isinstance(value[0], list) else [value]
    paths = [
        [name for name in map(_text, path) if name] for path in nested if isinstance(path, list)
    ]
    return [path for path in paths if path]


def _image(record: Mapping[str, object]) -> str:
    """Return the address of the first picture, the large one if there is one."""
    for key in ("imageURLHighRes", "imageURL", "imUrl"):
        value = record.get(key)
        addresses = value if isinstance(value, list) else [value]
        for address in addresses:
            if isinstance(address, str) and address.strip() and _NO_IMAGE not in address:
                return _BLANK.sub("", address)
    return ""
