"""What MMSBR reads of prices and categories: columns of the ``.item`` file, numbered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_mm.data.item_columns import ItemColumns
from recbole_mm.data.prices import parse_prices
from recbole_mm.errors import DataError
from recbole_mm.model.mmsbr.price_levels import price_levels
from recbole_mm.model.mmsbr.settings import Use

PRICE_COLUMNS = ("price",)
CATEGORY_COLUMNS = ("category", "categories")


class PriceSettings(Protocol):
    """Settings of a model that reads prices; meanings as in `MMSBRSettings`."""

    @property
    def use_price(self) -> Use:
        """Whether prices are read."""

    @property
    def use_category(self) -> Use:
        """Whether categories are read."""

    @property
    def price_field(self) -> str | None:
        """Column of the price."""

    @property
    def category_field(self) -> str | None:
        """Column of the category."""

    @property
    def price_levels(self) -> int:
        """Steps of price."""


class Prices(NamedTuple):
    """Prices and categories of the items ``(N,)``, numbered; 0 is the padding item.

    Attributes
    ----------
    levels
        int64, the last number for an unknown price.
    n_levels
        One more than the largest level.
    categories
        int64, the last number for a category that no training item has; None leaves them out.
    n_categories
        One more than the largest category.
    priced
        bool: items that have a price.
    """

    levels: Tensor
    n_levels: int
    categories: Tensor | None
    n_categories: int
    priced: Tensor


def read_prices(
    columns: ItemColumns,
    settings: PriceSettings,
    seen: NDArray[np.bool_],
    leveled: Callable[..., NDArray[np.int64]] = price_levels,
) -> Prices | None:
    """Read prices and categories of the ``.item`` file; levels are fitted on the items ``seen``.

    ``use_price`` and ``use_category`` are true (must be there), false, or ``auto``; ``leveled`` is
    `price_levels` or `logistic_levels`.

    Returns
    -------
    Prices or None
        None where prices are not wanted or no item of training has one.

    Raises
    ------
    DataError
        If a column that must be there is not, or holds no price of a training item.
    """
    column = None
    if settings.use_price is not False:
        column = find_column(columns, settings.price_field, PRICE_COLUMNS)
    prices = np.full(len(seen), np.nan) if column is None else item_prices(columns, column)
    if not np.isfinite(prices[seen]).any():
        if settings.use_price is True:
            raise DataError(
                f"{columns.path}: use_price is true, but no item of the training sessions has "
                f"a price (column {column or 'price'} of the .item file). Add prices, name their "
                "column with --price_field, or set --use_price=auto."
            )
        return None
    names = _categories(columns, settings)
    groups = np.full(len(seen), "") if names is None else names
    levels = leveled(prices, groups, seen, settings.price_levels)
    levels[0] = 0
    ids, count = (None, 0) if names is None else _number(names, seen)
    priced = torch.from_numpy(np.isfinite(prices))
    return Prices(torch.from_numpy(levels), settings.price_levels + 3, ids, count, priced)


def find_column(columns: ItemColumns, wanted: str | None, usual: Sequence[str]) -> str | None:
    """Return the column ``wanted``, or the first usual one that the ``.item`` file has, or None.

    Raises
    ------
    DataError
        If a column is asked for by name and is not there.
    """
    there = columns.types
    if wanted is None:
        return next((name for name in usual if name in there), None)
    if wanted not in there:
        raise DataError(
            f"{columns.path}: no item column {wanted!r}. The file has: "
            f"{', '.join(there) or 'none'}. Name another one, or ~ to look for the usual names."
        )
    return wanted


def item_prices(columns: ItemColumns, name: str) -> NDArray[np.float64]:
    """Return the price of each item ``(N,)``, NaN where there is none.

    A ``float`` column is taken as it is, a ``token`` column is read as people write prices
    (`recbole_mm.data.prices.parse_price`). What is not above zero is no price.
    """
    cells = columns.column(name)
    if columns.types[name] == "float":
        prices = cells.to_numpy(np.float64)
        return np.where(prices > 0, prices, np.nan)
    return parse_prices(cells.fillna("").astype(str))[0]


def item_categories(columns: ItemColumns, name: str) -> NDArray[np.str_]:
    """Return the category of each item ``(N,)``, empty where there is none.

    Of several entries of a ``token_seq`` column the last counts: lists of categories go from the
    coarse to the fine.
    """
    cells = columns.column(name).fillna("").astype(str)
    if columns.types[name].endswith("seq"):
        parts = ([part for part in cell.split(columns.separator) if part] for cell in cells)
        return np.array([part[-1] if part else "" for part in parts], dtype=str)
    return np.array(cells.str.strip().tolist(), dtype=str)


def _categories(columns: ItemColumns, settings: PriceSettings) -> NDArray[np.str_] | None:
    """Return the items' categories, or None where they are not wanted or not there."""
    if settings.use_category is False:
        return None
    column = find_column(columns, settings.category_field, CATEGORY_COLUMNS)
    if settings.use_category is True and column is None:
        raise DataError(
            f"{columns.path}: use_category is true, but the .item file has none of the "
            f"columns {', '.join(CATEGORY_COLUMNS)}. Name yours with --category_field."
        )
    return None if column is None else item_categories(columns, column)


def _number(names: NDArray[np.str_], seen: NDArray[np.bool_]) -> tuple[Tensor, int]:
    """Give categories of training items numbers from 1, and all others the next number.

    Returns
    -------
    tuple
        Numbers ``(N,)``, 0 for the padding item; one more than the largest.
    """
    known = np.unique(names[seen & (names != "")])
    place = {name: number for number, name in enumerate(known.tolist(), start=1)}
    ids = [place.get(name, len(known) + 1) for name in names.tolist()]
    return torch.tensor([0, *ids[1:]]), len(known) + 2
