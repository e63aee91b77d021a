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
