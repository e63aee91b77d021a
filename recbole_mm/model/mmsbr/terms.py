"""Two parts of MMSBR: the interest of a session, and the contrast of real and pseudo vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recbole_mm.model import layers
from recbole_mm.model.layers import last_position, masked_mean

# Rows of similarities made at once where all items are compared, so that N x N never exists.
ROWS_AT_ONCE = 256


class Interest(nn.Module):
    """What a session is after, ``s = sum_j beta_j H_j`` with a gate ``beta`` per position.

    ``beta_j = w . sigmoid(A_1 H_j + a_1 + A_2 mean(H)) + w_0``, without softmax (released code).

    Parameters
    ----------
    config
        Keys ``embedding_size``, ``interest`` (``gate``, ``mean``, ``last``), ``interest_position``,
        ``session_residual``, ``session_map``, ``MAX_ITEM_LIST_LENGTH``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size = int(config["embedding_size"])
        self.form = str(config["interest"])
        self.residual = bool(config["session_residual"])
        if self.form == "gate":
            self.item = nn.Linear(size, size)
            self.mean = nn.Linear(size, size, bias=False)
            self.gate = nn.Linear(size, 1)
            if config["interest_position"] == "reversed":
                self.position = nn.Embedding(int(config["MAX_ITEM_LIST_LENGTH"]), size)
        if config["session_map"] == "linear":
            self.map = nn.Linear(size, size)

    def forward(self, items: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """Return ``(B, d)`` of item vectors ``(B, n, d)``, lengths ``(B,)``, bool ``(B, n)``."""
        vectors = self._pool(items, lengths, mask)
        if self.residual and self.form != "last":
            vectors = vectors + last_position(items, lengths)
        if not hasattr(self, "map"):
            return vectors
        mapped: Tensor = self.map(vectors)
        return mapped

    def _pool(self, items: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        if self.form == "last":
            return last_position(items, lengths)
        mean = masked_mean(items, mask)
        if self.form == "mean":
            return mean
        asked = self.item(items) + self.mean(mean).unsqueeze(1)
        if hasattr(self, "position"):
            # Counted from the end: the last item has position 0 whatever the length.
            back = lengths.unsqueeze(1) - 1 - torch.arange(items.shape[1], device=items.device)
            asked = asked + self.position(back.clamp_min(0))
        gate = self.gate(asked.sigmoid()) * mask.unsqueeze(-1)
        return (gate * items).sum(dim=1)


def contrast_rows(real: Tensor, pseudo: Tensor, own: Tensor, topk: int) -> Tensor:
    """Return ``log sum_{j in S_i} exp(z_ij) - z_ii``, ``z = real pseudo^T``, natural logarithm.

    Parameters
    ----------
    real
        Rows ``(R, d)``, already over the temperature.
    pseudo
        All pseudo vectors ``(M, d)``.
    own
        Which of them belongs to each row ``(R,)``.
    topk
        ``S_i`` are the largest ``topk`` entries of row ``i``, its own pair only if it is one of
        them (released code); 0 takes all.
    """
    logits = real @ pseudo.T
    pair = logits.gather(1, own.unsqueeze(1)).squeeze(1)
    if topk:
        logits = logits.topk(min(topk, logits.shape[1]), dim=1).values
    return torch.logsumexp(logits, dim=1) - pair


class PseudoContrast(nn.Module):
    """Contrast of an item's real vector with its pseudo vector among those of other items.

    Parameters
    ----------
    config
        Keys ``embedding_size``, ``contrast_on``, ``contrast_sim``, ``contrast_tau``,
        ``contrast_topk``, ``contrast_reduction``, ``contrast_sample``.
    widths
        Width of the pseudo vectors, by modality.
    pairs
        Ids ``(P,)`` of the items that have both vectors, by modality.
    """

    def __init__(
        self, config: Mapping[str, Any], widths: Mapping[str, int], pairs: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.cosine = config["contrast_sim"] == "cosine"
        self.temperature = float(config["contrast_tau"])
        self.topk, self.sample_size = int(config["contrast_topk"]), int(config["contrast_sample"])
        self.summed = config["contrast_reduction"] == "sum_log10"
        self.maps = nn.ModuleDict()
        for name, width in widths.items():
            if config["contrast_on"] == "projected":
                self.maps[name] = nn.Linear(width, int(config["embedding_size"]), bias=False)
            self.register_buffer(f"pairs_{name}", pairs[name], persistent=False)

    def sides(self, name: str, real: Tensor, pseudo: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is compared of real ``(M, d)`` and pseudo ``(M, d_u)`` vectors."""
        pseudo = self.maps[name](pseudo) if name in self.maps else pseudo
        return (layers.unit(real), layers.unit(pseudo)) if self.cosine else (real, pseudo)

    def pairs(self, name: str) -> Tensor:
        """Return the ids ``(P,)`` of the items that have both vectors."""
        return self.get_buffer(f"pairs_{name}")

    def sample(self, name: str, batch_items: Tensor) -> Tensor:
        """Return the items to compare in this step: those of the batch, and random ones."""
        pairs = self.pairs(name)
        if not self.sample_size or len(pairs) <= self.sample_size:
            return pairs
        own = torch.unique(batch_items)
        own = own[torch.isin(own, pairs)]
        if len(own) > self.sample_size:
            return own[torch.randperm(len(own), device=own.device)[: self.sample_size]]
        more = torch.randint(len(pairs), (self.sample_size - len(own),), device=own.device)
        return torch.unique(torch.cat([own, pairs[more]]))

    def forward(self, name: str, real: Tensor, pseudo: Tensor) -> Tensor:
        """Return the loss, a scalar, of sampled items' vectors ``(M, d)`` and ``(M, d_u)``."""
        left, right = self.sides(name, real, pseudo)
        left = left / self.temperature
        rows = [
            checkpoint(contrast_rows, left[own], right, own, self.topk, use_reentrant=False)
            for own in torch.split(torch.arange(len(left), device=left.device), ROWS_AT_ONCE)
        ]
        values = torch.cat(rows) if rows else left.sum(dim=1)
        if self.summed:
            return values.sum() / math.log(10.0)
        return values.mean() if len(values) else values.sum()
