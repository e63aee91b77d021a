"""Fusion of MMSBR by hand: recursion of the pivots, axis of the softmax, missing modalities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from recbole_mm.model.mmsbr.pivots import FeatureTokens, ItemFusion, TokenLayer, merge

SIZE = 4
CONFIG = {
    "embedding_size": SIZE,
    "n_heads": 2,
    "inner_size": 8,
    "dropout_encoder": 0.0,
    "dropout_fusion": 0.0,
    "share_ln": False,
    "pivot_softmax_axis": "key",
    "fusion": "pivot",
    "pivot_order": "text_first",
    "token_skip": False,
    "item_activation": "relu",
    "n_pivots": 2,
    "n_tokens": 3,
    "n_rounds": 3,
}
HERE = {"text": torch.ones(1, dtype=torch.bool), "image": torch.ones(1, dtype=torch.bool)}


class Stub(nn.Module):
    """Returns a constant, or what it was given; notes its input."""

    def __init__(self, value=None):
        super().__init__()
        self.value, self.seen = value, []

    def forward(self, tokens, n_out, absent=None):
        self.seen.append(tokens)
        out = tokens[:, :n_out]
        return out if self.value is None else torch.full_like(out, self.value)


def fusion(stub=None, modalities=("text", "image"), **changes):
    torch.manual_seed(0)
    model = ItemFusion(CONFIG | changes, modalities)
    if stub is not None:
        model.rounds = nn.ModuleList(
            nn.ModuleDict(dict.fromkeys(modalities, stub)) for _ in range(3)
        )
    return model


def tokens(value=1.0, items=1):
    return {name: torch.full((items, 3, SIZE), value) for name in ("text", "image")}


@pytest.mark.parametrize(("first", "expected"), [(0.0, 0.984375), (2.0, 1.015625)])
def test_pivots_approach_a_constant_by_halves(first, expected):
    pivots = torch.full((1, 2, SIZE), first)
    out = fusion(Stub(1.0))._pivot(pivots, tokens(), HERE)
    torch.testing.assert_close(out, torch.full((1, 2 * SIZE), expected))


def test_identity_layers_keep_pivots_and_double_tokens():
    stub, pivots = Stub(), torch.randn(1, 2, SIZE)
    out = fusion(stub)._pivot(pivots, tokens(), HERE)
    torch.testing.assert_close(out, pivots.flatten(1))
    # One input per round and modality; what the last layers make of the tokens is not computed.
    assert [seen[0, -1, 0].item() for seen in stub.seen] == [1, 1, 2, 2, 4, 4]


def test_parallel_layers_see_the_same_pivots():
    pivots, stub = torch.zeros(1, 2, SIZE), Stub(1.0)
    out = fusion(stub, pivot_order="parallel")._pivot(pivots, tokens(), HERE)
    torch.testing.assert_close(out, torch.full((1, 2 * SIZE), 0.875))
    assert torch.equal(stub.seen[0][:, :2], stub.seen[1][:, :2])


def test_merge_by_hand():
    pivots = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1)
    out, other = torch.full((4, 1, 1), 5.0), torch.full((4, 1, 1), 9.0)
    have = torch.tensor([True, True, False, False])
    also = torch.tensor([True, False, True, False])
    merged = merge(pivots, [(out, have), (other, also)]).flatten()
    assert merged.tolist() == [4.0, 3.5, 6.0, 4.0]


@pytest.mark.parametrize("form", ["pivot", "concat_mlp", "mean", "full_transformer"])
@pytest.mark.parametrize("order", ["text_first", "parallel"])
def test_a_missing_modality_is_not_there(form, order):
    """An item without image has the vector it would have whatever stood in its image tokens."""
    model = fusion(fusion=form, pivot_order=order, item_activation="none").eval()
    pivots, given = torch.randn(2, 2, SIZE), tokens(items=2)
    present = {"text": torch.tensor([True, True]), "image": torch.tensor([True, False])}
    first = model(pivots, given, present)
    second = model(pivots, given | {"image": torch.randn(2, 3, SIZE)}, present)
    torch.testing.assert_close(first[1], second[1])
    assert not torch.allclose(first[0], second[0])


@pytest.mark.parametrize("axis", ["key", "query"])
def test_without_an_image_only_the_text_layers_count(axis):
    keys = {"pivot_softmax_axis": axis, "item_activation": "none"}
    model = fusion(**keys).eval()
    alone = fusion(modalities=("text",), **keys).eval()
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if "image" not in k})
    pivots, given = torch.randn(1, 2, SIZE), {"text": torch.randn(1, 3, SIZE)}
    expected = alone(pivots, given, HERE)
    given["image"] = torch.randn(1, 3, SIZE)
    gone = HERE | {"image": torch.tensor([False])}
    torch.testing.assert_close(model(pivots, given, gone), expected)


@pytest.mark.parametrize(
    ("axis", "expected"),
    [("key", [[0.25, 0.75], [0.5, 0.5]]), ("query", [[0.5, 0.75], [0.5, 0.25]])],
)
def test_axis_of_the_softmax(axis, expected):
    """Logits [[0, ln 3], [0, 0]]: the values are unit vectors, so the output is the weights."""
    changes = {"embedding_size": 2, "n_heads": 1, "pivot_softmax_axis": axis}
    layer = TokenLayer(CONFIG | changes)
    logits = math.sqrt(2) * torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    with torch.no_grad():
        layer.query.weight.copy_(logits.T)
        layer.key_value.weight.copy_(torch.cat([torch.eye(2), torch.eye(2)]))
        layer.query.bias.zero_(), layer.key_value.bias.zero_()
        found = layer._attend(torch.eye(2).unsqueeze(0), 2, None)[0]
        first = layer._attend(torch.eye(2).unsqueeze(0), 1, None)[0]
    torch.testing.assert_close(found, torch.tensor(expected))
    torch.testing.assert_close(first, torch.tensor(expected[:1]))


@pytest.mark.parametrize("axis", ["key", "query"])
@pytest.mark.parametrize("share", [True, False])
def test_wanted_tokens_are_what_the_whole_layer_gives(axis, share):
    torch.manual_seed(1)
    layer = TokenLayer(CONFIG | {"pivot_softmax_axis": axis, "share_ln": share})
    whole = torch.randn(5, 6, SIZE)
    torch.testing.assert_close(layer(whole, 6)[:, :2], layer(whole, 2))
    assert (layer.norm_attention is layer.norm_out) == share


@pytest.mark.parametrize("axis", ["key", "query"])
def test_absent_tokens_neither_give_nor_take(axis):
    torch.manual_seed(1)
    layer, whole = TokenLayer(CONFIG | {"pivot_softmax_axis": axis}), torch.randn(2, 5, SIZE)
    absent = torch.tensor([[False, False, False, True, True]] * 2)
    torch.testing.assert_close(layer(whole, 3, absent), layer(whole[:, :3], 3))
    layer(whole, 3, absent).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in layer.parameters())


def test_tokens_equal_maps_one_by_one():
    torch.manual_seed(2)
    model, vectors = FeatureTokens(5, SIZE, 3, 0.0), torch.randn(6, 5)
    with torch.no_grad():
        model.first_bias.normal_(), model.second_bias.normal_()
    for token in range(3):
        hidden = torch.tanh(vectors @ model.first[token] + model.first_bias[token])
        expected = torch.tanh(hidden @ model.second[token] + model.second_bias[token])
        torch.testing.assert_close(model(vectors)[:, token], expected)


def test_mean_fusion_by_hand():
    """Two pivots of 1, three text tokens of 6, no image: (2 * 1 + 3 * 6) / 5."""
    model = fusion(fusion="mean")
    present = HERE | {"image": torch.tensor([False])}
    found = model._mean(torch.ones(1, 2, SIZE), tokens(6.0), present)
    torch.testing.assert_close(found, torch.full((1, SIZE), 4.0))


def test_concatenation_by_hand():
    model = fusion(fusion="concat_mlp")
    present = HERE | {"image": torch.tensor([False])}
    found = model._concat_mlp(torch.ones(1, 2, SIZE), tokens(6.0), present)
    expected = torch.tensor([[1.0] * 2 * SIZE + [6.0] * 3 * SIZE + [0.0] * 3 * SIZE])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", ["pivot", "full_transformer"])
def test_the_vector_may_read_tokens_beside_pivots(form):
    model, seen = fusion(fusion=form, token_skip=True), {}
    model.first.register_forward_pre_hook(lambda m, inputs: seen.update(read=inputs[0]))
    given, gone = tokens(6.0), HERE | {"image": torch.tensor([False])}
    pivots = torch.randn(1, 2, SIZE)
    model(pivots, given, gone)
    alone = getattr(model, f"_{form}")(pivots, dict(given), gone)
    expected = torch.tensor([[6.0] * 3 * SIZE + [0.0] * 3 * SIZE])
    torch.testing.assert_close(seen["read"], torch.cat([alone, expected], dim=1))
    # Where there are no layers, the tokens are read once, as they are.
    for other in ("concat_mlp", "mean"):
        one, two = (fusion(fusion=other, token_skip=skip) for skip in (True, False))
        assert one.first.weight.shape == two.first.weight.shape


def test_full_attention_carries_between_modalities():
    """Another image token changes what the text tokens become; behind a bottleneck it does not."""
    seen = {}
    for form in ("full_transformer", "pivot"):
        model, pivots = fusion(fusion=form, n_rounds=2), torch.randn(1, 2, SIZE)
        layer = model.rounds[1]["text"]
        layer.register_forward_pre_hook(lambda m, inputs, f=form: seen.update({f: inputs[0]}))
        given, rows = tokens(), {}
        for value in (0.0, 1.0):
            model(pivots, given | {"image": torch.full((1, 3, SIZE), value)}, HERE)
            rows[value] = seen[form][0, 2:5]
        assert torch.equal(rows[0.0], rows[1.0]) == (form == "pivot")


@pytest.mark.parametrize(("end", "low"), [("relu", True), ("none", False), ("norm", False)])
def test_end_of_the_item_vector(end, low):
    model = fusion(item_activation=end)
    out = model(
        torch.randn(50, 2, SIZE), tokens(items=50), {k: v.expand(50) for k, v in HERE.items()}
    )
    assert bool((out >= 0).all()) == low
    flat = torch.allclose(out.mean(dim=1), torch.zeros(50), atol=1e-5)
    assert flat == (end == "norm")
