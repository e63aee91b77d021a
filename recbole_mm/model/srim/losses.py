"""Losses of SRIM, each a function of similarities or scores.

Symbols: ``B`` rows of a batch, ``N`` items, ``M`` anchor items, ``l`` negatives per anchor.
Functions return one value per row or anchor; the model takes the mean. Everything goes through
``softplus`` and ``logsumexp`` and stays finite. Numbers of equations are the paper's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_mm.model.layers import TINY, unit


def bce_softmax(scores: Tensor, target: Tensor) -> Tensor:
    """Two-sided cross-entropy over softmax probabilities (SRIM eq. 15).

    ``-log p_y - sum_{j != y} log(1 - p_j)``; on raw scores, as printed, the logarithm is not
    defined. Arguments as in `recbole_mm.model.losses.softmax_ce`.
    """
    log_p = F.log_softmax(scores, dim=1)
    rest = torch.log1p(-log_p.exp().clamp(max=1.0 - 1e-7))
    index = target.unsqueeze(1)
    return (rest.gather(1, index) - log_p.gather(1, index)).squeeze(1) - rest.sum(dim=1)


def align_paper(inside_id: Tensor, inside_content: Tensor, across: Tensor) -> Tensor:
    """Alignment as printed, with the cross pair as numerator of eq. 9 (SRIM eq. 9-11).

    ``log(1 + e^a/(1+e^b)) + log(1 + e^a/(1+e^c)) + log(1 + (e^b+e^c)/(1+e^a))``. Its terms
    contradict each other: the minimum has all three similarities at -1.

    Parameters
    ----------
    inside_id, inside_content
        Cosines ``b``, ``c`` of a branch's session before and after attention ``(B,)``.
    across
        Cosine ``a`` between the branches ``(B,)``.
    """
    return (
        F.softplus(across - F.softplus(inside_id))
        + F.softplus(across - F.softplus(inside_content))
        + F.softplus(torch.logaddexp(inside_id, inside_content) - F.softplus(across))
    )


def align_infonce(left: Tensor, right: Tensor, target: Tensor, temperature: float = 0.1) -> Tensor:
    """Symmetric in-batch contrast of the two branches' sessions (ours).

    ``-1/2 [log softmax_k(cos(l_b, r_k)/tau)_b + log softmax_k(cos(r_b, l_k)/tau)_b]``, where other
    rows with the same target are no negatives.

    Parameters
    ----------
    left, right
        Mapped session vectors of the two branches ``(B, d)``.
    target
        Target items ``(B,)``.
    temperature
        ``tau``.
    """
    logits = unit(left) @ unit(right).T / temperature
    same = target.unsqueeze(0) == target.unsqueeze(1)
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, -math.inf)
    rows = torch.arange(len(target), device=target.device)
    forth = F.cross_entropy(logits, rows, reduction="none")
    back = F.cross_entropy(logits.T, rows, reduction="none")
    return (forth + back) / 2


def joint(like_id: Tensor, like_content: Tensor, flag: Tensor) -> Tensor:
    """Weigh the branches by a flag (SRIM eq. 12-13).

    ``J_i = softplus(v - u)``, ``J_c = softplus(u - v)``; ``J_i + J_c/2`` where the flag is set,
    else ``J_c + J_i/2``. The minimum is at ``u - v = ln 2`` (flag set) or ``-ln 2``: it balances
    the branches and does not pull either towards the target.

    Parameters
    ----------
    like_id, like_content
        Cosines ``u``, ``v`` of session and target in the two branches ``(B,)``.
    flag
        bool ``(B,)``: the ID branch leads.
    """
    by_id = F.softplus(like_content - like_id)
    by_content = F.softplus(like_id - like_content)
    lead = torch.where(flag, by_id, by_content)
    follow = torch.where(flag, by_content, by_id)
    return lead + 0.5 * follow


def co_infonce(near: Tensor, far: Tensor, valid: Tensor) -> Tensor:
    """Contrast an item's frequent partners with strangers (released code, natural logarithm).

    ``log(e^pos + sum_k e^neg_k) - pos``, temperature 1.

    Parameters
    ----------
    near
        Cosine ``pos`` of anchor and mean partner ``(M,)``.
    far
        Cosines ``neg_k`` of anchor and strangers ``(M, l)``.
    valid
        bool ``(M, l)``: which strangers count.
    """
    logits = torch.cat([near.unsqueeze(1), far.masked_fill(~valid, -math.inf)], dim=1)
    return torch.logsumexp(logits, dim=1) - near


def co_ratio(near: Tensor, far: Tensor, valid: Tensor) -> Tensor:
    """SRIM eq. 17 as printed, ``- pos / sum_k neg_k``; arguments as in `co_infonce`.

    Ill-posed: unbounded below, with a pole and a change of sign where the sum crosses 0. It is kept
    to show that; only an exact zero is kept away from the division.
    """
    total = (far * valid).sum(dim=1)
    return -near / total.masked_fill(total == 0, TINY)
