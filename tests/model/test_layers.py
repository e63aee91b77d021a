"""Shared layers against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_mm.model import layers


def test_last_position_and_mean():
    vectors = torch.arange(12.0).view(2, 3, 2)
    lengths = torch.tensor([1, 3])
    mask = torch.tensor([[True, False, False], [True, True, True]])
    assert layers.last_position(vectors, lengths).tolist() == [[0, 1], [10, 11]]
    assert layers.masked_mean(vectors, mask).tolist() == [[0, 1], [8, 9]]


def test_the_padding_row_gets_no_gradient():
    table = torch.ones(3, 2, requires_grad=True)
    layers.gather_rows(table, torch.tensor([[0, 1], [1, 0]])).sum().backward()
    assert table.grad.tolist() == [[0, 0], [2, 2], [0, 0]]


def test_item_table_has_a_zero_row_and_the_stated_range():
    torch.manual_seed(0)
    weight = layers.ItemTable(500, 25)()
    assert not weight[0].any() and float(weight.detach().abs().max()) <= 0.2
    assert float(weight[1:].detach().std()) == pytest.approx(0.2 / math.sqrt(3), rel=0.02)


def test_cosine_by_hand():
    left = torch.tensor([[3.0, 4.0], [1.0, 0.0], [-2.0, 0.0]])
    right = torch.tensor([[4.0, 3.0], [0.0, 5.0], [7.0, 0.0]])
    torch.testing.assert_close(layers.cosine(left, right), torch.tensor([0.96, 0.0, -1.0]))


def test_cosine_of_a_zero_vector_is_zero_with_a_small_gradient():
    zero = torch.zeros(1, 3, requires_grad=True)
    like = layers.cosine(zero, torch.tensor([[1.0, 2.0, 2.0]]))
    like.sum().backward()
    assert like.tolist() == [0.0]
    assert bool(zero.grad.isfinite().all()) and float(zero.grad.abs().max()) <= 1.0
