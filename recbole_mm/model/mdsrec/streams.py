"""Sequence encoder, interest centres and their relation to the session, as functions.

The encoder is RecBole's ``TransformerEncoder``, so that its weights are those of SASRec; here its
sub-modules are called one by one, for three reasons: the last layer asks from the last position
only, the centres ask with the same maps, and keys and values are made once for both.

Symbols: ``B`` rows, ``T`` positions, ``k`` centres, ``d`` width, ``H`` heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from recbole.model.layers import FeedForward, TransformerEncoder
from torch import Tensor, nn

from recbole_mm.model.layers import last_position

KeysValues = tuple[Tensor, Tensor]


def make_encoder(config: Mapping[str, Any]) -> nn.Module:
    """Return RecBole's encoder with the sizes of the configuration."""
    encoder: nn.Module = TransformerEncoder(
        n_layers=config["n_layers"],
        n_heads=config["n_heads"],
        hidden_size=config["hidden_size"],
        inner_size=config["inner_size"],
        hidden_dropout_prob=config["hidden_dropout_prob"],
        attn_dropout_prob=config["attn_dropout_prob"],
        hidden_act=config["hidden_act"],
        layer_norm_eps=config["layer_norm_eps"],
    )
    for part in encoder.modules():
        if isinstance(part, FeedForward) and config["hidden_act"] == "gelu":
            # The same function as RecBole's, in one step instead of five.
            part.intermediate_act_fn = F.gelu
    return encoder


class Tail(NamedTuple):
    """What follows the attention: output map, dropout, normalisation, feed-forward."""

    dense: nn.Module
    out_dropout: nn.Module
    LayerNorm: nn.Module
    feed_forward: Any


def tail_of(layer: Any) -> Tail:
    """Return the tail of an encoder layer, to be shared with the centres."""
    attention = layer.multi_head_attention
    return Tail(attention.dense, attention.out_dropout, attention.LayerNorm, layer.feed_forward)


class OwnTail(nn.Module):
    """A tail of the centres' own (``center_share: qkv``).

    With ``normed`` false nothing is normalised, so that there is nothing to learn for it.
    """

    def __init__(self, config: Mapping[str, Any], normed: bool) -> None:
        super().__init__()
        size, eps = config["hidden_size"], config["layer_norm_eps"]
        self.dense = nn.Linear(size, size)
        self.out_dropout = nn.Dropout(config["hidden_dropout_prob"])
        self.LayerNorm = nn.LayerNorm(size, eps=eps) if normed else nn.Identity()
        self.feed_forward = FeedForward(
            size, config["inner_size"], config["hidden_dropout_prob"], config["hidden_act"], eps
        )
        if not normed:
            self.feed_forward.LayerNorm = nn.Identity()


@dataclass(frozen=True)
class Centers:
    """The centres of one modality on their way through the layers.

    Attributes
    ----------
    start
        First vectors ``(k, d)``, the same for all rows.
    tails
        What follows the attention in each layer.
    residual
        Residuals and normalisation, as in the encoder's layer; False is eq. 12-15 as printed.
    late_activation
        ``act(lin2(lin1(x)))`` as printed, instead of ``lin2(act(lin1(x)))``.
    after
        Ask what comes out of a layer instead of what goes in.
    """

    start: Tensor
    tails: Sequence[Any]
    residual: bool = True
    late_activation: bool = False
    after: bool = False

    def step(
        self, layer: Any, tail: Any, asking: Tensor, states: KeysValues, mask: Tensor
    ) -> Tensor:
        """Update the centres ``(k, d)`` or ``(B, k, d)`` from a session (eq. 12-15)."""
        hidden = tail.out_dropout(tail.dense(attend(layer, asking, states, mask)))
        if self.residual:
            hidden = tail.LayerNorm(hidden + asking)
        forward = tail.feed_forward
        act = forward.intermediate_act_fn
        inner = forward.dense_1(hidden)
        if self.late_activation:
            out = forward.dropout(act(forward.dense_2(inner)))
        else:
            out = forward.dropout(forward.dense_2(act(inner)))
        return forward.LayerNorm(out + hidden) if self.residual else out


def keys_values(layer: Any, states: Tensor) -> KeysValues:
    """Return a layer's keys and values ``(B, H, T, d/H)`` of states ``(B, T, d)``."""
    attention = layer.multi_head_attention
    keys, values = attention.key(states), attention.value(states)
    return _heads(attention, keys), _heads(attention, values)


def _heads(attention: Any, vectors: Tensor) -> Tensor:
    """Split the last dimension: ``(..., Q, d)`` to ``(..., H, Q, d/H)``."""
    split: Tensor = attention.transpose_for_scores(vectors)
    return split.transpose(-2, -3)


def attend(layer: Any, asking: Tensor, states: KeysValues, mask: Tensor) -> Tensor:
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


def _layer(layer: Any, asking: Tensor, states: KeysValues, mask: Tensor) -> Tensor:
    """Return the layer's output at the asking positions, as RecBole's ``forward`` computes it."""
    tail = tail_of(layer)
    hidden = tail.out_dropout(tail.dense(attend(layer, asking, states, mask)))
    result: Tensor = tail.feed_forward(tail.LayerNorm(hidden + asking))
    return result


def encode_stream(
    encoder: Any,
    states: Tensor,
    lengths: Tensor,
    bidirectional: bool = False,
    centers: Centers | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Encode sessions and, along with them, interest centres (MDSRec eq. 8-16).

    Parameters
    ----------
    encoder
        RecBole's ``TransformerEncoder``.
    states
        Input vectors ``(B, T, d)``.
    lengths
        Real positions per row ``(B,)``, at least 1.
    bidirectional
        Let positions look ahead. The centres always see the whole row.
    centers
        The centres of this stream, or None.

    Returns
    -------
    tuple
        Vectors at the last real position ``(B, d)``, and the centres ``(B, k, d)`` or None.
    """
    place = torch.arange(states.shape[1], device=states.device)
    real = (place < lengths.unsqueeze(1))[:, None, None, :]
    mask = real if bidirectional else real & (place <= place.unsqueeze(1))
    found = None if centers is None else centers.start
    for number, layer in enumerate(encoder.layer):
        seen = keys_values(layer, states)
        # What a position is in the last layer matters only at the end of the session.
        short = number == len(encoder.layer) - 1 and not (centers and centers.after)
        asking = last_position(states, lengths).unsqueeze(1) if short else states
        states = _layer(layer, asking, seen, real if short else mask)
        if centers is not None and found is not None:
            seen = keys_values(layer, states) if centers.after else seen
            found = centers.step(layer, centers.tails[number], found, seen, real)
    if states.shape[1] > 1:
        states = last_position(states, lengths).unsqueeze(1)
    return states.squeeze(1), found


def logit_noise(kind: str, uniform: Tensor) -> Tensor:
    """Turn uniform numbers of (0, 1) into noise on logits.

    ``logistic``: ``log r - log(1 - r)`` as printed (eq. 19); ``gumbel``: ``-log(-log r)``.
    """
    tiny = torch.finfo(uniform.dtype).eps
    uniform = uniform.clamp(tiny, 1.0 - tiny)
    return uniform.logit() if kind == "logistic" else -(-uniform.log()).log()


def relation(
    session: Tensor,
    centers: Tensor,
    temperature: float = 1.0,
    scaled: bool = False,
    noise: Tensor | None = None,
    hard: bool = False,
) -> Tensor:
    """Return how much each centre concerns a session (MDSRec eq. 19).

    ``pi = softmax((<h, c_j> + eps_j) / theta)``.

    Parameters
    ----------
    session
        ``h`` ``(B, d)``.
    centers
        ``c`` ``(B, k, d)``.
    temperature
        ``theta``.
    scaled
        Divide the products by ``sqrt(d)``.
    noise
        ``eps`` ``(B, k)``.
    hard
        Choose one centre; the gradient is that of the soft choice.

    Returns
    -------
    Tensor
        ``(B, k)``, rows sum to 1.
    """
    logits = (centers @ session.unsqueeze(2)).squeeze(2)
    if scaled:
        logits = logits / math.sqrt(session.shape[1])
    if noise is not None:
        logits = logits + noise
    soft = torch.softmax(logits / temperature, dim=1)
    if not hard:
        return soft
    chosen = torch.zeros_like(soft).scatter_(1, soft.argmax(dim=1, keepdim=True), 1.0)
    return chosen + soft - soft.detach()
