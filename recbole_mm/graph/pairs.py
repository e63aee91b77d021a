"""Who met whom: an item's partners and strangers, looked up in sparse counts on any device.

Ids are RecBole's internal ones; item 0 is padding.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

# Rounds of redrawing before a negative is given up; an item linked to half of the catalogue
# survives all of them with probability 1e-6.
MAX_ROUNDS = 20


def top_neighbours(counts: sp.csr_matrix, n_neighbors: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each item's most frequent partners, itself excluded.

    Parameters
    ----------
    counts
        Symmetric counts ``(N, N)``.
    n_neighbors
        Length ``l`` of the lists.

    Returns
    -------
    tuple of numpy.ndarray
        Ids ``(N, l)`` int64 and their counts ``(N, l)`` float32, by descending count, ties by
        ascending id, filled up with id 0 and count 0.
    """
    entries = counts.tocoo()
    off = entries.row != entries.col
    row, col, value = entries.row[off], entries.col[off], entries.data[off]
    order = np.lexsort((col, -value, row))
    row, col, value = row[order], col[order], value[order]
    starts = np.searchsorted(row, np.arange(counts.shape[0]))
    rank = np.arange(len(row)) - starts[row]
    keep = rank < n_neighbors
    ids = np.zeros((counts.shape[0], n_neighbors), dtype=np.int64)
    weights = np.zeros((counts.shape[0], n_neighbors), dtype=np.float32)
    ids[row[keep], rank[keep]] = col[keep]
    weights[row[keep], rank[keep]] = value[keep]
    return ids, weights


class PairCounts(nn.Module):
    """Look up entries of a sparse matrix by (row, column), on any device.

    Parameters
    ----------
    matrix
        Any scipy sparse matrix.
    row_ids
        Number under which each row is asked for; the row's position when left out.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, matrix: sp.spmatrix, row_ids: np.ndarray | None = None) -> None:
        super().__init__()
        self.width = int(matrix.shape[1])
        entries = matrix.tocoo()
        rows = entries.row.astype(np.int64) if row_ids is None else row_ids[entries.row]
        keys = np.asarray(rows, dtype=np.int64) * self.width + entries.col
        order = np.argsort(keys, kind="stable")
        # The last key is larger than any asked for, so that a search never runs off the end.
        keys = np.append(keys[order], np.iinfo(np.int64).max)
        values = np.append(entries.data[order], 0).astype(np.float32)
        self.register_buffer("keys", torch.from_numpy(keys), persistent=False)
        self.register_buffer("values", torch.from_numpy(values), persistent=False)

    def forward(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the entries at ``(rows, columns)``, broadcast together; 0 where none is stored."""
        wanted = rows * self.width + columns
        found = torch.searchsorted(self.keys, wanted)
        return self.values[found] * (self.keys[found] == wanted)


def sample_strangers(
    anchors: Tensor,
    n_samples: int,
    pairs: PairCounts,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw items that never met the anchor, uniformly and with replacement.

    Parameters
    ----------
    anchors
        Item ids ``(M,)``.
    n_samples
        Draws ``l`` per anchor.
    pairs
        Look-up of the co-occurrence counts.
    generator
        Source of randomness; torch's global one for the anchors' device when left out, so that
        a resumed run draws the same items.

    Returns
    -------
    tuple of Tensor
        Ids ``(M, l)`` and a mask ``(M, l)``, False where no stranger was found in 20 rounds.
    """
    asked = anchors.repeat_interleave(n_samples)
    drawn = torch.zeros_like(asked)
    todo = torch.arange(len(asked), device=asked.device)
    for _ in range(MAX_ROUNDS):
        fresh = torch.randint(
            1, pairs.width, (len(todo),), generator=generator, device=asked.device
        )
        drawn[todo] = fresh
        met = (pairs(asked[todo], fresh) > 0) | (fresh == asked[todo])
        todo = todo[met]
        if not len(todo):
            break
    valid = torch.ones_like(asked, dtype=torch.bool)
    valid[todo] = False
    return drawn.view(-1, n_samples), valid.view(-1, n_samples)


def cooccurrence_flags(
    item_seq: Tensor,
    target: Tensor,
    pairs: PairCounts,
    session: Tensor | None = None,
    own: PairCounts | None = None,
) -> Tensor:
    """Tell whether the target ever met another item of the session.

    With ``session`` and ``own`` the session's own pairs are taken out first. Without that, every
    training row whose target is new to the session is flagged, because it is in its own graph.

    Parameters
    ----------
    item_seq
        Input items ``(B, T)``, padded with 0.
    target
        Target items ``(B,)``.
    pairs
        Look-up of the co-occurrence counts.
    session
        Session ids ``(B,)``.
    own
        Look-up of the session x item matrix the counts were made from.

    Returns
    -------
    Tensor
        bool ``(B,)``.
    """
    goal = target.unsqueeze(1)
    counts = pairs(item_seq, goal)
    if own is not None and session is not None:
        row = session.unsqueeze(1)
        counts = counts - own(row, item_seq) * own(row, goal)
    return ((counts > 0) & (item_seq != 0) & (item_seq != goal)).any(dim=1)
