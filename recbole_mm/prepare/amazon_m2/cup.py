"""Amazon-M2, the shopping sessions of the KDD Cup 2023, to one data set per locale.

Sessions are ordered lists of items without times, so ``timestamp`` is the position. The test part
is the competition's where its labels are there; validation is drawn from the training sessions.
Both stand in ``<Dataset>.split``, which ``split_by: given`` reads.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_mm.data.card import DatasetCard
from recbole_mm.data.prices import parse_prices
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.options import comma_words
from recbole_mm.prepare.amazon_m2.files import (
    FILES,
    PAGES,
    Sessions,
    find,
    read_labels,
    read_products,
    read_sessions,
)
from recbole_mm.prepare.output import INTER_TYPES, refuse_overwriting, write_dataset
from recbole_mm.prepare.reading import Tally
from recbole_mm.prepare.settings import given_options

logger = logging.getLogger(__name__)

LOCALES = {"ES": 2, "FR": 2, "IT": 2, "DE": 1, "JP": 1, "UK": 1}
"""Locale -> the task of the competition whose test sessions it has."""
DEFAULT_RAW = "./amazon_m2_raw"
ITEM_TYPES = {
    "item_id": "token",
    **dict.fromkeys(("title", "description"), "token_seq"),
    **dict.fromkeys(("brand", "color", "size", "model", "material", "author"), "token"),
    "price": "float",
}
# The shop's mark of an unknown price.
_NO_PRICE = 40_000_000.0
_LICENCE = (
    "The terms stand on the page of the challenge. Not distributed with recbole_mm. Cite Jin et "
    "al., Amazon-M2 (NeurIPS 2023)."
)


@dataclass(frozen=True)
class M2Options:
    """What is read; the command line's options carry the same names.

    Attributes
    ----------
    raw
        Folder with the published files.
    locales
        One data set ``Amazon_M2_<locale>`` is made of each.
    phase
        Test sessions of the first or the second, final phase.
    seed
        Seed of the draw of validation sessions.
    valid_share
        Share of the training sessions drawn for validation; as many again are drawn for the test
        where the labels of its sessions are missing.
    """

    raw: str = DEFAULT_RAW
    locales: tuple[str, ...] = ("ES", "FR", "IT")
    phase: int = 2
    seed: int = 2020
    valid_share: float = 0.1

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> M2Options:
        """Build options from parsed command-line values, where None means the default.

        Raises
        ------
        ConfigError
            Naming the option that is wrong.
        """
        given = given_options(cls, settings)
        if "locales" in given:
            given["locales"] = tuple(comma_words(given["locales"]))
        options = cls(**given)
        unknown = [name for name in options.locales if name not in LOCALES]
        if unknown or not options.locales:
            raise ConfigError(
                f"--locales is {' '.join(options.locales)!r}, expected some of "
                f"{', '.join(LOCALES)}."
            )
        if options.phase not in (1, 2):
            raise ConfigError(f"--phase is {options.phase}, expected 1 or 2.")
        if not 0 < options.valid_share < 0.5:
            raise ConfigError(f"--valid_share is {options.valid_share}, expected 0 to 0.5.")
        return options


@dataclass
class _Read:
    """What the files hold for all wanted locales."""

    train: dict[str, Sessions]
    test: dict[str, Sessions]
    left_out: dict[str, Tally] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


def prepare_amazon_m2(options: M2Options, out: str | Path, force: bool = False) -> list[Path]:
    """Write one data set per locale to ``<out>/Amazon_M2_<locale>`` and return the folders.

    Parameters
    ----------
    options
        Files, locales and the draw.
    out
        Folder of all data sets.
    force
        Overwrite existing files.

    Raises
    ------
    DataError
        If raw files are missing or are others, a locale has no session, or files exist and
        ``force`` is false.
    """
    folders = {locale: Path(out) / f"Amazon_M2_{locale}" for locale in options.locales}
    for folder in folders.values():
        refuse_overwriting(folder, folder.name, force)
    read = _read(options)
    used = {
        locale: {item for part in (read.train, read.test) for item in part[locale].items_used()}
        for locale in options.locales
    }
    products, tally, rows = read_products(_need(options)["products"], used)
    read.left_out["products"], read.rows["products"] = tally, rows
    for locale, folder in folders.items():
        _write(folder, locale, options, read, products[locale], used[locale])
    return list(folders.values())


def _need(options: M2Options) -> dict[str, Path]:
    """Return the two files that every locale needs.

    Raises
    ------
    DataError
        Naming the missing ones, where they are published, and the command to type then.
    """
    found = {key: find(options.raw, FILES[key]) for key in ("train", "products")}
    missing = [FILES[key][0] for key, path in found.items() if path is None]
    if missing:
        raise DataError(
            f"missing raw file(s): {', '.join(missing)}. Put them into the folder {options.raw}, "
            "with sessions_test_task1.csv, sessions_test_task2.csv and the labels gt_task1.csv, "
            f"gt_task2.csv if you have them. They are published at {PAGES}. Then type: recbole-mm "
            f"prepare amazon-m2 --raw={options.raw} --locales={','.join(options.locales)}"
        )
    return {key: path for key, path in found.items() if path is not None}


def _read(options: M2Options) -> _Read:
    """Read training sessions, and test sessions where their labels are there."""
    train, tally, rows = read_sessions(_need(options)["train"], options.locales)
    read = _Read(train, {locale: Sessions() for locale in options.locales})
    read.left_out["sessions_train"], read.rows["sessions_train"] = tally, rows
    for task in sorted({LOCALES[locale] for locale in options.locales}):
        mine = tuple(locale for locale in options.locales if LOCALES[locale] == task)
        names = {key: FILES[key, task, options.phase] for key in ("test", "labels")}
        test, labels = (find(options.raw, name) for name in names.values())
        if test is None or labels is None:
            absent = names["test"][0] if test is None else names["labels"][0]
            logger.warning(
                "%s: %s is not there, so the test part of %s is drawn from the training sessions",
                options.raw, absent, ", ".join(mine),
            )  # fmt: skip
            continue
        found, tally, rows = read_sessions(test, mine, read_labels(labels))
        read.test.update(found)
        read.left_out[test.stem], read.rows[test.stem] = tally, rows
    for locale in options.locales:
        if len(read.train[locale]) < 3:
            raise DataError(
                f"{_need(options)['train']}: {len(read.train[locale])} session(s) of {locale}, too "
                "few to split. Is the file whole, and --locales right?"
            )
    return read


def _write(
    folder: Path,
    locale: str,
    options: M2Options,
    read: _Read,
    products: pd.DataFrame,
    used: set[str],
) -> None:
    """Write the data set of one locale."""
    train, test = read.train[locale], read.test[locale]
    parts = _draw(len(train), len(test) == 0, options)
    split = pd.DataFrame(
        {
            "session_id": [*_ids("train", train), *_ids("test", test)],
            "part": [*parts, *["test"] * len(test)],
        }
    )
    items, prices = _items(products)
    counts = split["part"].value_counts()
    report = {
        "rows_read": read.rows,
        "left_out": {name: tally.plain() for name, tally in read.left_out.items()},
        "test_part": f"phase {options.phase} of the competition"
        if len(test)
        else "drawn from the training sessions: the competition's labels were not there",
        "valid_share": options.valid_share,
        "seed": options.seed,
        "sessions": {part: int(counts[part]) for part in ("train", "valid", "test")},
        "items": len(used),
        "items_without_a_product_row": len(used) - len(items),
        "items_with": {name: int((items[name] != "").sum()) for name in ("title", "description")},
        "prices": prices,
    }
    inter = pd.concat([_rows("train", train), _rows("test", test)], ignore_index=True)
    report["interactions"] = len(inter)
    card = DatasetCard(
        name=folder.name,
        source=f"Amazon-M2, KDD Cup 2023, locale {locale} ({PAGES})",
        licence=_LICENCE,
        timestamps="positional",
        session="a shopper's session as published, its next item last; times are positions",
        text_fields=("title", "description"),
        report=report,
    )
    write_dataset(folder, card, (inter, INTER_TYPES), (items, ITEM_TYPES), split)


def _draw(count: int, with_test: bool, options: M2Options) -> list[str]:
    """Return the part of each training session."""
    parts = np.full(count, "train", dtype=object)
    order = np.random.default_rng(options.seed).permutation(count)
    share = max(1, round(options.valid_share * count))
    parts[order[:share]] = "valid"
    if with_test:
        parts[order[share : 2 * share]] = "test"
    return parts.tolist()


def _ids(kind: str, sessions: Sessions) -> list[str]:
    """Return session ids: the file and the row in it."""
    return [f"{kind}_{row}" for row in sessions.rows]


def _rows(kind: str, sessions: Sessions) -> pd.DataFrame:
    """Return the interactions with positions from 1 as times."""
    lengths = np.array([len(items) for items in sessions.items], dtype=np.int64)
    ends = np.cumsum(lengths)
    return pd.DataFrame(
        {
            "session_id": np.repeat(np.array(_ids(kind, sessions), dtype=object), lengths),
            "item_id": [item for items in sessions.items for item in items],
            "timestamp": np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths) + 1,
        }
    )


def _items(products: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the table of the ``.item`` file and what became of the prices."""
    # The name that the other data sets, and so the recipes, have for it.
    items = products.rename(columns={"id": "item_id", "desc": "description"})[list(ITEM_TYPES)]
    prices, outcomes = parse_prices(items["price"])
    unknown = prices >= _NO_PRICE
    outcomes["mark_of_an_unknown_price"] = int(unknown.sum())
    return items.assign(price=np.where(unknown, np.nan, prices)), outcomes
