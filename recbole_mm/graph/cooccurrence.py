"""Item graphs made from sessions: which items were seen together, and how often.

Everything is sparse: ``nnz`` stored pairs take ``O(nnz)`` memory, and no dense ``N x N`` array is
ever made (``N`` items). Ids are RecBole's internal ones: item 0 is padding and
has an empty row and column in every graph.

Which sessions go in decides whether a graph is honest: pass ``dataset.train_sessions``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from recbole_mm.errors import ConfigError
from recbole_mm.graph.pairs import PairCounts
from recbole_mm.graph.propagation import Adjacency, csr_matrix, inverse_degree

if TYPE_CHECKING:
    from recbole_mm.data.sessions import Sessions


def session_item_matrix(sessions: Sessions, n_items: int, count: str = "set") -> sp.csr_matrix:
    """Return the session x item matrix ``B`` ``(S, n_items)``, float32.

    Parameters
    ----------
    sessions
        Sessions in CSR form (``offsets``, ``items``).
    n_items
        Number of items, padding included.
    count
        ``"set"``: 1 where the session holds the item. ``"mult"``: how many times it does.

    Raises
    ------
    ConfigError
        If ``count`` is neither.
    """
    if count not in ("set", "mult"):
        raise ConfigError(f"graph count is {count!r}; expected 'set' or 'mult'")
    matrix = sessions.matrix(n_items)
    if count == "set":
        matrix.data[:] = 1.0
    return matrix


def cooccurrence(
    sessions: Sessions, n_items: int, count: str = "set", diagonal: bool = False
) -> sp.csr_matrix:
    """Count how often two items share a session: ``C = B^T B``, symmetric, float32.

    Eq. 6 of SRIM is ``count="set", diagonal=True``: ``C_ab`` sessions hold both ``a`` and ``b``.
    ``count="mult"`` counts pairs of positions, ``n_a * n_b`` per session.

    Parameters
    ----------
    sessions
        The sessions to count; only training sessions make an honest graph.
    n_items
        Number of items, padding included.
    count
        ``"set"`` or ``"mult"``.
    diagonal
        Keep the pairs of an item with itself.

    Returns
    -------
    scipy.sparse.csr_matrix
        ``(n_items, n_items)`` with sorted indices and no stored zeros.
    """
    matrix = session_item_matrix(sessions, n_items, count)
    counts = (matrix.T @ matrix).tocsr()
    if not diagonal:
        counts = counts - sp.diags(counts.diagonal(), format="csr", dtype=np.float32)
    counts.eliminate_zeros()
    counts.sort_indices()
    return counts.astype(np.float32)


class ItemGraph(nn.Module):
    """A co-occurrence graph that moves with the model and stays out of its state dict.

    Parameters
    ----------
    sessions
        The sessions to count.
    n_items
        Number of items, padding included.
    count, diagonal
        See `cooccurrence`.
    counts
        What `cooccurrence` gives, where that is known already; None counts.
    """

    crow: Tensor
    col: Tensor
    value: Tensor
    degree: Tensor

    def __init__(
        self,
        sessions: Sessions,
        n_items: int,
        count: str = "set",
        diagonal: bool = False,
        counts: sp.csr_matrix | None = None,
    ) -> None:
        super().__init__()
        self._pairs: PairCounts | None = None
        self.sessions = np.asarray(sessions.session, dtype=np.int64)
        self.held = session_item_matrix(sessions, n_items, count)
        self.counts = cooccurrence(sessions, n_items, count, diagonal) if counts is None else counts
        degree = np.asarray(self.counts.sum(axis=1), dtype=np.float32)
        for name, array in (
            ("crow", self.counts.indptr),
            ("col", self.counts.indices),
            ("value", self.counts.data),
            ("degree", degree),
        ):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def pairs(self) -> PairCounts:
        """Return a look-up of the counts, the same one at every call."""
        if self._pairs is None:
            self._pairs = PairCounts(self.counts)
        return self._pairs

    def own(self) -> PairCounts:
        """Return a look-up of what each session holds, by session id."""
        return PairCounts(self.held, self.sessions)

    def adjacency(self) -> Adjacency:
        """Return the graph, row-normalised."""
        return Adjacency(csr_matrix(self.crow, self.col, self.value), inverse_degree(self.degree))
