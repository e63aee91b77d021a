"""MDSRec's encoder: numbers by hand, and RecBole's own encoder."""

from __future__ import annotations

import pytest
import torch
from recbole.model.layers import TransformerEncoder

from recbole_mm.model import transformer
from recbole_mm.model.mdsrec import streams
from recbole_mm.model.mdsrec.settings import MDSRecSettings

SIZES = {
    "n_layers": 2, "n_heads": 2, "hidden_size": 8, "inner_size": 12, "hidden_dropout_prob": 0.3,
    "attn_dropout_prob": 0.3,
}  # fmt: skip
LENGTHS = torch.tensor([5, 1, 3])


def make(**changes):
    torch.manual_seed(2)
    encoder = transformer.make_encoder(MDSRecSettings(**{**SIZES, **changes})).eval()
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return encoder


def states(width=8):
    return torch.randn(3, 5, width, generator=torch.Generator().manual_seed(1))


def stock_mask(lengths, columns):
    """RecBole's additive mask, made anew."""
    mask = torch.full((len(lengths), 1, columns, columns), -10000.0)
    for row, length in enumerate(lengths.tolist()):
        for asking in range(columns):
            for seen in range(length):
                if seen <= asking:
                    mask[row, 0, asking, seen] = 0.0
    return mask


@pytest.mark.parametrize("n_layers", [1, 2])
def test_the_last_position_is_that_of_recboles_encoder(n_layers):
    encoder = make(n_layers=n_layers)
    stock = TransformerEncoder(**{**SIZES, "n_layers": n_layers}).eval()
    stock.load_state_dict(encoder.state_dict())
    expected = stock(states(), stock_mask(LENGTHS, 5))[-1][torch.arange(3), LENGTHS - 1]
    made, centers = streams.encode_stream(encoder, states(), LENGTHS)
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
    layer = make(n_layers=1, n_heads=1, hidden_size=2).layer[0]
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
    seen = transformer.keys_values(layer, session)
    for query in (torch.tensor([asking]), torch.tensor([[asking]])):
        mixed = transformer.attend(layer, query, seen, mask)
        torch.testing.assert_close(mixed, torch.tensor([[weights]]), atol=1e-6, rtol=0)


def test_centres_that_all_rows_share_are_projected_once():
    encoder, inputs = make(n_layers=1), states()
    layer, start = encoder.layer[0], torch.randn(4, 8)
    seen = transformer.keys_values(layer, inputs)
    mask = (torch.arange(5) < LENGTHS.unsqueeze(1))[:, None, None, :]
    calls: list[int] = []
    layer.multi_head_attention.query.register_forward_hook(
        lambda _, given, __: calls.append(given[0].numel())
    )
    shared = transformer.attend(layer, start, seen, mask)
    each = transformer.attend(layer, start.expand(3, -1, -1), seen, mask)
    torch.testing.assert_close(shared, each)
    assert calls == [4 * 8, 3 * 4 * 8]
