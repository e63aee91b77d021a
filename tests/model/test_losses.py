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
