"""The CSV files of Amazon-M2: sessions, labels of test sessions, and products."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import pandas as pd
from tqdm import tqdm

from recbole_mm.errors import DataError
from recbole_mm.prepare.reading import Tally, byte_bar, clean

PAGES = (
    "https://www.aicrowd.com/challenges/amazon-kdd-cup-23-multilingual-recommendation-challenge "
    "and https://kddcup23.github.io"
)
ITEM_COLUMNS = ("title", "desc", "brand", "color", "size", "model", "material", "author", "price")
NO_LIST = "whose prev_items is no printed list of ids"
NO_NEXT = "without next_item"
BAD_ROW = "of another width than the header, or with a broken quote"
REPEATED = "of a product that stands higher up already"
NO_ID = "without id"
_ID = r"[A-Za-z0-9_-]+"
_LIST = re.compile(rf"\s*\[\s*(?:(?:'{_ID}'|\"{_ID}\")[\s,]*)+\]\s*")
_ELEMENT = re.compile(_ID)


def _names() -> dict[str | tuple[str, int, int], tuple[str, ...]]:
    """Return file names by what they are; the first is the published one."""
    names: dict[str | tuple[str, int, int], tuple[str, ...]] = {
        "train": ("sessions_train.csv",),
        "products": ("products_train.csv",),
    }
    for task in (1, 2):
        for phase in (1, 2):
            for key, stem in (("test", f"sessions_test_task{task}"), ("labels", f"gt_task{task}")):
                long = f"{stem}_phase{phase}.csv"
                inside = (f"ground_truth/phase{phase}", f"phase{phase}")
                folders = [f"{folder}/{stem}.csv" for folder in inside]
                bare = [f"{stem}.csv"] if phase == 2 else []
                names[key, task, phase] = (*bare, long, *folders, f"task{task}/{long}")
    return names


FILES = _names()


@dataclass
class Sessions:
    """Sessions of one locale in file order: data rows of the file (from 1) and their items."""

    rows: list[int] = field(default_factory=list)
    items: list[list[str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def items_used(self) -> set[str]:
        """Return every item that occurs."""
        return {item for items in self.items for item in items}


def find(folder: str | Path, names: Sequence[str]) -> Path | None:
    """Return the first of the named files that exists in a folder."""
    return next((path for name in names if (path := Path(folder) / name).is_file()), None)


def parse_items(cell: str) -> list[str] | None:
    """Return the ids of a printed NumPy array such as ``['B01' 'B02']``; None if it is none.

    The text is taken apart, never evaluated; an array cut with ``...`` is none.
    """
    return _ELEMENT.findall(cell) if _LIST.fullmatch(cell) else None


def read_labels(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of labels.

    Raises
    ------
    DataError
        If the file has no column ``next_item``.
    """
    return [row or {} for _, row in _table(path, ("next_item",), Tally())]


def read_sessions(
    path: Path, locales: Sequence[str], labels: list[dict[str, str]] | None = None
) -> tuple[dict[str, Sessions], Tally, int]:
    """Read sessions, the next item last.

    Parameters
    ----------
    path
        ``sessions_train.csv``, or test sessions.
    locales
        Which to keep.
    labels
        Of test sessions: the rows with ``next_item``, one per session in the same order. Columns
        that both files have must agree.

    Returns
    -------
    tuple
        Sessions per locale, rows that were left out (of these locales), and the rows read.

    Raises
    ------
    DataError
        If a column is missing, or the labels are those of another file.
    """
    found = {locale: Sessions() for locale in locales}
    tally, columns = Tally(), ("prev_items", "locale")
    known: dict[str, str] = {}
    number = 0
    for number, row in _table(
        path, columns if labels is not None else (*columns, "next_item"), tally
    ):
        label = row if labels is None else _label(path, labels, number, row)
        if row is None or row["locale"] not in found:
            continue
        items, following = (
            parse_items(row["prev_items"]),
            (label or {}).get("next_item", "").strip(),
        )
        if items is None:
            tally.add(NO_LIST, [number])
        elif not _ELEMENT.fullmatch(following):
            tally.add(NO_NEXT, [number])
        else:
            found[row["locale"]].rows.append(number)
            # One string per item, however often it occurs.
            found[row["locale"]].items.append([known.setdefault(i, i) for i in [*items, following]])
    if labels is not None and number != len(labels):
        raise _other_labels(path, f"{number} sessions but {len(labels)} labels")
    return found, tally, number


def _label(
    path: Path, labels: list[dict[str, str]], number: int, row: dict[str, str] | None
) -> dict[str, str]:
    """Return the label of a test session after comparing what both files say."""
    if number > len(labels):
        raise _other_labels(path, f"only {len(labels)} labels")
    label = labels[number - 1]
    for name in ("locale", "prev_items"):
        if row and name in label and label[name].split() != row[name].split():
            raise _other_labels(path, f"another {name} in row {number}")
    return label


def _other_labels(path: Path, what: str) -> DataError:
    """Return the error about labels that do not belong to the sessions."""
    return DataError(
        f"{path}: the labels belong to other sessions ({what}). Use the sessions and the "
        "labels of one task and one phase (--phase=1 or 2)."
    )


def read_products(
    path: Path, used: Mapping[str, set[str]]
) -> tuple[dict[str, pd.DataFrame], Tally, int]:
    """Read the products that occur in sessions, by locale; of several rows the first is kept.

    Returns
    -------
    tuple
        Tables with ``id`` and ``ITEM_COLUMNS`` as text, rows that were left out, and the rows read.
    """
    kept: dict[str, dict[str, list[str]]] = {locale: {} for locale in used}
    tally = Tally()
    number = 0
    for number, row in _table(path, ("id", "locale", *ITEM_COLUMNS), tally):
        if row is None or row["locale"] not in kept:
            continue
        item, products = row["id"].strip(), kept[row["locale"]]
        if not item:
            tally.add(NO_ID, [number])
        elif item in products:
            tally.add(REPEATED, [number])
        elif item in used[row["locale"]]:
            products[item] = [item, *(clean(row[name]) for name in ITEM_COLUMNS)]
    columns = ["id", *ITEM_COLUMNS]
    frames = {
        locale: pd.DataFrame(list(products.values()), columns=columns, dtype=object)
        for locale, products in kept.items()
    }
    return frames, tally, number


def _table(
    path: Path, columns: Sequence[str], tally: Tally
) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Yield the number of each data row (from 1) and the row, None if it is broken.

    Raises
    ------
    DataError
        If a column is missing.
    """
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as stream:
        bar = byte_bar(path)
        reader = csv.reader(_lines(stream, bar), strict=True)
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in columns if name not in header]
        if missing:
            raise DataError(
                f"{path}, line 1: column(s) {', '.join(missing)} not found. The header has: "
                f"{', '.join(header) or 'nothing'}. Is it the published file?"
            )
        for number, cells in enumerate(_rows(reader), start=1):
            if cells is None or len(cells) != len(header):
                tally.add(BAD_ROW, [number])
                yield number, None
            else:
                yield number, dict(zip(header, cells, strict=True))
        bar.close()


def _lines(stream: TextIO, bar: tqdm) -> Iterator[str]:
    """Yield lines and move the bar."""
    for line in stream:
        bar.update(len(line))
        yield line


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str] | None]:
    """Yield rows that are not blank; None for one that is no CSV, after which reading goes on."""
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None
            continue
        if row:
            yield row
