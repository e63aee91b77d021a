"""Building blocks shared by the models."""

from __future__ import annotations

import math
from typing import Literal

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


class PositionWeights(nn.Module):
    """A learned number for each position of a session, ``a_age + b_place`` (ours).

    Age counts from the end of the session, place from its start, both from 0: which item came last
    says much, and so does which came first.

    Parameters
    ----------
    n_positions
        Items of the longest session.
    slope
        Before training ``a_age = slope * age``; ``b`` is 0.
    """

    def __init__(self, n_positions: int, slope: float = 0.0) -> None:
        super().__init__()
        self.age = nn.Parameter(slope * torch.arange(n_positions, dtype=torch.float32))
        self.place = nn.Parameter(torch.zeros(n_positions))

    def forward(self, mask: Tensor) -> Tensor:
        """Return the numbers ``(B, T)``; those of padding mean nothing.

        Parameters
        ----------
        mask
            bool ``(B, T)``, True at real positions, which come first.
        """
        place = torch.arange(mask.shape[1], device=mask.device)
        age = (mask.sum(dim=1, keepdim=True) - 1 - place).clamp_min(0)
        return self.age[age] + self.place[place]


class ResidualMap(nn.Module):
    """``x + W x + b``, with ``W`` and ``b`` 0 before training, so that at first nothing changes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.change = nn.Linear(size, size)
        self.reset()

    def reset(self) -> None:
        """Set ``W`` and ``b`` to 0."""
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return ``(..., d)`` of vectors ``(..., d)``."""
        changed: Tensor = vectors + self.change(vectors)
        return changed


class Match(nn.Module):
    """How sessions meet items: scores are ``query(q) . items(e)``; here ``q . e``."""

    def query(self, vectors: Tensor) -> Tensor:
        """Return session vectors ``(B, d)`` as they are."""
        return vectors

    def items(self, vectors: Tensor) -> Tensor:
        """Return item vectors ``(N, d)`` as they are."""
        return vectors


class Cosine(Match):
    """Scores as scaled cosines ``exp(s) cos(q, e)``, with a learned ``s``.

    Parameters
    ----------
    temperature
        ``exp(-s)`` before training.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def query(self, vectors: Tensor) -> Tensor:
        """Return session vectors ``(B, d)`` of length ``exp(s)``."""
        return unit(vectors) * self.log_scale.exp()

    def items(self, vectors: Tensor) -> Tensor:
        """Return item vectors ``(N, d)`` of length 1."""
        return unit(vectors)


def make_match(score: Literal["dot", "cosine"], temperature: float) -> Match:
    """Return how sessions meet items; ``temperature`` is the first one of the cosine."""
    return Match() if score == "dot" else Cosine(temperature)


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
