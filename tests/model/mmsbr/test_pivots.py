"""Fusion of MMSBR by hand: recursion of the pivots, axis of the softmax, missing modalities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from recbole_mm.model.mmsbr.pivots import (
    ConcatFusion,
    FeatureTokens,
    ItemHead,
    ItemPivots,
    OffsetPivots,
    PivotFusion,
    SharedPivots,
    TokenLayer,
    first_pivots,
    merge,
)
from recbole_mm.model.mmsbr.settings import MMSBRSettings

SIZE = 4
SETTINGS = MMSBRSettings(
    embedding_size=SIZE, n_heads=2, inner_size=8, dropout_encoder=0.0, n_pivots=2, n_tokens=3,
    n_rounds=3,
)  # fmt: skip
HERE = {"text": torch.ones(1, dtype=torch.bool), "image": torch.ones(1, dtype=torch.bool)}


class Stub(nn.Module):
    """Returns a constant, or what it was given; notes its input."""

    def __init__(self, value=None):
        super().__init__()
        self.value, self.seen = value, []

    def forward(self, tokens, n_out):
        self.seen.append(tokens)
        out = tokens[:, :n_out]
        return out if self.value is None else torch.full_like(out, self.value)


def fusion(kind=PivotFusion, stub=None, modalities=("text", "image")):
    torch.manual_seed(0)
    model = kind(SETTINGS, modalities)
    if stub is not None:
        for layers in model.rounds:
            for name in modalities:
                layers[name] = stub
    return model.eval()


def tokens(value=1.0, items=1):
    return {name: torch.full((items, 3, SIZE), value) for name in ("text", "image")}


def test_identity_layers_keep_pivots_and_double_tokens():
    stub, pivots = Stub(), torch.randn(1, 2, SIZE)
    torch.testing.assert_close(fusion(stub=stub).passed(pivots, tokens(), HERE), pivots)
    # One input per round and modality; what the last layers make of the tokens is not computed.
    assert [seen[0, -1, 0].item() for seen in stub.seen] == [1, 1, 2, 2, 4, 4]


def test_the_layers_of_a_round_see_the_same_pivots():
    pivots, stub = torch.zeros(1, 2, SIZE), Stub(1.0)
    out = fusion(stub=stub).passed(pivots, tokens(), HERE)
    torch.testing.assert_close(out, torch.full((1, 2, SIZE), 0.875))
    assert torch.equal(stub.seen[0][:, :2], stub.seen[1][:, :2])


def test_merge_by_hand():
    pivots = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1)
    out, other = torch.full((4, 1, 1), 5.0), torch.full((4, 1, 1), 9.0)
    have = torch.tensor([True, True, False, False])
    also = torch.tensor([True, False, True, False])
    merged = merge(pivots, [(out, have), (other, also)]).flatten()
    assert merged.tolist() == [4.0, 3.5, 6.0, 4.0]


@pytest.mark.parametrize("kind", [PivotFusion, ConcatFusion])
def test_a_missing_modality_is_not_there(kind):
    """What stands in the image tokens of an item without image makes no difference."""
    model = fusion(kind)
    pivots, given = torch.randn(2, 2, SIZE), tokens(items=2)
    present = {"text": torch.tensor([True, True]), "image": torch.tensor([True, False])}
    first = model(pivots, given, present)
    second = model(pivots, given | {"image": torch.randn(2, 3, SIZE)}, present)
    torch.testing.assert_close(first[1], second[1])
    assert not torch.allclose(first[0], second[0])


def test_without_an_image_only_the_text_layers_count():
    model, alone = fusion(), fusion(modalities=("text",))
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if "image" not in k})
    pivots, given = torch.randn(1, 2, SIZE), {"text": torch.randn(1, 3, SIZE)}
    expected = alone.passed(pivots, given, HERE)
    given["image"] = torch.randn(1, 3, SIZE)
    gone = HERE | {"image": torch.tensor([False])}
    torch.testing.assert_close(model.passed(pivots, given, gone), expected)


def test_weights_of_a_query_sum_to_one():
    """Logits [[0, ln 3], [0, 0]]: the values are unit vectors, so the output is the weights."""
    layer = TokenLayer(MMSBRSettings(embedding_size=2, n_heads=1))
    logits = math.sqrt(2) * torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    expected = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    with torch.no_grad():
        layer.query.weight.copy_(logits.T)
        layer.key_value.weight.copy_(torch.cat([torch.eye(2), torch.eye(2)]))
        layer.query.bias.zero_(), layer.key_value.bias.zero_()
        found = layer.attend(torch.eye(2).unsqueeze(0), 2)[0]
        first = layer.attend(torch.eye(2).unsqueeze(0), 1)[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(first, expected[:1])


def test_wanted_tokens_are_what_the_whole_layer_gives():
    torch.manual_seed(1)
    layer, whole = TokenLayer(SETTINGS), torch.randn(5, 6, SIZE)
    torch.testing.assert_close(layer(whole, 6)[:, :2], layer(whole, 2))
    assert layer.norm_attention is not layer.norm_out


def test_tokens_equal_maps_one_by_one():
    torch.manual_seed(2)
    model, vectors = FeatureTokens(5, SIZE, 3, 0.0), torch.randn(6, 5)
    with torch.no_grad():
        model.first_bias.normal_(), model.second_bias.normal_()
    for token in range(3):
        hidden = torch.tanh(vectors @ model.first[token] + model.first_bias[token])
        expected = torch.tanh(hidden @ model.second[token] + model.second_bias[token])
        torch.testing.assert_close(model(vectors)[:, token], expected)


@pytest.mark.parametrize("kind", [PivotFusion, ConcatFusion])
def test_pivots_and_tokens_stand_side_by_side(kind):
    model, pivots = fusion(kind), torch.randn(1, 2, SIZE)
    given, gone = tokens(6.0), HERE | {"image": torch.tensor([False])}
    moved = model.passed(pivots, given, gone) if kind is PivotFusion else pivots
    beside = torch.tensor([[6.0] * 3 * SIZE + [0.0] * 3 * SIZE])
    found = model(pivots, given, gone)
    torch.testing.assert_close(found, torch.cat([moved.flatten(1), beside], dim=1))
    assert found.shape == (1, model.width)


def test_pivots_alone_carry_between_modalities():
    """Another image token leaves the text tokens of the second round as they are."""
    model, pivots, rows = fusion(), torch.randn(1, 2, SIZE), []
    model.rounds[1]["text"].register_forward_pre_hook(lambda m, inputs: rows.append(inputs[0]))
    for value in (0.0, 1.0):
        model(pivots, tokens() | {"image": torch.full((1, 3, SIZE), value)}, HERE)
    assert torch.equal(rows[0][0, 2:], rows[1][0, 2:])
    assert not torch.allclose(rows[0][0, :2], rows[1][0, :2])


def test_the_item_vector_by_hand():
    model, fused = ItemHead(6, SIZE, 0.0), torch.randn(50, 6)
    hidden = (fused @ model.first.weight.T + model.first.bias).clamp(min=0)
    expected = hidden @ model.second.weight.T + model.second.bias
    expected = torch.nn.functional.layer_norm(expected, (SIZE,))
    torch.testing.assert_close(model(fused), expected)


# First pivots


def test_scopes_by_hand():
    trained, bare = torch.tensor([False, True, False]), torch.tensor([True, False, False])
    rows, kinds = torch.tensor([1, 2]), {}
    for scope in ("shared", "item", "shared_plus_offset"):
        settings = MMSBRSettings(embedding_size=1, n_heads=1, n_pivots=2, pivot_scope=scope)
        kinds[scope] = first_pivots(settings, trained, bare).eval()
    assert [type(kind) for kind in kinds.values()] == [SharedPivots, ItemPivots, OffsetPivots]
    shared, own, both = kinds.values()
    with torch.no_grad():
        shared.shared[:, 0] = both.shared[:, 0] = torch.tensor([1.0, 2.0])
        own.own[:] = both.offset[:] = torch.tensor([[9.0, 9], [10, 20], [30, 40]])
    assert shared(rows).flatten().tolist() == [1, 2, 1, 2]
    assert own(rows).flatten().tolist() == [10, 20, 30, 40]
    # The third item is new: its offset stays 0.
    assert both(rows).flatten().tolist() == [11, 22, 1, 2]


def test_offsets_are_dropped_item_by_item():
    torch.manual_seed(0)
    trained, bare = torch.ones(10, dtype=torch.bool), torch.arange(10) == 5
    model, rows = OffsetPivots(2, SIZE, trained, bare, 0.5), torch.arange(10).repeat(20)
    with torch.no_grad():
        model.shared.normal_(), model.offset.normal_()
    kept = (model.train()(rows) != model.shared).flatten(1)
    assert bool((kept.all(dim=1) | ~kept.any(dim=1)).all())
    kept = kept[:, 0].view(20, 10).float().mean(dim=0)
    # Item 5 has no features: without its offset there would be nothing left of it.
    assert kept[5] == 1.0 and 0.2 < kept[0] < 0.8 and 0.4 < kept.mean() < 0.7
    assert bool((model.eval()(rows) != model.shared).all())
