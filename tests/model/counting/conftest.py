"""Five sessions of six items, with texts, as the counting models read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_mm import registry
from recbole_mm.data.card import DatasetCard
from recbole_mm.data.item_columns import ItemColumns

# Item 5 is in no session.
LISTS = [[1, 2, 3], [1, 3], [2, 1, 2], [4, 2, 1], [3, 4]]
N_ITEMS = 6
TITLES = ["red lamp", "red lamp shade", "blue lamp", "blue chair", "red chair"]


def make_rows(*histories: Sequence[int], target: Sequence[int] = (), width: int = 6) -> Interaction:
    """One row per history."""
    item_seq = torch.zeros(len(histories), width, dtype=torch.long)
    for row, items in zip(item_seq, histories, strict=True):
        row[: len(items)] = torch.tensor(items)
    goal = torch.tensor(list(target) or [1] * len(histories))
    return Interaction(
        {
            "session_id": torch.arange(1, len(histories) + 1),
            "item_id_list": item_seq,
            "item_length": torch.tensor([len(items) for items in histories]),
            "item_id": goal,
        }
    )


@pytest.fixture
def rows() -> Callable[..., Interaction]:
    return make_rows


@pytest.fixture
def make(make_dataset, settings, tmp_path) -> Callable[..., Any]:
    """Build a model on some sessions, with or without titles of the items."""

    def build(
        name: str,
        lists: Sequence[Sequence[int]] = LISTS,
        n_items: int = N_ITEMS,
        titles: Sequence[str] = TITLES,
        features: dict[str, torch.Tensor] | None = None,
        **changes: Any,
    ) -> Any:
        dataset = make_dataset(lists, n_items, features=features)
        path = tmp_path / "Tiny.item"
        lines = [f"{item}\t{title}" for item, title in enumerate(titles, start=1)]
        path.write_text("\n".join(["item_id:token\ttitle:token_seq", *lines]) + "\n", "utf-8")
        if not titles:
            path.unlink()
        dataset.item_columns = ItemColumns(path, "item_id", [str(i) for i in range(n_items)])
        dataset.card = DatasetCard("Tiny")
        return registry.resolve(name).load()(settings(name, **changes), dataset)

    return build


@pytest.fixture
def loader() -> Callable[..., Any]:
    """Return what stands for a loader of validation rows."""

    def make_loader(interaction: Interaction) -> Any:
        return SimpleNamespace(dataset=interaction)

    return make_loader
