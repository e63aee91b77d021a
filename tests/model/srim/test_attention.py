"""Direct attention against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_mm.model.layers import masked_mean
from recbole_mm.model.srim.attention import DirectAttention, LastPosition, MeanOfPositions

PAIR = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
BOTH = torch.ones(1, 2, dtype=torch.bool)


def attention(weight: torch.Tensor, n_heads: int = 1) -> DirectAttention:
    module = DirectAttention(2, n_heads, "direct", bias=False)
    with torch.no_grad():
        module.maps["query"].weight.copy_(weight.T)
    return module


def test_direct_attention_by_hand():
    module = attention(math.sqrt(2) * torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]))
    result = module(PAIR, PAIR, BOTH)
    expected = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(masked_mean(result, BOTH), torch.tensor([[0.375, 0.625]]))
    torch.testing.assert_close(masked_mean(PAIR, BOTH), torch.tensor([[0.5, 0.5]]))


def test_attention_passes_over_padding():
    module = attention(math.sqrt(2) * torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]))
    padded = torch.cat([PAIR, torch.full((1, 1, 2), 9.0)], dim=1)
    mask = torch.tensor([[True, True, False]])
    expected = torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    torch.testing.assert_close(module(padded[:, :2], padded, mask), expected)
    torch.testing.assert_close(
        masked_mean(module(padded, padded, mask), mask), torch.tensor([[0.375, 0.625]])
    )


def test_lin_attention_by_hand():
    module = DirectAttention(2, 1, "lin")
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
    module = DirectAttention(4, 2, form)
    items = torch.randn(3, 1, 4)
    torch.testing.assert_close(module(items, items, torch.ones(3, 1, dtype=torch.bool)), items)


def test_full_attention_maps_key_and_value_too():
    module = DirectAttention(2, 1, "full", bias=False)
    with torch.no_grad():
        for name, factor in (("query", 0.0), ("key", 1.0), ("value", 3.0)):
            module.maps[name].weight.copy_(factor * torch.eye(2))
    expected = torch.full((1, 2, 2), 1.5)
    torch.testing.assert_close(module(PAIR, PAIR, BOTH), expected)


def test_attention_drops_weights_in_training_only():
    module = DirectAttention(4, 2, "lin", dropout=0.5)
    items, mask = torch.randn(2, 6, 4), torch.ones(2, 6, dtype=torch.bool)
    assert not torch.equal(module(items, items, mask), module(items, items, mask))
    module.eval()
    assert torch.equal(module(items, items, mask), module(items, items, mask))


def test_session_vectors_by_hand():
    module = attention(math.sqrt(2) * torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]))
    padded = torch.cat([PAIR, torch.full((1, 1, 2), 9.0)], dim=1)
    lengths, half = torch.tensor([2]), torch.tensor([[0.5, 0.5]])
    for encoder, after in (
        (MeanOfPositions(module), [0.375, 0.625]),
        (MeanOfPositions(None), [0.5, 0.5]),
        (LastPosition(module, residual=False), [0.5, 0.5]),
        (LastPosition(module, residual=True), [0.5, 1.5]),
        (LastPosition(None, residual=True), [0.0, 1.0]),
    ):
        session = encoder(padded, lengths)
        torch.testing.assert_close(session.before, half)
        torch.testing.assert_close(session.after, torch.tensor([after]))


def test_before_training_older_items_weigh_less():
    """A logit falls by 0.3 with each position from the end, before anything is learned."""
    module = DirectAttention(2, 1, "direct", bias=False, n_positions=3)
    with torch.no_grad():
        module.maps["query"].weight.zero_()
    items = torch.eye(3, 2)[None].clone()
    weights = torch.tensor([math.exp(-0.6), math.exp(-0.3), 1.0])
    expected = weights / weights.sum() @ items[0]
    found = module(items[:, :1], items, torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(found[0, 0], expected)
