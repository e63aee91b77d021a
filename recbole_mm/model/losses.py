"""Losses shared by the models, each a function of scores with one value per row ``(B,)``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_ce(scores: Tensor, target: Tensor) -> Tensor:
    """Softmax cross-entropy over all items, ``-log p_y``.

    Parameters
    ----------
    scores
        ``(B, N)``; columns that are no item (padding) must be left out or ``-inf``.
    target
        Column of the right item ``(B,)``.
    """
    return F.cross_entropy(scores, target, reduction="none")


def without_own_items(
    scores: Tensor, item_seq: Tensor, target: Tensor, fill: float = -math.inf
) -> Tensor:
    """Strike the items of a row's own history out of its classes, the target excepted (ours).

    A network that is trained so spends nothing on learning that what was just seen is not next;
    where own items come last or are masked in prediction, that is known beforehand.

    Parameters
    ----------
    scores
        ``(B, N)``, column 0 is padding; left as they are.
    item_seq
        Items of the history ``(B, T)``, filled up with 0.
    target
        ``(B,)``.
    fill
        Stands in the place of a class that is struck out.
    """
    own = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, item_seq, True)
    own.scatter_(1, target.unsqueeze(1), False)
    return scores.masked_fill(own, fill)
