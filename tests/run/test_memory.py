"""The estimate of a run that ran out of memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from recbole_mm.errors import ConfigError
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.run.memory import memory_explained, training_scores, weight_bytes


class Ours(MMSequentialRecommender):
    def __init__(self) -> None:
        nn.Module.__init__(self)

    def item_tables(self) -> dict[str, torch.Tensor]:
        return {}

    def encode(self, *args: Any) -> torch.Tensor:
        return torch.empty(0)


def prepared(model: nn.Module) -> Any:
    config = {
        "model": "Some", "train_batch_size": 2048, "eval_batch_size": 1024,
        "MAX_ITEM_LIST_LENGTH": 20, "device": torch.device("cpu"), "sampled_softmax": 0,
    }  # fmt: skip
    return SimpleNamespace(model=model, config=config, dataset=SimpleNamespace(item_num=10**6 + 1))


def test_what_is_held_by_hand() -> None:
    assert training_scores(nn.Linear(1, 1), 2048, 10**6) == 3 * 2048 * 10**6 * 4
    # Ours hold 64 rows of a million scores, and never more rows than there are.
    assert training_scores(Ours(), 2048, 10**6) == 3 * 64 * 10**6 * 4
    assert training_scores(Ours(), 8, 10**6) == 3 * 8 * 10**6 * 4
    # SASRec goes by chunks above 67 million scores.
    reached = type("SASRec", (nn.Linear,), {})(1, 1)
    assert training_scores(reached, 2048, 10**6) == 3 * 64 * 10**6 * 4
    assert training_scores(reached, 2048, 10**4) == 3 * 2048 * 10**4 * 4
    layer = nn.Linear(10, 5)
    layer.bias.requires_grad_(False)
    assert weight_bytes(layer) == 10 * 5 * 4 * 4


def test_an_allocation_that_fails_is_told_with_keys_and_sizes() -> None:
    with pytest.raises(ConfigError) as caught, memory_explained(prepared(nn.Linear(2**20, 16))):
        torch.empty(2**50)
    text = str(caught.value)
    assert text.startswith(
        "out of memory. Estimate for Some and 1,000,000 items: weights with gradients and Adam's "
        "state 0.25 GiB; scores of a training step 22.89 GiB (train_batch_size = 2048); scores of "
        "an evaluation chunk 0.12 GiB (eval_batch_size = 1024 at most);"
    )
    assert "can't allocate memory" in text and "\n" not in text


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_explained(prepared(nn.Linear(1, 1))):
        raise RuntimeError("shapes do not fit")
