"""Prices and categories of the items, from the columns of the ``.item`` file.

Cells are found by item token and given in the order of the internal ids, so that neither the order
of the file nor items that never occur in a session matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_mm.data.atomic import header, read_atomic
from recbole_mm.data.prices import parse_prices
from recbole_mm.errors import DataError

PRICE_COLUMNS = ("price",)
CATEGORY_COLUMNS = ("category", "categories")


def find_column(dataset: Any, wanted: str | None, usual: Iterable[str]) -> str | None:
    """Return the column ``wanted``, or the first usual one that the ``.item`` file has, or None.

    Raises
    ------
    DataError
        If a column is asked for by name and is not there.
    """
    path = _item_file(dataset)
    columns = header(path) if path is not None else {}
    if wanted is None:
        return next((name for name in usual if name in columns), None)
    if wanted not in columns:
        raise DataError(
            f"{path or 'the data set'}: no item column {wanted!r}. The file has: "
            f"{', '.join(columns) or 'none'}. Name another one, or ~ to look for the usual names."
        )
    return wanted


def item_prices(dataset: Any, name: str) -> NDArray[np.float64]:
    """Return the price of each item ``(n_items,)``, NaN where there is none.

    A ``float`` column is taken as it is, a ``token`` column is read as people write prices
    (`recbole_mm.data.prices.parse_price`). What is not above zero is no price.
    """
    cells = _cells(dataset, name)
    if cells.dtype.kind == "f":
        prices = cells.to_numpy(np.float64)
        return np.where(prices > 0, prices, np.nan)
    return parse_prices(cells.fillna("").astype(str))[0]


def item_categories(dataset: Any, name: str) -> NDArray[np.str_]:
    """Return the category of each item ``(n_items,)``, empty where there is none.

    Of several entries of a ``token_seq`` column the last counts: lists of categories go from the
    coarse to the fine.
    """
    cells = _cells(dataset, name).fillna("").astype(str)
    path = _item_file(dataset)
    if path is not None and header(path)[name].endswith("seq"):
        separator = dataset.config["seq_separator"]
        parts = ([part for part in cell.split(separator) if part] for cell in cells)
        return np.array([part[-1] if part else "" for part in parts], dtype=str)
    return np.array(cells.str.strip().tolist(), dtype=str)


def _item_file(dataset: Any) -> Path | None:
    """Return the ``.item`` file, or None where the data set has none."""
    folder = getattr(dataset, "dataset_path", None)
    path = Path(folder, f"{dataset.dataset_name}.item") if folder else None
    return path if path is not None and path.is_file() else None


def _cells(dataset: Any, name: str) -> pd.Series:
    """Return a column by internal item id; of two rows of one item the first counts."""
    path = _item_file(dataset)
    if path is None:
        raise DataError(f"{dataset.dataset_name}: there is no .item file to read {name!r} from.")
    key = dataset.iid_field
    column = read_atomic(path, [key, name]).drop_duplicates(key).set_index(key)[name]
    tokens = [str(token) for token in dataset.field2id_token[key]]
    # The padding item has no row of its own, even if an item should carry its name.
    return column.reindex(["\0", *tokens[1:]])
