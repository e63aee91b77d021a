"""The histories of a batch as weights of items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from torch import Tensor

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class History:
    """The histories of ``B`` rows, padded to ``T`` items.

    Attributes
    ----------
    items
        ``(B, T)`` int64 item ids, the oldest first.
    inside
        ``(B, T)`` bool, False for padding.
    age
        ``(B, T)`` int64: 0 for the last item, 1 for the one before.
    n_items
        Number of items ``N``, padding included.
    """

    items: Ints
    inside: Bools
    age: Ints
    n_items: int

    @classmethod
    def of(cls, item_seq: Tensor, lengths: Tensor, n_items: int) -> History:
        """Read item ids ``(B, T)`` and lengths ``(B,)``."""
        items, length = item_seq.cpu().numpy(), lengths.cpu().numpy()[:, None]
        items = items[:, : max(int(length.max(initial=0)), 1)]
        column = np.arange(items.shape[1])
        return cls(items, (column < length) & (items > 0), length - 1 - column, n_items)

    def decayed(self, decay: float) -> Floats:
        """Return ``exp(-age / decay)`` ``(B, T)``; with a decay of 0 the last item alone."""
        if decay == 0:
            return np.asarray(self.age == 0, dtype=np.float32)
        return np.asarray(np.exp(-np.maximum(self.age, 0) / decay), dtype=np.float32)

    def linear(self) -> Floats:
        """Return weights ``(B, T)`` that fall linearly from 1, the last item's, to 1/t."""
        length = self.inside.sum(axis=1, keepdims=True)
        return np.asarray(1.0 - self.age / np.maximum(length, 1), dtype=np.float32)

    def latest(self) -> Bools:
        """Tell ``(B, T)`` which positions hold an item that does not come again."""
        again = self.items[:, :, None] == self.items[:, None, :]
        column = np.arange(self.items.shape[1])
        again &= self.inside[:, None, :] & (column > column[:, None])
        return np.asarray(self.inside & ~again.any(axis=2))

    def matrix(self, weights: Floats | Bools, where: Bools | None = None) -> sp.csr_matrix:
        """Return weights ``(B, T)`` as float32 ``(B, N)``; an item that repeats has the sum.

        Parameters
        ----------
        weights
            One per position.
        where
            ``(B, T)`` positions that count; all but padding when left out.
        """
        kept = self.inside if where is None else where
        offsets = np.concatenate(([0], np.cumsum(kept.sum(axis=1))))
        shape = (len(self.items), self.n_items)
        return sp.csr_matrix((weights[kept].astype(np.float32), self.items[kept], offsets), shape)
