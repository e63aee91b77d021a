"""What is known of the items besides the model: ids, titles, clicks, columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_mm.data.item_columns import USUAL_FIELDS, ItemColumns

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset

_TITLE = 200


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items by internal id; 0 is padding.

    Attributes
    ----------
    tokens
        Item ids ``(N,)`` as the data name them.
    titles
        What to show ``(N,)``; empty where nothing is known.
    clicks
        int64 ``(N,)``: how often an item occurs in training.
    """

    tokens: list[str]
    titles: list[str]
    clicks: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def index(self) -> dict[str, int]:
        """Internal id by item id."""
        return {token: number for number, token in enumerate(self.tokens) if number}

    @cached_property
    def popular(self) -> NDArray[np.int64]:
        """Internal ids without padding, the most clicked first, of equal ones the lower id."""
        return np.argsort(-self.clicks[1:], kind="stable") + 1

    def ids(self, tokens: Iterable[object]) -> list[int]:
        """Return the internal ids of the item ids that are known."""
        return [self.index[str(token)] for token in tokens if str(token) in self.index]

    @classmethod
    def of(cls, dataset: SessionDataset) -> Catalogue:
        """Return the items of a data set that was built."""
        tokens = dataset.tokens(np.arange(dataset.item_num))
        return cls(tokens, _titles(dataset), np.asarray(dataset.train_counts, dtype=np.int64))


def _titles(dataset: SessionDataset) -> list[str]:
    """Return the column ``title``, or else the first text column, cut to 200 characters."""
    columns = dataset.item_columns
    names = [*dataset.card.text_fields, *USUAL_FIELDS]
    there = [name for name in ("title", *names) if name in columns.types]
    if not there:
        return [""] * dataset.item_num
    cells = columns.column(there[0]).fillna("").astype(str)
    return [cell[:_TITLE] for cell in cells]


@dataclass
class PackedColumns(ItemColumns):
    """Columns of the ``.item`` file as a pack holds them, by internal id.

    Attributes
    ----------
    place
        The pack, for messages.
    kinds
        ``{column: type}``.
    cells
        ``{column: (N,) cells}``, None where there is no value.
    """

    place: Path
    kinds: dict[str, str]
    cells: dict[str, list[Any]]
    separator: str = " "
    path: Path = field(init=False)

    def __post_init__(self) -> None:
        self.path = self.place

    @property
    def types(self) -> dict[str, str]:
        """``{column: type}`` of the columns that the model reads."""
        return self.kinds

    def column(self, name: str) -> pd.Series:
        """Return a column by internal item id, as `ItemColumns.column` does."""
        number = self.kinds[name] == "float"
        return pd.Series(self.cells[name], dtype="float64" if number else "object", name=name)


def packed_cells(columns: ItemColumns, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return columns as plain lists, None where there is no value."""
    found = {}
    for name in names:
        column = columns.column(name)
        found[name] = [None if pd.isna(cell) else cell for cell in column.tolist()]
    return found
