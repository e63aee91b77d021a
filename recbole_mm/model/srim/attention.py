"""From the vectors of a session's items to the session's vector (SRIM eq. 5, 7 and 8)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from recbole_mm.model import layers

MAPPED = {"direct": ("query",), "lin": (), "full": ("query", "key", "value")}


class DirectAttention(nn.Module):
    """Multi-head self-attention whose keys and values are the raw item vectors (SRIM eq. 7).

    No output map, residual, normalisation or positions, so the result is, per head, a convex mix of
    the session's item vectors. For a session of one item it is the identity.

    Parameters
    ----------
    size
        Width ``d``.
    n_heads
        Heads ``H``, a divisor of ``d``; each takes ``d/H`` consecutive coordinates, logits are
        scaled by ``sqrt(d/H)``.
    form
        ``"direct"``: the query is mapped. ``"lin"``: nothing is. ``"full"``: query, key and value
        are.
    bias
        Give the maps a bias.
    dropout
        Dropout on the attention weights.
    n_positions
        Items of the longest session, to learn what each position weighs (ours); 0 does not.
    """

    def __init__(
        self,
        size: int,
        n_heads: int,
        form: Literal["direct", "lin", "full"] = "direct",
        bias: bool = True,
        dropout: float = 0.0,
        n_positions: int = 0,
    ) -> None:
        super().__init__()
        self.positions = layers.PositionWeights(n_positions, -0.3) if n_positions else None
        self.n_heads = n_heads
        self.dropout = nn.Dropout(dropout)
        self.maps = nn.ModuleDict({role: nn.Linear(size, size, bias) for role in MAPPED[form]})

    def forward(self, query: Tensor, items: Tensor, mask: Tensor) -> Tensor:
        """Attend from ``query`` to ``items``.

        Parameters
        ----------
        query
            Raw vectors of the asking positions ``(B, Q, d)``.
        items
            Raw vectors of the session ``(B, T, d)``.
        mask
            bool ``(B, T)``, True at real positions; at least one per row.

        Returns
        -------
        Tensor
            ``(B, Q, d)``.
        """
        seen = mask
        if self.positions is not None:
            # An item starts with exp(-0.3) of the weight of the one after it.
            seen = self.positions(mask).masked_fill(~mask, -math.inf)
        mixed = F.scaled_dot_product_attention(
            self._heads("query", query),
            self._heads("key", items),
            self._heads("value", items),
            attn_mask=seen[:, None, None, :],
            dropout_p=self.dropout.p if self.dropout.training else 0.0,
        )
        return mixed.transpose(1, 2).flatten(2)

    def _heads(self, role: str, vectors: Tensor) -> Tensor:
        """Map if this role is mapped and split: ``(B, T, d)`` to ``(B, H, T, d/H)``."""
        if role in self.maps:
            vectors = self.maps[role](vectors)
        split = (*vectors.shape[:2], self.n_heads, -1)
        return vectors.reshape(split).transpose(1, 2)


class Session(NamedTuple):
    """Session vectors of one branch, ``(B, d)`` each: before and after attention."""

    before: Tensor
    after: Tensor


class MeanOfPositions(nn.Module):
    """Mean of all positions, before (eq. 5) and after attention (eq. 8).

    Parameters
    ----------
    attention
        None leaves the mean before attention.
    """

    def __init__(self, attention: DirectAttention | None) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, items: Tensor, lengths: Tensor) -> Session:
        """Return the vectors of sessions of items ``(B, T, d)`` with lengths ``(B,)``."""
        mask = layers.real_positions(lengths, items.shape[1])
        before = layers.masked_mean(items, mask)
        if self.attention is None:
            return Session(before, before)
        return Session(before, layers.masked_mean(self.attention(items, items, mask), mask))


class LastPosition(nn.Module):
    """The last position's output instead of eq. 8, as in the released code.

    Parameters
    ----------
    attention
        None leaves the last item itself.
    residual
        Add the last item to what attention mixes (ours): which item came last says much.
    """

    def __init__(self, attention: DirectAttention | None, residual: bool) -> None:
        super().__init__()
        self.attention = attention
        self.residual = residual

    def forward(self, items: Tensor, lengths: Tensor) -> Session:
        """Return the vectors of sessions of items ``(B, T, d)`` with lengths ``(B,)``."""
        mask = layers.real_positions(lengths, items.shape[1])
        before = layers.masked_mean(items, mask)
        last = layers.last_position(items, lengths)
        if self.attention is None:
            return Session(before, last)
        # Only the last position is read, so only it needs to ask.
        after = self.attention(last.unsqueeze(1), items, mask).squeeze(1)
        return Session(before, after + last if self.residual else after)
