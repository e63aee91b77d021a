"""Shared layers against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_mm.errors import ConfigError
from recbole_mm.model import layers

PAIR = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
BOTH = torch.ones(1, 2, dtype=torch.bool)


def attention(weight: torch.Tensor, n_heads: int = 1) -> layers.DirectAttention:
    module = layers.DirectAttention(2, n_heads, "direct", bias=False)
    with torch.no_grad():
        module.maps["query"].weight.copy_(weight.T)
    return module


def test_direct_attention_by_hand():
    module = attention(math.sqrt(2) * torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]))
    result = module(PAIR, PAIR, BOTH)
    expected = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(layers.masked_mean(result, BOTH), torch.tensor([[0.375, 0.625]]))
    torch.testing.assert_close(layers.masked_mean(PAIR, BOTH), torch.tensor([[0.5, 0.5]]))


def test_attention_passes_over_padding():
    module = attention(math.sqrt(2) * torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]))
    padded = torch.cat([PAIR, torch.full((1, 1, 2), 9.0)], dim=1)
    mask = torch.tensor([[True, True, False]])
    expected = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    torch.testing.assert_close(module(padded[:, :2], padded, mask), expected)
    torch.testing.assert_close(
        layers.masked_mean(module(padded, padded, mask), mask), torch.tensor([[0.375, 0.625]])
    )


def test_lin_attention_by_hand():
    module = layers.DirectAttention(2, 1, "lin")
    assert list(module.parameters()) == []
    result = module(PAIR, PAIR, BOTH)
    expected = torch.tensor([[[0.669762, 0.330238], [0.330238, 0.669762]]])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


def test_two_heads_by_hand():
    items = torch.tensor([[[1.0, 2.0], [3.0, 1.0]]])
    result = attention(torch.eye(2), n_heads=2)(items, items, BOTH)
    expected = torch.tensor([[[2.761594, 1.880797], [2.995055, 1.731059]]])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["direct", "lin"])
def test_a_session_of_one_item_is_left_as_it_is(form):
    module = layers.DirectAttention(4, 2, form)
    items = torch.randn(3, 1, 4)
    torch.testing.assert_close(module(items, items, torch.ones(3, 1, dtype=torch.bool)), items)


def test_full_attention_maps_key_and_value_too():
    module = layers.DirectAttention(2, 1, "full", bias=False)
    with torch.no_grad():
        for name, factor in (("query", 0.0), ("key", 1.0), ("value", 3.0)):
            module.maps[name].weight.copy_(factor * torch.eye(2))
    expected = torch.full((1, 2, 2), 1.5)
    torch.testing.assert_close(module(PAIR, PAIR, BOTH), expected)


def test_attention_drops_weights_in_training_only():
    module = layers.DirectAttention(4, 2, "lin", dropout=0.5)
    items, mask = torch.randn(2, 6, 4), torch.ones(2, 6, dtype=torch.bool)
    assert not torch.equal(module(items, items, mask), module(items, items, mask))
    module.eval()
    assert torch.equal(module(items, items, mask), module(items, items, mask))


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="n_heads=3 does not divide embedding_size=100"):
        layers.DirectAttention(100, 3)


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


def test_feature_table_by_hand():
    features = torch.tensor([[0.0, 0], [1, 2], [0, 0]])
    absent = torch.tensor([[0.0], [0], [1]])
    table = layers.FeatureTable(features, absent, size=2)
    with torch.no_grad():
        table.project.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, -1.0]]))
        table.missing.copy_(torch.tensor([[5.0, 6.0]]))
    assert table().tolist() == [[0, 0], [3, -2], [5, 6]]
    assert set(table.state_dict()) == {"project.weight", "missing"}


def test_tuned_features_are_parameters_that_start_as_given():
    features = torch.randn(4, 3)
    table = layers.FeatureTable(features, torch.zeros(4, 1), size=2, tuned=True)
    assert torch.equal(table.features, features) and "features" in table.state_dict()
    table().sum().backward()
    assert table.features.grad is not None


PRESENT = torch.tensor([False, True, True, True, False])
SEEN = torch.tensor([False, True, True, False, True])
RAW = torch.tensor([[0.0, 0], [2, 0], [4, 0], [3, 4], [0, 0]])


def test_centring_uses_training_items_only():
    result = layers.prepare_features(RAW, PRESENT, SEEN, "center")
    assert result.tolist() == [[0, 0], [-1, 0], [1, 0], [0, 1], [0, 0]]
    changed = RAW.clone()
    changed[3] = torch.tensor([-50.0, 70.0])
    assert torch.equal(layers.prepare_features(changed, PRESENT, SEEN, "center")[:3], result[:3])


def test_unit_and_no_scaling():
    unit = layers.prepare_features(RAW, PRESENT, SEEN, "unit")
    torch.testing.assert_close(unit[3], torch.tensor([0.6, 0.8]))
    assert torch.equal(layers.prepare_features(RAW, PRESENT, SEEN), RAW)


def test_a_vector_stood_in_for_a_missing_one_is_kept_unless_centred():
    filled = RAW.clone()
    filled[4] = torch.tensor([3.0, 4.0])
    unit = layers.prepare_features(filled, PRESENT, SEEN, "unit")
    torch.testing.assert_close(unit[4], torch.tensor([0.6, 0.8]))
    assert layers.prepare_features(filled, PRESENT, SEEN, "center")[4].tolist() == [0, 0]


def test_principal_components_keep_distances_of_training_items():
    torch.manual_seed(3)
    flat = torch.randn(40, 2) @ torch.randn(2, 6)
    flat[0] = flat[7] = 0.0
    present = torch.ones(40, dtype=torch.bool)
    present[[0, 7]] = False
    seen = torch.arange(40) < 30
    result = layers.prepare_features(flat, present, seen, n_components=2)
    assert result.shape == (40, 2) and result.dtype == torch.float32
    assert not result[[0, 7]].any()
    torch.testing.assert_close(torch.pdist(result[8:]), torch.pdist(flat[8:]), rtol=1e-3, atol=1e-3)
    changed = flat.clone()
    changed[35] = 100.0
    again = layers.prepare_features(changed, present, seen, n_components=2)
    torch.testing.assert_close(again[:30], result[:30])


def test_too_many_components_are_refused():
    with pytest.raises(ConfigError, match="at most 2 components"):
        layers.prepare_features(RAW, PRESENT, SEEN, n_components=3)
