"""Histories as the counting models read them."""

from __future__ import annotations

import numpy as np
import torch

from recbole_mm.model.counting.history import History


def test_ids_behind_the_end_are_not_inside():
    rows = torch.tensor([[3, 4, 9, 9], [5, 6, 7, 9], [2, 9, 9, 9]])
    found = History.of(rows, torch.tensor([2, 3, 1]), 10)
    np.testing.assert_array_equal(found.inside, [[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(found.age, [[1, 0, -1], [2, 1, 0], [0, -1, -2]])


def test_padding_within_a_history_counts_nothing():
    """As an item that training does not know stands there."""
    found = History.of(torch.tensor([[3, 0, 4]]), torch.tensor([3]), 5)
    np.testing.assert_array_equal(found.inside, [[1, 0, 1]])
    assert found.matrix(found.decayed(1e9)).toarray().round(6).tolist() == [[0, 0, 0, 1, 1]]
