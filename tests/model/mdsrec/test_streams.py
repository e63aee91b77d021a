"""MDSRec's encoder, centres and relation: numbers by hand, and RecBole's own encoder."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from recbole.model.layers import TransformerEncoder
from scipy.special import erf

from recbole_mm.model.mdsrec import streams

SIZES = {
    "n_layers": 2, "n_heads": 2, "hidden_size": 8, "inner_size": 12, "hidden_dropout_prob": 0.3,
    "attn_dropout_prob": 0.3, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
}  # fmt: skip
LENGTHS = torch.tensor([5, 1, 3])
START = torch.tensor([[2.5, -0.5], [1.5, 1.0]])


def make(**changes):
    torch.manual_seed(2)
    encoder = streams.make_encoder({**SIZES, **changes}).eval()
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return encoder


def states(width=8):
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(1))


def stock_mask(lengths, columns, bidirectional=False):
    """RecBole's additive mask, made anew."""
    mask = torch.full((len(lengths), 1, columns, columns), -10000.0)
    for row, length in enumerate(lengths.tolist()):
        for asking in range(columns):
            for seen in range(length):
                if bidirectional or seen <= asking:
                    mask[row, 0, asking, seen] = 0.0
    return mask


@pytest.mark.parametrize("act", ["gelu", "relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_last_position_is_that_of_recboles_encoder(act, bidirectional):
    encoder = make(hidden_act=act)
    stock = TransformerEncoder(**{**SIZES, "hidden_act": act}).eval()
    stock.load_state_dict(encoder.state_dict())
    mask = stock_mask(LENGTHS, 5, bidirectional)
    expected = stock(states(), mask)[-1][torch.arange(3), LENGTHS - 1]
    made, centers = streams.encode_stream(encoder, states(), LENGTHS, bidirectional)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    assert centers is None


def test_what_follows_or_fills_up_changes_nothing():
    encoder, inputs = make(), states()
    made, _ = streams.encode_stream(encoder, inputs, LENGTHS)
    longer = torch.cat([inputs, torch.randn(3, 4, 8)], dim=1)
    longer[1, 1:], longer[2, 3:] = 7.0, -3.0
    torch.testing.assert_close(streams.encode_stream(encoder, longer, LENGTHS)[0], made)
    # Without the mask forward, what comes later would reach the last but one position.
    earlier = streams.encode_stream(encoder, inputs, LENGTHS - 1 + (LENGTHS == 1).long())[0]
    changed = inputs.clone()
    changed[0, 4] = 9.0
    torch.testing.assert_close(
        streams.encode_stream(encoder, changed, LENGTHS - 1 + (LENGTHS == 1).long())[0], earlier
    )
    assert not torch.allclose(streams.encode_stream(encoder, changed, LENGTHS)[0][0], made[0])


def identity_layer():
    encoder = streams.make_encoder({**SIZES, "n_layers": 1, "n_heads": 1, "hidden_size": 2})
    layer = encoder.eval().layer[0]
    attention = layer.multi_head_attention
    for part in (attention.query, attention.key, attention.value, attention.dense):
        torch.nn.init.eye_(part.weight)
        torch.nn.init.zeros_(part.bias)
    return layer


@pytest.mark.parametrize(
    ("asking", "weights"),
    [
        ([1.0, 0.0], [0.669762, 0.330238]),
        ([0.0, 1.0], [0.330238, 0.669762]),
        ([2.0, 0.0], [0.804430, 0.195570]),
    ],
)
def test_centres_attend_by_hand(asking, weights):
    layer = identity_layer()
    # The third position is padding, whatever stands there.
    session = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    mask = torch.tensor([[[[True, True, False]]]])
    seen = streams.keys_values(layer, session)
    for query in (torch.tensor([asking]), torch.tensor([[asking]])):
        mixed = streams.attend(layer, query, seen, mask)
        torch.testing.assert_close(mixed, torch.tensor([[weights]]), atol=1e-6, rtol=0)


def test_centres_that_all_rows_share_are_projected_once():
    encoder, inputs = make(n_layers=1), states()
    layer, start = encoder.layer[0], torch.randn(4, 8)
    seen = streams.keys_values(layer, inputs)
    mask = (torch.arange(5) < LENGTHS.unsqueeze(1))[:, None, None, :]
    calls: list[int] = []
    layer.multi_head_attention.query.register_forward_hook(
        lambda _, given, __: calls.append(given[0].numel())
    )
    shared = streams.attend(layer, start, seen, mask)
    each = streams.attend(layer, start.expand(3, -1, -1), seen, mask)
    torch.testing.assert_close(shared, each)
    assert calls == [4 * 8, 3 * 4 * 8]


def np_norm(x, part):
    mean, spread = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(spread + 1e-12) * numbers(part.weight) + numbers(part.bias)


def numbers(tensor):
    return tensor.detach().double().numpy()


def np_map(x, part):
    return x @ numbers(part.weight).T + numbers(part.bias)


def np_gelu(x):
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def np_attend(layer, asking, session):
    attention = layer.multi_head_attention
    query, key = np_map(asking, attention.query), np_map(session, attention.key)
    value, mixed = np_map(session, attention.value), []
    for head in (slice(0, 4), slice(4, 8)):
        logits = query[:, head] @ key[:, head].T / 2.0
        share = np.exp(logits - logits.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        mixed.append(share @ value[:, head])
    return np.concatenate(mixed, axis=1)


def np_center_step(layer, tail, asking, session, residual, late):
    hidden = np_map(np_attend(layer, asking, session), tail.dense)
    hidden = np_norm(hidden + asking, tail.LayerNorm) if residual else hidden
    forward = tail.feed_forward
    inner = np_map(hidden, forward.dense_1)
    out = np_map(inner, forward.dense_2) if late else np_map(np_gelu(inner), forward.dense_2)
    out = np_gelu(out) if late else out
    return np_norm(out + hidden, forward.LayerNorm) if residual else out


def np_states(layer, session):
    """One layer over a whole session, position by position."""
    tail, rows = streams.tail_of(layer), []
    for place in range(len(session)):
        rows.append(
            np_center_step(
                layer, tail, session[place : place + 1], session[: place + 1], True, False
            )
        )
    return np.concatenate(rows)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_centres_pass_the_layers_as_derived_anew(residual, late, after, own):
    encoder, start, inputs = make(), torch.randn(3, 8), states()
    tails = [streams.tail_of(layer) for layer in encoder.layer]
    if own:
        tails = [streams.OwnTail(SIZES, residual).eval() for _ in range(2)]
    form = streams.Centers(start, tails, residual, late, after)
    session, centers = streams.encode_stream(encoder, inputs, LENGTHS, False, form)
    for row, length in enumerate(LENGTHS.tolist()):
        lower, expected = numbers(inputs[row, :length]), numbers(start)
        for layer, tail in zip(encoder.layer, tails, strict=True):
            upper = np_states(layer, lower)
            seen = upper if after else lower
            expected = np_center_step(layer, tail, expected, seen, residual, late)
            lower = upper
        np.testing.assert_allclose(numbers(centers[row]), expected, atol=2e-5)
        np.testing.assert_allclose(numbers(session[row]), lower[-1], atol=2e-5)


def test_a_tail_of_its_own_has_no_norm_where_none_is_used():
    assert any("LayerNorm" in name for name, _ in streams.OwnTail(SIZES, True).named_parameters())
    names = [name for name, _ in streams.OwnTail(SIZES, False).named_parameters()]
    assert not any("LayerNorm" in name for name in names)
    assert {name.split(".")[0] for name in names} == {"dense", "feed_forward"}


SESSION, CENTERS = torch.tensor([[0.0, 1.0]]), START.unsqueeze(0)


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({}, [0.182426, 0.817574]),
        ({"temperature": 0.5}, [0.047426, 0.952574]),
        ({"scaled": True}, [0.257183, 0.742817]),
        ({"noise": torch.tensor([[0.0, 1.0]])}, [0.075858, 0.924142]),
    ],
)
def test_relation_by_hand(switches, expected):
    share = streams.relation(SESSION, CENTERS, **switches)
    torch.testing.assert_close(share, torch.tensor([expected]), atol=1e-6, rtol=0)


def test_a_hard_choice_takes_one_centre_and_learns_like_the_soft_one():
    session = SESSION.clone().requires_grad_()
    hard = streams.relation(session, CENTERS, hard=True)
    torch.testing.assert_close(hard, torch.tensor([[0.0, 1.0]]))
    hard[0, 0].backward()
    from_hard, session.grad = session.grad.clone(), None
    streams.relation(session, CENTERS)[0, 0].backward()
    torch.testing.assert_close(from_hard, session.grad)
    assert bool(from_hard.any())


def test_noise_by_hand():
    uniform = torch.tensor([0.5, 0.731059])
    torch.testing.assert_close(
        streams.logit_noise("logistic", uniform), torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0
    )
    expected = torch.tensor([-math.log(math.log(2)), -math.log(-math.log(0.731059))])
    torch.testing.assert_close(streams.logit_noise("gumbel", uniform), expected)
    for kind in ("logistic", "gumbel"):
        assert bool(streams.logit_noise(kind, torch.tensor([0.0, 1.0])).isfinite().all())
