"""Five sessions of six items, with texts, and a network whose scores the test gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_mm.data.card import DatasetCard
from recbole_mm.data.item_columns import ItemColumns
from recbole_mm.model.parts.late_model import with_late_parts

LISTS = [[1, 2, 3], [1, 3], [2, 1, 2], [4, 2, 1], [3, 4]]
N_ITEMS = 6
TITLES = ["red lamp", "red lamp shade", "blue lamp", "blue chair", "red chair"]


class Given(SequentialRecommender):
    """Scores every session by the table ``given``, one row per last item ``(N, N)``."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.given = nn.Parameter(torch.zeros(self.n_items, self.n_items))

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        return self.full_sort_predict(interaction).square().sum()

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        last = interaction[self.ITEM_SEQ].gather(1, interaction[self.ITEM_SEQ_LEN][:, None] - 1)
        return self.given[last.squeeze(1)].clone()


def make_rows(*histories: Sequence[int], target: Sequence[int] = (), width: int = 6) -> Interaction:
    """One row per history."""
    item_seq = torch.zeros(len(histories), width, dtype=torch.long)
    for row, items in zip(item_seq, histories, strict=True):
        row[: len(items)] = torch.tensor(items)
    goal = torch.tensor(list(target) or [1] * len(histories))
    lengths = torch.tensor([len(items) for items in histories])
    sessions = torch.arange(1, len(histories) + 1)
    columns = {"session_id": sessions, "item_id_list": item_seq, "item_length": lengths}
    return Interaction({**columns, "item_id": goal})


@pytest.fixture
def rows() -> Callable[..., Interaction]:
    return make_rows


@pytest.fixture
def data(make_dataset, tmp_path) -> Any:
    dataset = make_dataset(LISTS, N_ITEMS)
    path = tmp_path / "Tiny.item"
    lines = [f"{item}\t{title}" for item, title in enumerate(TITLES, start=1)]
    path.write_text("\n".join(["item_id:token\ttitle:token_seq", *lines]) + "\n", "utf-8")
    dataset.item_columns = ItemColumns(path, "item_id", [str(i) for i in range(N_ITEMS)])
    dataset.card = DatasetCard("Tiny")
    return dataset


@pytest.fixture
def make(data, settings) -> Callable[..., Any]:
    """Return a maker of the network with parts."""

    def build(*names: str, given: Tensor | None = None, **changes: Any) -> Any:
        config = {**settings("SRIM", **changes), "score_parts": list(names)}
        model = with_late_parts(Given, names)(config, data)
        if given is not None:
            model.given.data = given
        return model.eval()

    return build


@pytest.fixture
def loader() -> Callable[..., Any]:
    """Return what stands for a loader of validation rows."""
    return lambda interaction: SimpleNamespace(dataset=interaction)
