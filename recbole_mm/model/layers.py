"""Building blocks shared by the models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Vectors shorter than this count as zero: their cosine is 0 and their gradient stays bounded.
TINY = 1e-8


def real_positions(lengths: Tensor, n_positions: int) -> Tensor:
    """Return which positions of sessions of these lengths ``(B,)`` are real, bool ``(B, T)``."""
    return torch.arange(n_positions, device=lengths.device) < lengths.unsqueeze(1)


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real positions: ``(B, T, d)`` and bool ``(B, T)`` give ``(B, d)``."""
    weight = mask.unsqueeze(-1).to(vectors.dtype)
    return (vectors * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)


def last_position(vectors: Tensor, lengths: Tensor) -> Tensor:
    """Return the vectors at the last real position: ``(B, T, d)``, ``(B,)`` give ``(B, d)``."""
    index = (lengths - 1).clamp_min(0).view(-1, 1, 1).expand(-1, 1, vectors.shape[-1])
    return vectors.gather(1, index).squeeze(1)


def gather_rows(table: Tensor, ids: Tensor) -> Tensor:
    """Return rows of an item table; the padding item's row gets no gradient.

    ``(N, d)`` and ids of any shape ``(...)`` give ``(..., d)``.
    """
    rows: Tensor = F.embedding(ids, table, padding_idx=0)
    return rows


def length(vectors: Tensor) -> Tensor:
    """Return the lengths ``(...,)`` of vectors ``(..., d)``, 1 for zero vectors."""
    norm: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return norm.masked_fill(norm < TINY, 1.0)


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors ``(..., d)`` to length 1; zero vectors stay zero."""
    return vectors / length(vectors).unsqueeze(-1)


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosine of vectors ``(..., d)``, 0 where either is zero."""
    return (unit(left) * unit(right)).sum(dim=-1)


class ItemTable(nn.Module):
    """A trainable vector per item, ``(n_items, size)``; row 0 (padding) is zero and stays so."""

    def __init__(self, n_items: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_items, size))
        self.reset()

    def reset(self) -> None:
        """Draw from ``U(-1/sqrt(d), 1/sqrt(d))``."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        with torch.no_grad():
            self.weight[0].zero_()

    def forward(self) -> Tensor:
        """Return the whole table ``(n_items, size)``."""
        return self.weight
