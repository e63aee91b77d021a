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


def test_position_weights_count_from_both_ends():
    """Session of three: ages 2, 1, 0 and places 0, 1, 2; slope -0.5 before training."""
    weights = layers.PositionWeights(4, slope=-0.5)
    mask = torch.tensor([[True, True, True, False], [True, False, False, False]])
    torch.testing.assert_close(weights(mask)[0, :3], torch.tensor([-1.0, -0.5, 0.0]))
    with torch.no_grad():
        weights.place.copy_(torch.tensor([3.0, 5.0, 7.0, 9.0]))
    torch.testing.assert_close(weights(mask)[0, :3], torch.tensor([2.0, 4.5, 7.0]))
    torch.testing.assert_close(weights(mask)[1, :1], torch.tensor([3.0]))


def test_residual_map_starts_as_nothing():
    change, vectors = layers.ResidualMap(2), torch.tensor([[1.0, 2.0]])
    assert torch.equal(change(vectors), vectors)
    with torch.no_grad():
        change.change.weight.copy_(torch.tensor([[0.0, 1.0], [3.0, 0.0]]))
        change.change.bias.copy_(torch.tensor([1.0, 10.0]))
    torch.testing.assert_close(change(vectors), torch.tensor([[4.0, 15.0]]))


def test_cosine_scores_by_hand():
    """cos((3, 4), (1, 0)) = 0.6, over a temperature of 0.1; a zero vector scores 0."""
    match = layers.make_match("cosine", 0.1)
    query = match.query(torch.tensor([[3.0, 4.0]]))
    items = match.items(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, -5.0]]))
    torch.testing.assert_close(query @ items.T, torch.tensor([[0.0, 6.0, -8.0]]))
    assert match.log_scale.requires_grad
    dot = layers.make_match("dot", 0.1)
    assert torch.equal(dot.query(query), query) and torch.equal(dot.items(items), items)
