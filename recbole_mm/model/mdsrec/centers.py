"""Interest centres: where they begin, how they pass a layer, how a session chooses among them.

Symbols: ``B`` rows, ``T`` positions, ``k`` centres, ``d`` width, ``H`` heads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from recbole.model.layers import FeedForward, TransformerLayer
from torch import Tensor, nn

from recbole_mm.model.mdsrec.streams import CenterStep
from recbole_mm.model.transformer import KeysValues, attend, tail_of

Maps = Callable[[FeedForward, Tensor], Tensor]


class CenterPool(nn.Module):
    """First vectors of the interest centres: items of a group together (MDSRec eq. 11).

    The groups are part of the state dict, so that a checkpoint keeps its own.

    Parameters
    ----------
    labels
        Group of each item ``(N,)``, -1 for none; groups are numbered without gaps.
    how
        ``mean`` or ``sum``.
    """

    labels: Tensor

    def __init__(self, labels: NDArray[np.int32], how: str = "mean") -> None:
        super().__init__()
        self.how = how
        self.register_buffer("labels", torch.from_numpy(labels.astype(np.int32)))

    def forward(self, table: Tensor) -> Tensor:
        """Return one vector per group ``(k, d)`` of item vectors ``(N, d)``."""
        ordered, order = torch.sort(self.labels, stable=True)
        sizes = torch.bincount(ordered[ordered >= 0].long())
        members = order[len(order) - int(sizes.sum()) :]
        return F.embedding_bag(members, table, sizes.cumsum(0) - sizes, mode=self.how)


def center_step(block: str, ffn: str) -> CenterStep:
    """Return how centres pass a layer of the session's encoder (MDSRec eq. 12-15).

    Parameters
    ----------
    block
        ``layer``: with residuals and normalisation, as the session does; ``bare``: without, as
        printed.
    ffn
        ``standard``: ``lin2(act(lin1(x)))``; ``printed``: ``act(lin2(lin1(x)))``.
    """
    passing = {"layer": _whole, "bare": _bare}[block]
    return partial(passing, {"standard": _standard, "printed": _printed}[ffn])


def _whole(
    maps: Maps, layer: TransformerLayer, asking: Tensor, states: KeysValues, mask: Tensor
) -> Tensor:
    """Update centres ``(k, d)`` or ``(B, k, d)`` to ``(B, k, d)`` with residuals and norms."""
    tail = tail_of(layer)
    hidden = tail.out_dropout(tail.dense(attend(layer, asking, states, mask)))
    hidden = tail.LayerNorm(hidden + asking)
    forward = tail.feed_forward
    result: Tensor = forward.LayerNorm(forward.dropout(maps(forward, hidden)) + hidden)
    return result


def _bare(
    maps: Maps, layer: TransformerLayer, asking: Tensor, states: KeysValues, mask: Tensor
) -> Tensor:
    """Update centres like `_whole`, with neither residual nor norm."""
    tail = tail_of(layer)
    hidden = tail.out_dropout(tail.dense(attend(layer, asking, states, mask)))
    result: Tensor = tail.feed_forward.dropout(maps(tail.feed_forward, hidden))
    return result


def _standard(forward: FeedForward, hidden: Tensor) -> Tensor:
    """Return the feed-forward maps with the activation between them."""
    mapped: Tensor = forward.dense_2(forward.intermediate_act_fn(forward.dense_1(hidden)))
    return mapped


def _printed(forward: FeedForward, hidden: Tensor) -> Tensor:
    """Return the feed-forward maps with the activation behind both."""
    mapped: Tensor = forward.intermediate_act_fn(forward.dense_2(forward.dense_1(hidden)))
    return mapped


def logistic_noise(uniform: Tensor) -> Tensor:
    """Turn uniform numbers of (0, 1) into noise ``log r - log(1 - r)`` (MDSRec eq. 19)."""
    tiny = torch.finfo(uniform.dtype).eps
    return uniform.clamp(tiny, 1.0 - tiny).logit()


def relation(
    session: Tensor, centers: Tensor, temperature: float = 1.0, noise: Tensor | None = None
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
    noise
        ``eps`` ``(B, k)``.

    Returns
    -------
    Tensor
        ``(B, k)``, rows sum to 1.
    """
    logits = (centers @ session.unsqueeze(2)).squeeze(2)
    if noise is not None:
        logits = logits + noise
    return torch.softmax(logits / temperature, dim=1)
