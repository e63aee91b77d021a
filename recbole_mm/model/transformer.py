"""RecBole's Transformer, asked only where a score reads it.

The encoder is RecBole's ``TransformerEncoder``, so that its weights are those of SASRec. Here the
sub-modules of its blocks are called one by one, because nothing but the last position is read of
the topmost block, and because other vectors than the session's (MDSRec's centres) ask with the same
maps, for which keys and values are made once.

Symbols: ``B`` rows, ``T`` positions, ``Q`` asking vectors, ``H`` heads, ``d`` width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from recbole.model.layers import (
    FeedForward,
    MultiHeadAttention,
    TransformerEncoder,
    TransformerLayer,
)
from torch import Tensor, nn

from recbole_mm.model.layers import last_position, real_positions

# Added to the variance in layer normalisation, and standard deviation of first weights: RecBole's
# SASRec has these.
NORM_EPS = 1e-12
INITIAL_STD = 0.02

KeysValues = tuple[Tensor, Tensor]
# Mixes values: the attention whose dropout counts; queries (B, H, Q, d/H); keys and values
# (B, H, T, d/H); a mask that broadcasts to (B, H, Q, T), True where to look.
Mix = Callable[[MultiHeadAttention, Tensor, KeysValues, Tensor], Tensor]


class Sizes(Protocol):
    """Settings of a model with such an encoder."""

    @property
    def n_layers(self) -> int:
        """Layers."""

    @property
    def n_heads(self) -> int:
        """Attention heads."""

    @property
    def hidden_size(self) -> int:
        """Width ``d``."""

    @property
    def inner_size(self) -> int:
        """Width inside the feed-forward layers."""

    @property
    def hidden_dropout_prob(self) -> float:
        """Share of values dropped."""

    @property
    def attn_dropout_prob(self) -> float:
        """Share of attention weights dropped."""


def make_encoder(sizes: Sizes) -> TransformerEncoder:
    """Return RecBole's encoder, that of SASRec, with the sizes of a model's settings."""
    encoder = TransformerEncoder(
        n_layers=sizes.n_layers,
        n_heads=sizes.n_heads,
        hidden_size=sizes.hidden_size,
        inner_size=sizes.inner_size,
        hidden_dropout_prob=sizes.hidden_dropout_prob,
        attn_dropout_prob=sizes.attn_dropout_prob,
        hidden_act="gelu",
        layer_norm_eps=NORM_EPS,
    )
    for layer in encoder.layer:
        # The same function as RecBole's, in one step instead of five.
        layer.feed_forward.intermediate_act_fn = F.gelu
    return encoder


def draw_as_sasrec(module: nn.Module) -> None:
    """Draw first weights as RecBole's SASRec does; the padding item's vector stays zero."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()


def fused(attention: MultiHeadAttention, query: Tensor, states: KeysValues, mask: Tensor) -> Tensor:
    """Mix values by torch's fused kernel, ``softmax(q k^T / sqrt(d/H)) v``."""
    dropout = attention.attn_dropout
    return F.scaled_dot_product_attention(
        query, *states, attn_mask=mask, dropout_p=dropout.p if dropout.training else 0.0
    )


def stepwise(
    attention: MultiHeadAttention, query: Tensor, states: KeysValues, mask: Tensor
) -> Tensor:
    """Mix values in RecBole's own steps, which give its bits; the same up to rounding."""
    keys, values = states
    logits = query @ keys.transpose(-1, -2) / attention.sqrt_attention_head_size
    weights = torch.softmax(logits.masked_fill(~mask, -torch.inf), dim=-1)
    mixed: Tensor = attention.attn_dropout(weights) @ values
    return mixed


class Tail(NamedTuple):
    """What follows the attention in a block: output map, dropout, normalisation, feed-forward."""

    dense: nn.Module
    out_dropout: nn.Module
    LayerNorm: nn.Module
    feed_forward: FeedForward


def tail_of(block: TransformerLayer) -> Tail:
    """Return the tail of a block."""
    attention = block.multi_head_attention
    return Tail(attention.dense, attention.out_dropout, attention.LayerNorm, block.feed_forward)


def keys_values(block: TransformerLayer, states: Tensor) -> KeysValues:
    """Return a block's keys and values ``(B, H, T, d/H)`` of states ``(B, T, d)``."""
    attention = block.multi_head_attention
    keys, values = attention.key(states), attention.value(states)
    return _heads(attention, keys), _heads(attention, values)


def _heads(attention: MultiHeadAttention, vectors: Tensor) -> Tensor:
    """Split the last dimension: ``(..., Q, d)`` to ``(..., H, Q, d/H)``."""
    split: Tensor = attention.transpose_for_scores(vectors)
    return split.transpose(-2, -3)


def attend(
    block: TransformerLayer,
    asking: Tensor,
    states: Tensor | KeysValues,
    mask: Tensor,
    mix: Mix = fused,
) -> Tensor:
    """Return what a block's attention mixes for each asking vector, before the output map.

    Parameters
    ----------
    block
        A block of RecBole's encoder.
    asking
        ``(B, Q, d)``, or ``(Q, d)`` if all rows ask the same: these are mapped only once.
    states
        What is looked at ``(B, T, d)``, or its keys and values if they serve several.
    mask
        bool, broadcast to ``(B, H, Q, T)``: where to look.
    mix
        `fused` or `stepwise`.

    Returns
    -------
    Tensor
        ``(B, Q, d)``.
    """
    attention = block.multi_head_attention
    query = _heads(attention, attention.query(asking))
    seen = states if isinstance(states, tuple) else keys_values(block, states)
    mixed = mix(attention, query.expand(len(seen[0]), -1, -1, -1), seen, mask)
    return mixed.transpose(1, 2).flatten(2)


def block_at(
    block: TransformerLayer,
    asking: Tensor,
    states: Tensor | KeysValues,
    mask: Tensor,
    mix: Mix = fused,
) -> Tensor:
    """Return a block's output at the asking positions; arguments as in `attend`."""
    tail = tail_of(block)
    hidden = tail.out_dropout(tail.dense(attend(block, asking, states, mask, mix)))
    result: Tensor = tail.feed_forward(tail.LayerNorm(hidden + asking))
    return result


def masks(lengths: Tensor, n_positions: int) -> tuple[Tensor, Tensor]:
    """Return where to look: real positions ``(B, 1, 1, T)``, and not ahead ``(B, 1, T, T)``."""
    real = real_positions(lengths, n_positions)[:, None, None, :]
    place = torch.arange(n_positions, device=lengths.device)
    return real, real & (place <= place.unsqueeze(1))


def encode_last(encoder: TransformerEncoder, states: Tensor, lengths: Tensor, mix: Mix) -> Tensor:
    """Encode sessions causally and return the vectors at their last positions, ``(B, d)``.

    Parameters
    ----------
    encoder
        RecBole's encoder.
    states
        Input vectors ``(B, T, d)``, padded on the right.
    lengths
        Real positions per row ``(B,)``, at least 1.
    mix
        `fused` or `stepwise`.
    """
    real, causal = masks(lengths, states.shape[1])
    *blocks, top = encoder.layer
    for block in blocks:
        states = block_at(block, states, states, causal, mix)
    asking = last_position(states, lengths).unsqueeze(1)
    return block_at(top, asking, states, real, mix).squeeze(1)
