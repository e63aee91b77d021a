"""Neighbours of new items and ranks among some items, by hand."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_mm.data.features import ItemFeatures
from recbole_mm.evaluation.new_items import (
    NEIGHBOURS,
    fill_unseen,
    filled_rows,
    means,
    nearest_known,
    ranks_among,
)

# Item 0 is padding; 1 to 3 are trained, 4 was never clicked, 5 to 7 are new.
CLICKS = np.array([0, 3, 1, 2, 0, 0, 0, 0])
TEXT = [[0, 0], [1, 0], [0, 1], [0, 0], [1, 0.1], [2, 0.2], [0, 0], [0, 0]]
IMAGE = [[0, 0], [1, 0], [0, 0], [0, 1], [1, 0], [0, 5], [0, 5], [0, 0]]


def features(text_of_trained: tuple[int, ...] = (1, 2)) -> ItemFeatures:
    """Return vectors: item 5 has both kinds, 6 an image alone, 7 none."""
    tables = {"image": torch.tensor(IMAGE).float(), "text": torch.tensor(TEXT).float()}
    masks = {name: table.abs().sum(dim=1) > 0 for name, table in tables.items()}
    masks["text"] = torch.zeros(8, dtype=torch.bool)
    masks["text"][[*text_of_trained, 4, 5]] = True
    return ItemFeatures(tables, masks, {})


def near(*items: int) -> list[int]:
    return [*items, *[0] * (NEIGHBOURS - len(items))]


def test_text_is_asked_first_and_images_for_the_rest():
    found = nearest_known(features(), CLICKS, 5)
    # 4 is the nearest of all and was never clicked.
    assert found.tolist() == [near(1, 2), near(3, 1), near()]
    assert nearest_known(features(), CLICKS, np.array([6])).tolist() == [near(3, 1)]
    # One neighbour by text is enough not to look at images.
    assert nearest_known(features((2,)), CLICKS, 5).tolist() == [near(2), near(3, 1), near()]
    # Where no trained item has a text, images are looked at.
    assert nearest_known(features(()), CLICKS, 5).tolist() == [near(3, 1), near(3, 1), near()]
    assert not nearest_known(features(), CLICKS, 5, "zero").any()
    assert not nearest_known(None, CLICKS, 5).any()


def test_the_mean_row_of_the_neighbours():
    table = torch.tensor([[9.0, 9], [2, 4], [4, 8], [6, 0]])
    partners = torch.tensor([[1, 3, 0], [2, 0, 0], [0, 0, 0]])
    expected = torch.tensor([[4.0, 2], [4, 8], [0, 0]])
    assert torch.equal(means(table, partners), expected)
    assert torch.equal(means(table[:, 0], partners), expected[:, 0])
    longer = filled_rows(torch.cat([table, torch.full((1, 2), 7.0)]), 4, partners)
    assert torch.equal(longer, torch.cat([table, expected, torch.full((1, 2), 7.0)]))


def test_only_tables_with_a_row_per_item_are_filled():
    model = torch.nn.ParameterDict({
        name: torch.nn.Parameter(torch.ones(shape))
        for name, shape in (("table", (4, 2)), ("mask", (5,)), ("six", (6, 2)), ("three", (3,)),
                            ("one", ()))
    })  # fmt: skip
    # torch keeps such a dictionary in an order of its own.
    names = [name for name in model if name in ("table", "mask")]
    assert fill_unseen(model, 4, np.array([3]), torch.tensor([[0, 0]])) == names
    assert model["table"].tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]]
    assert model["mask"].tolist() == [1, 1, 1, 0, 1]


class Part:
    """Five rows with the targets 1, 2, 3, 1, 4; their lengths say which are scored first."""

    item_num = 5
    inter_feat = Interaction(
        {
            "item_id": torch.tensor([1, 2, 3, 1, 4]),
            "item_id_list": torch.ones(5, 3, dtype=torch.long),
            "item_length": torch.tensor([1, 2, 1, 3, 2]),
        }
    )

    def __getitem__(self, rows):
        return self.inter_feat[rows]


class Loader:
    dataset = Part()
    config: ClassVar = {
        "device": "cpu", "history": "keep", "eval_batch_size": 2, "ITEM_ID_FIELD": "item_id",
        "ITEM_LIST_LENGTH_FIELD": "item_length", "LIST_SUFFIX": "_list",
    }  # fmt: skip

    def transform(self, part, rows):
        return rows


class Model(torch.nn.Module):
    device = torch.device("cpu")

    def full_sort_predict(self, interaction):
        assert not self.training
        return torch.tensor([[9.0, 1, 5, 3, 4]] * len(interaction)).flatten()


@pytest.mark.parametrize(
    # Among 1, 3 and 4 the order is 4, 3, 1; the row of target 2 is left out.
    ("held", "expected"), [([1, 3, 4], [3, 2, 3, 1]), ([2], [1]), ([1, 2], [2, 1, 2])]
)  # fmt: skip
def test_ranks_among_some_items(held, expected):
    mask = np.zeros(5, dtype=bool)
    mask[held] = True
    assert ranks_among(Model().train(), Loader(), mask).tolist() == expected
