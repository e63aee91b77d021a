"""Shared losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_mm.model import losses

SCORES = torch.tensor([[0.0, 2.0, 0.0, 0.0]])


def test_softmax_ce_by_hand():
    loss = losses.softmax_ce(SCORES[:, 1:].repeat(2, 1), torch.tensor([0, 2]))
    assert loss.tolist() == pytest.approx([0.239545, 2.239545], abs=1e-6)


def test_the_padding_column_must_be_masked():
    masked, target = SCORES.clone(), torch.tensor([1])
    masked[:, 0] = -math.inf
    assert losses.softmax_ce(masked, target).item() == pytest.approx(0.239545, abs=1e-6)
    assert losses.softmax_ce(SCORES, target).item() == pytest.approx(0.340753, abs=1e-6)


def test_own_items_are_no_classes_but_the_target_is():
    scores = torch.arange(10.0).view(2, 5).requires_grad_()
    item_seq, target = torch.tensor([[1, 3, 0], [2, 4, 2]]), torch.tensor([2, 4])
    struck = losses.without_own_items(scores, item_seq, target)
    inf = -math.inf
    expected = torch.tensor([[inf, inf, 2.0, inf, 4.0], [5.0, 6.0, inf, 8.0, 9.0]])
    assert torch.equal(struck, expected)
    loss = losses.softmax_ce(struck[:, 1:], target - 1)
    expected_loss = torch.tensor([math.log(1 + math.exp(2)), _log_sum(6, 8, 9) - 9])
    torch.testing.assert_close(loss, expected_loss)
    loss.sum().backward()
    assert bool(scores.grad.isfinite().all()) and float(scores.grad[0, 3]) == 0.0


def _log_sum(*values):
    return math.log(sum(math.exp(value) for value in values))
