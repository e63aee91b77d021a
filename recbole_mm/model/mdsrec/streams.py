"""Sequence encoder of a stream, with interest centres along with it, as functions.

The encoder is RecBole's ``TransformerEncoder``, so that its weights are those of SASRec; here its
sub-modules are called one by one, for three reasons: the last layer asks from the last position
only, the centres ask with the same maps, and keys and values are made once for both.

Symbols: ``B`` rows, ``T`` positions, ``k`` centres, ``d`` width, ``H`` heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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
from recbole_mm.model.mdsrec.settings import MDSRecSettings

# Added to the variance in layer normalisation.
NORM_EPS = 1e-12

KeysValues = tuple[Tensor, Tensor]
# Of a layer, centres, keys and values of the session, and where to look: the centres behind it.
CenterStep = Callable[[TransformerLayer, Tensor, KeysValues, Tensor], Tensor]


def make_encoder(settings: MDSRecSettings) -> TransformerEncoder:
    """Return RecBole's encoder with the sizes of the settings."""
    encoder = TransformerEncoder(
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        hidden_size=settings.hidden_size,
        inner_size=settings.inner_size,
        hidden_dropout_prob=settings.hidden_dropout_prob,
        attn_dropout_prob=settings.attn_dropout_prob,
        hidden_act="gelu",
        layer_norm_eps=NORM_EPS,
    )
    for layer in encoder.layer:
        # The same function as RecBole's, in one step instead of five.
        layer.feed_forward.intermediate_act_fn = F.gelu
    return encoder


class Tail(NamedTuple):
    """What follows the attention: output map, dropout, normalisation, feed-forward."""

    dense: nn.Module
    out_dropout: nn.Module
    LayerNorm: nn.Module
    feed_forward: FeedForward


def tail_of(layer: TransformerLayer) -> Tail:
    """Return the tail of an encoder layer, to be shared with the centres."""
    attention = layer.multi_head_attention
    return Tail(attention.dense, attention.out_dropout, attention.LayerNorm, layer.feed_forward)


def keys_values(layer: TransformerLayer, states: Tensor) -> KeysValues:
    """Return a layer's keys and values ``(B, H, T, d/H)`` of states ``(B, T, d)``."""
    attention = layer.multi_head_attention
    keys, values = attention.key(states), attention.value(states)
    return _heads(attention, keys), _heads(attention, values)


def _heads(attention: MultiHeadAttention, vectors: Tensor) -> Tensor:
    """Split the last dimension: ``(..., Q, d)`` to ``(..., H, Q, d/H)``."""
    split: Tensor = attention.transpose_for_scores(vectors)
    return split.transpose(-2, -3)


def attend(layer: TransformerLayer, asking: Tensor, states: KeysValues, mask: Tensor) -> Tensor:
    """Return what a layer's attention mixes for each asking vector, before the output map.

    Parameters
    ----------
    layer
        A layer of RecBole's encoder.
    asking
        ``(B, Q, d)``, or ``(Q, d)`` if all rows ask the same: these are mapped only once.
    states
        Keys and values from `keys_values`.
    mask
        bool, broadcast to ``(B, H, Q, T)``: where to look.

    Returns
    -------
    Tensor
        ``(B, Q, d)``.
    """
    attention, (keys, values) = layer.multi_head_attention, states
    query = _heads(attention, attention.query(asking))
    dropout = attention.attn_dropout
    mixed = F.scaled_dot_product_attention(
        query.expand(len(keys), -1, -1, -1),
        keys,
        values,
        attn_mask=mask,
        dropout_p=dropout.p if dropout.training else 0.0,
    )
    return mixed.transpose(1, 2).flatten(2)


def _layer(layer: TransformerLayer, asking: Tensor, states: KeysValues, mask: Tensor) -> Tensor:
    """Return the layer's output at the asking positions, as RecBole's ``forward`` computes it."""
    tail = tail_of(layer)
    hidden = tail.out_dropout(tail.dense(attend(layer, asking, states, mask)))
    result: Tensor = tail.feed_forward(tail.LayerNorm(hidden + asking))
    return result


def encode_stream(
    encoder: TransformerEncoder,
    states: Tensor,
    lengths: Tensor,
    centers: Tensor | None = None,
    step: CenterStep = _layer,
) -> tuple[Tensor, Tensor | None]:
    """Encode sessions and, along with them, interest centres (MDSRec eq. 8-16).

    A position sees what stands before it; the centres see the whole session, in each layer what
    goes into it.

    Parameters
    ----------
    encoder
        RecBole's ``TransformerEncoder``.
    states
        Input vectors ``(B, T, d)``.
    lengths
        Real positions per row ``(B,)``, at least 1.
    centers
        First vectors of this stream's centres ``(k, d)``, the same for all rows, or None.
    step
        How centres pass a layer.

    Returns
    -------
    tuple
        Vectors at the last real position ``(B, d)``, and the centres ``(B, k, d)`` or None.
    """
    place = torch.arange(states.shape[1], device=states.device)
    real = real_positions(lengths, states.shape[1])[:, None, None, :]
    mask = real & (place <= place.unsqueeze(1))
    for number, layer in enumerate(encoder.layer):
        seen = keys_values(layer, states)
        if number == len(encoder.layer) - 1:
            # What a position is in the last layer matters only at the end of the session.
            states, mask = last_position(states, lengths).unsqueeze(1), real
        states = _layer(layer, states, seen, mask)
        if centers is not None:
            centers = step(layer, centers, seen, real)
    return states.squeeze(1), centers
