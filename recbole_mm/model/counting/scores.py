"""What is done to rows of scores: z-scores, own items last, ranks of targets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CUT = 20
# A row whose spread is this small beside its mean is constant up to rounding.
_CONSTANT = 1e-6


def z_scores(scores: Tensor) -> Tensor:
    """Return ``(score - mean) / standard deviation`` of each row, over all items but padding.

    A row of equal scores gives zeros.

    Parameters
    ----------
    scores
        ``(B, N)``; column 0 is padding and is 0 in the result.
    """
    # Ten times as fast as torch.var_mean.
    mean = scores[:, 1:].mean(dim=1, keepdim=True)
    centred = scores - mean
    centred[:, 0] = 0
    length = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    spread = length / math.sqrt(scores.shape[1] - 1)
    varies = spread > _CONSTANT * mean.abs()
    return centred.mul_(torch.where(varies, 1 / spread, 0))


def own_items_last(scores: Tensor, item_seq: Tensor) -> Tensor:
    """Put the items ``item_seq`` ``(B, T)`` of each row below all others, in their own order."""
    real = scores[:, 1:]
    span = real.amax(dim=1, keepdim=True) - real.amin(dim=1, keepdim=True) + 1
    return scores.scatter(1, item_seq, scores.gather(1, item_seq) - span)


def ndcg(scores: Tensor, target: Tensor) -> Tensor:
    """Return NDCG@20 of each row's one target, ``(B,)``; equal scores share their mean rank.

    Parameters
    ----------
    scores
        ``(B, N)``; column 0 is padding and never counts.
    target
        ``(B,)`` item ids.
    """
    goal = scores.gather(1, target.unsqueeze(1))
    # Ones as floats are summed several times as fast as truth values; exact up to 16 million.
    ones = torch.empty_like(scores[:, 1:])
    greater = torch.gt(scores[:, 1:], goal, out=ones).sum(dim=1).long()
    equal = torch.eq(scores[:, 1:], goal, out=ones).sum(dim=1).long() - 1
    rank = (1 + greater + (equal + 1) // 2).double()
    return torch.where(rank <= CUT, 1 / torch.log2(rank + 1), 0)
