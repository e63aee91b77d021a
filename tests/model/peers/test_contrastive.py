"""UniSRec's pre-training tasks by hand and against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recbole_mm.model.peers.contrastive import ContrastiveUniSRec, drop_items, in_batch

Build = Callable[..., ContrastiveUniSRec]


def test_in_batch_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    keys = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    # Cosines: rows (1, .8, 0), (0, .6, 1), (.6, .96, .8); rows 0 and 2 have one target.
    target = torch.tensor([5, 9, 5])
    e = [math.exp(2 * one) for one in (1.0, 0.8, 0.0, 0.6, 1.0, 0.96, 0.8)]
    losses = [
        -math.log(e[0] / (e[0] + e[1])),
        -math.log(e[3] / (1.0 + e[3] + e[4])),
        -math.log(e[6] / (e[5] + e[6])),
    ]
    assert float(in_batch(query, keys, target, 0.5)) == pytest.approx(sum(losses) / 3, abs=1e-6)


def test_items_are_dropped_at_random_in_their_order() -> None:
    torch.manual_seed(0)
    lengths = torch.arange(4000) % 8 + 1
    item_seq = torch.arange(1, 9).repeat(4000, 1) * (torch.arange(8) < lengths.unsqueeze(1))
    kept, left = drop_items(item_seq, lengths, 0.2)
    assert bool((kept[:, 0] == 1).all())
    assert bool((left >= 1).all()) and bool((left <= lengths).all())
    for row, count in zip(kept.tolist(), left.tolist(), strict=True):
        assert row[count:] == [0] * (8 - count)
        assert row[:count] == sorted(set(row[:count])) and all(row[:count])
    # Of the items after the first a fifth is gone.
    share = 1 - float((left - 1).sum()) / float((lengths - 1).sum())
    assert share == pytest.approx(0.2, abs=0.01)
    same, all_left = drop_items(item_seq, lengths, 0.0)
    assert torch.equal(same, item_seq) and torch.equal(all_left, lengths)


def test_equal_to_numpy(build: Build, twin: Any, dataset: Any) -> None:
    model = build("pretrain", item_drop_ratio=0.0, sequence_weight=0.3).eval()
    rows, made = dataset.inter_feat, twin(model, dataset)
    items = made.adapted()
    h, target = made.sessions(items, rows), rows["item_id"].numpy()
    v = items[target] / np.linalg.norm(items[target], axis=1, keepdims=True)
    same = (target[:, None] == target[None, :]) & ~np.eye(len(target), dtype=bool)
    assert same.any()
    expected = []
    for keys in (v, h):
        logits = np.where(same, -np.inf, h @ keys.T / model.settings.temperature)
        expected.append(np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits)))
    first, second = model.calculate_loss(rows)
    assert first.item() == pytest.approx(expected[0], rel=1e-4)
    assert second.item() == pytest.approx(0.3 * expected[1], rel=1e-4)


def test_the_second_view_lacks_items(build: Build, dataset: Any) -> None:
    model = build("pretrain", item_drop_ratio=0.9, sequence_weight=1.0).eval()
    torch.manual_seed(1)
    whole = build("pretrain", item_drop_ratio=0.0, sequence_weight=1.0).eval()
    rows = dataset.inter_feat
    assert model.calculate_loss(rows)[0] == whole.calculate_loss(rows)[0]
    assert model.calculate_loss(rows)[1] > whole.calculate_loss(rows)[1] + 0.1
