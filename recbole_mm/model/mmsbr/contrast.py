"""Contrast of MMSBR: an item's real vector against the pseudo vectors of other items."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recbole_mm.collectives import distinct
from recbole_mm.model.layers import unit

# Rows of similarities made at once where all items are compared, so that N x N never exists.
ROWS_AT_ONCE = 256


class PseudoContrast(nn.Module):
    """Contrast of real vectors ``x`` with pseudo vectors ``y``.

    The mean over items of ``log sum_j exp(cos(x_i, y_j) / tau) - cos(x_i, y_i) / tau``.

    Parameters
    ----------
    pairs
        Ids ``(P,)`` of the items that have both vectors, by modality, at least one each.
    temperature
        ``tau``.
    sample_size
        Items compared per step; 0 takes all.
    """

    def __init__(self, pairs: Mapping[str, Tensor], temperature: float, sample_size: int) -> None:
        super().__init__()
        self.temperature, self.sample_size = temperature, sample_size
        for name, ids in pairs.items():
            self.register_buffer(f"pairs_{name}", ids, persistent=False)

    def pairs(self, name: str) -> Tensor:
        """Return the ids ``(P,)`` of the items that have both vectors."""
        return self.get_buffer(f"pairs_{name}")

    def sample(self, name: str, batch_items: Tensor) -> Tensor:
        """Return the items to compare in this step: those of the batch, and random ones."""
        pairs = self.pairs(name)
        if not self.sample_size or len(pairs) <= self.sample_size:
            return pairs
        own = distinct(batch_items)
        own = own[torch.isin(own, pairs)]
        if len(own) > self.sample_size:
            return own[torch.randperm(len(own), device=own.device)[: self.sample_size]]
        more = torch.randint(len(pairs), (self.sample_size - len(own),), device=own.device)
        sampled: Tensor = torch.unique(torch.cat([own, pairs[more]]))
        return sampled

    def sides(self, real: Tensor, pseudo: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors ``(M, d)`` whose inner products are compared."""
        return unit(real), unit(pseudo)

    def forward(self, real: Tensor, pseudo: Tensor) -> Tensor:
        """Return the loss, a scalar, of items' vectors ``(M, d)`` and ``(M, d)``, ``M > 0``."""
        left, right = self.sides(real, pseudo)
        left = left / self.temperature
        rows = [
            checkpoint(self.rows, left[own], right, own, use_reentrant=False)
            for own in torch.split(torch.arange(len(left), device=left.device), ROWS_AT_ONCE)
        ]
        return self.total(torch.cat(rows))

    def rows(self, left: Tensor, right: Tensor, own: Tensor) -> Tensor:
        """Return ``log sum_j exp(z_ij) - z_ii`` of some rows ``(R,)``, ``z = left right^T``.

        ``own`` ``(R,)`` says which column belongs to each row.
        """
        logits = left @ right.T
        pair = logits.gather(1, own.unsqueeze(1)).squeeze(1)
        return torch.logsumexp(self.among(logits), dim=1) - pair

    def among(self, logits: Tensor) -> Tensor:
        """Return the logits ``(R, K)`` that enter the denominators, of all ``(R, M)``."""
        return logits

    def total(self, values: Tensor) -> Tensor:
        """Return the loss of all items' values ``(M,)``."""
        return values.mean()
