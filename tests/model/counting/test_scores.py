"""z-scores, own items last, NDCG from ranks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_mm.evaluation.ranking import gains, target_ranks
from recbole_mm.model.counting.scores import ndcg, own_items_last, z_scores


def test_z_scores_leave_padding_out():
    scores = torch.tensor([[9.0, 1, 2, 3], [-5, 4, 4, 4]])
    root = math.sqrt(2 / 3)
    expected = [[0, -1 / root, 0, 1 / root], [0, 0, 0, 0]]
    np.testing.assert_allclose(z_scores(scores), expected, atol=1e-6)


def test_a_row_that_is_constant_up_to_rounding_gives_zeros():
    row = torch.full((1, 1001), 0.1) * torch.rand(1, 1).expand(1, 1001)
    assert not bool(z_scores(row).any())


def test_own_items_last():
    scores = torch.tensor([[0.0, 5, 1, 3, -2], [0, 1, 2, 3, 4]])
    found = own_items_last(scores, torch.tensor([[1, 3, 0], [2, 2, 0]]))
    assert found[0, 1:].argsort(descending=True).tolist() == [1, 3, 0, 2]
    assert found[1, 1:].argsort(descending=True).tolist() == [3, 2, 0, 1]


@pytest.mark.parametrize("n_values", [3, 1000])
def test_ndcg_is_that_of_evaluation(n_values):
    random = torch.Generator().manual_seed(2)
    scores = torch.randint(n_values, (50, 61), generator=random).float()
    scores[:, 0] = -torch.inf
    target = torch.randint(1, 61, (50,), generator=random)
    ranks, _ = target_ranks(scores, target)
    np.testing.assert_allclose(ndcg(scores, target), gains(ranks, "ndcg", 20))
