"""UniSRec's adaptor: a mixture of parametric whitenings of item descriptions.

Symbols: ``N`` items, ``w`` width of a description, ``d`` of an item vector, ``E`` experts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Least deviation of the noise of the gates, as in the released code; the paper has none.
LEAST_NOISE = 0.01


class Whitening(nn.Module):
    """Parametric whitening ``(x - b) W``, with dropout on ``x`` as in the released code."""

    def __init__(self, width: int, size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.shift = nn.Parameter(torch.zeros(width))
        self.map = nn.Linear(width, size, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return ``(N, d)`` of descriptions ``(N, w)``."""
        whitened: Tensor = self.map(self.dropout(rows) - self.shift)
        return whitened


class Adaptor(nn.Module):
    """``v = sum_k g_k (x - b_k) W_k`` with ``g = softmax(x W_g + noise * softplus(x W_n))``.

    The noise is normal, one draw per item and expert, in training only. All gates weigh the same
    before training.

    Parameters
    ----------
    width
        ``w``.
    size
        ``d``.
    n_experts
        ``E``.
    dropout
        Share of a description's numbers dropped, for each expert anew.
    """

    def __init__(self, width: int, size: int, n_experts: int, dropout: float) -> None:
        super().__init__()
        experts = [Whitening(width, size, dropout) for _ in range(n_experts)]
        self.experts = nn.ModuleList(experts)
        self.gate = nn.Parameter(torch.zeros(width, n_experts))
        self.noise = nn.Parameter(torch.zeros(width, n_experts))

    def gates(self, rows: Tensor) -> Tensor:
        """Return how each item mixes the experts, ``(N, E)`` with rows of sum 1."""
        logits = rows @ self.gate
        if self.training:
            deviation = F.softplus(rows @ self.noise) + LEAST_NOISE
            logits = logits + torch.randn_like(logits) * deviation
        return torch.softmax(logits, dim=-1)

    def forward(self, rows: Tensor) -> Tensor:
        """Return item vectors ``(N, d)`` of descriptions ``(N, w)``."""
        shares = self.gates(rows).unbind(dim=1)
        parts = zip(shares, self.experts, strict=True)
        return torch.stack([share.unsqueeze(1) * one(rows) for share, one in parts]).sum(dim=0)
