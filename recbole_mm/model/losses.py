"""Losses shared by the models, each a function of scores with one value per row ``(B,)``."""

from __future__ import annotations

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
