"""Interest centres: first vectors, the way through a layer, the choice among them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from recbole_mm.model import transformer
from recbole_mm.model.mdsrec import centers, streams
from recbole_mm.model.mdsrec.centers import CenterPool
from recbole_mm.model.mdsrec.settings import MDSRecSettings

LENGTHS = torch.tensor([5, 1, 3])


@pytest.mark.parametrize(
    ("how", "expected"), [("mean", [[2.5, -0.5], [1.5, 1]]), ("sum", [[5, -1], [3, 2]])]
)
def test_centres_are_pooled_by_hand(how, expected):
    table = torch.tensor([[0.0, 0], [3, -1], [2, 0], [1, 2], [2, 0]])
    pool = CenterPool(np.array([-1, 0, 1, 1, 0]), how)
    torch.testing.assert_close(pool(table), torch.tensor(expected, dtype=torch.float32))
    lacking = CenterPool(np.array([-1, 0, 1, -1, 0]), how)
    assert lacking(table)[1].tolist() == [2, 0]
    assert {name: x.dtype for name, x in pool.state_dict().items()} == {"labels": torch.int32}


def numbers(tensor):
    return tensor.detach().double().numpy()


def np_norm(x, part):
    mean, spread = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(spread + 1e-12) * numbers(part.weight) + numbers(part.bias)


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


def np_step(layer, asking, session, block="layer", ffn="standard"):
    attention, forward = layer.multi_head_attention, layer.feed_forward
    hidden = np_map(np_attend(layer, asking, session), attention.dense)
    hidden = np_norm(hidden + asking, attention.LayerNorm) if block == "layer" else hidden
    inner = np_map(hidden, forward.dense_1)
    late = ffn == "printed"
    out = np_map(inner if late else np_gelu(inner), forward.dense_2)
    out = np_gelu(out) if late else out
    return np_norm(out + hidden, forward.LayerNorm) if block == "layer" else out


def np_states(layer, session):
    """One layer over a whole session, position by position."""
    places = range(len(session))
    return np.concatenate([np_step(layer, session[q : q + 1], session[: q + 1]) for q in places])


@pytest.mark.parametrize("ffn", ["standard", "printed"])
@pytest.mark.parametrize("block", ["layer", "bare"])
def test_centres_pass_the_layers_as_derived_anew(block, ffn):
    torch.manual_seed(2)
    encoder = transformer.make_encoder(MDSRecSettings(hidden_size=8, inner_size=12)).eval()
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    start, inputs = torch.randn(3, 8), torch.randn(3, 5, 8)
    step = centers.center_step(block, ffn)
    session, found = streams.encode_stream(encoder, inputs, LENGTHS, start, step)
    for row, length in enumerate(LENGTHS.tolist()):
        states, expected = numbers(inputs[row, :length]), numbers(start)
        for layer in encoder.layer:
            expected = np_step(layer, expected, states, block, ffn)
            states = np_states(layer, states)
        np.testing.assert_allclose(numbers(found[row]), expected, atol=2e-5)
        np.testing.assert_allclose(numbers(session[row]), states[-1], atol=2e-5)
    if (block, ffn) == ("layer", "standard"):
        # The way that centres take unless another one is named.
        plain = streams.encode_stream(encoder, inputs, LENGTHS, start)[1]
        torch.testing.assert_close(plain, found)


SESSION, CENTERS = torch.tensor([[0.0, 1.0]]), torch.tensor([[[2.5, -0.5], [1.5, 1.0]]])


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({}, [0.182426, 0.817574]),
        ({"temperature": 0.5}, [0.047426, 0.952574]),
        ({"noise": torch.tensor([[0.0, 1.0]])}, [0.075858, 0.924142]),
    ],
)
def test_relation_by_hand(switches, expected):
    share = centers.relation(SESSION, CENTERS, **switches)
    torch.testing.assert_close(share, torch.tensor([expected]), atol=1e-6, rtol=0)


def test_noise_by_hand():
    made = centers.logistic_noise(torch.tensor([0.5, 0.731059]))
    torch.testing.assert_close(made, torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)
    assert bool(centers.logistic_noise(torch.tensor([0.0, 1.0])).isfinite().all())
