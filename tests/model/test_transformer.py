"""The last position of RecBole's Transformer, without making the others."""

from __future__ import annotations

import pytest
import torch
from recbole.model.layers import TransformerEncoder

from recbole_mm.model import transformer
from recbole_mm.model.layers import last_position

LENGTHS = torch.tensor([5, 1, 3])


def make(dropout: float = 0.0, act: str = "gelu") -> TransformerEncoder:
    torch.manual_seed(2)
    encoder = TransformerEncoder(
        n_layers=3, n_heads=2, hidden_size=8, inner_size=12, hidden_dropout_prob=dropout,
        attn_dropout_prob=dropout, hidden_act=act, layer_norm_eps=1e-12,
    )  # fmt: skip
    for weight in encoder.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return encoder


def states() -> torch.Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))


def stock(encoder: TransformerEncoder, inputs: torch.Tensor) -> torch.Tensor:
    """RecBole's own way, with a mask made one entry at a time."""
    mask = torch.full((3, 1, 5, 5), -1e9)
    for row, length in enumerate(LENGTHS.tolist()):
        for asking in range(5):
            mask[row, 0, asking, : min(length, asking + 1)] = 0.0
    return last_position(encoder(inputs, mask)[-1], LENGTHS)


def test_the_masks_let_through_the_past_only() -> None:
    real, causal = transformer.masks(torch.tensor([3, 2]), 4)
    assert real.flatten(1).tolist() == [[True, True, True, False], [True, True, False, False]]
    logits = torch.tensor([0.2, 0.4, 0.9, 0.7])
    share = torch.softmax(logits.masked_fill(~causal[0, 0], -torch.inf), dim=-1)
    assert share[1].tolist() == pytest.approx([0.4501660, 0.5498340, 0, 0], abs=1e-6)
    assert share[2].tolist() == pytest.approx([0.2361188, 0.2883962, 0.4754849, 0], abs=1e-6)
    # A session of two: the third position sees the two, never itself or padding.
    assert causal[1, 0, 2].tolist() == [True, True, False, False]


@pytest.mark.parametrize("act", ["gelu", "relu"])
def test_the_last_position_is_recboles(act: str) -> None:
    encoder = make(act=act).eval()
    expected = stock(encoder, states())
    fused = transformer.encode_last(encoder, states(), LENGTHS, transformer.fused)
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)
    stepwise = transformer.encode_last(encoder, states(), LENGTHS, transformer.stepwise)
    torch.testing.assert_close(stepwise, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("mix", [transformer.fused, transformer.stepwise])
def test_gradients_are_recboles(mix: transformer.Mix) -> None:
    encoder, target = make().double().eval(), torch.randn(3, 8, dtype=torch.double)
    found = []
    for way in (stock(encoder, states().double()),
                transformer.encode_last(encoder, states().double(), LENGTHS, mix)):  # fmt: skip
        encoder.zero_grad()
        (way * target).sum().backward()
        found.append([weight.grad.clone() for weight in encoder.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_padding_and_what_comes_later_change_nothing() -> None:
    encoder, inputs = make().eval(), states()
    made = transformer.encode_last(encoder, inputs, LENGTHS, transformer.fused)
    changed = inputs.clone()
    changed[1, 1:], changed[2, 3:] = 7.0, -3.0
    again = transformer.encode_last(encoder, changed, LENGTHS, transformer.fused)
    torch.testing.assert_close(again, made)
    # An earlier position must not look ahead: lengths below the row's real ones stand for it.
    shorter = torch.tensor([4, 1, 2])
    before = transformer.encode_last(encoder, inputs, shorter, transformer.fused)
    changed = inputs.clone()
    changed[0, 4], changed[2, 2] = 9.0, 9.0
    after = transformer.encode_last(encoder, changed, shorter, transformer.fused)
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("mix", [transformer.fused, transformer.stepwise])
def test_both_ways_drop_attention_weights_while_training(mix: transformer.Mix) -> None:
    block = make(dropout=0.5).train().layer[0]
    block.multi_head_attention.out_dropout.p = 0.0
    seen = transformer.keys_values(block, states())
    real, _ = transformer.masks(LENGTHS, 5)
    drawn = [transformer.attend(block, states()[:, :1], seen, real, mix) for _ in range(2)]
    assert not torch.equal(*drawn)
    block.eval()
    still = [transformer.attend(block, states()[:, :1], seen, real, mix) for _ in range(2)]
    assert torch.equal(*still)
