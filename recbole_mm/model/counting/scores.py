"""What is done to rows of scores: z-scores, own items last, ranks of targets."""

from __future__ import annotations

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
    variance, mean = torch.var_mean(scores[:, 1:], dim=1, correction=0, keepdim=True)
    spread = variance.sqrt()
    varies = spread > _CONSTANT * mean.abs()
    scaled = (scores - mean).mul_(torch.where(varies, 1 / spread, 0))
    scaled[:, 0] = 0
    return scaled


def own_items_last(scores: Tensor, item_seq: Tensor) -> Tensor:
    """Put the items ``item_seq`` ``(B, T)`` of each row below all others, in their own order."""
    least, most = scores[:, 1:].aminmax(dim=1, keepdim=True)
    return scores.scatter(1, item_seq, scores.gather(1, item_seq) - (most - least + 1))


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
    greater = (scores[:, 1:] > goal).sum(dim=1)
    equal = (scores[:, 1:] == goal).sum(dim=1) - 1
    rank = (1 + greater + (equal + 1) // 2).double()
    return torch.where(rank <= CUT, 1 / torch.log2(rank + 1), 0)
