"""Items that stand near each other in sessions: co-occurrence by distance.

Ids are RecBole's internal ones: item 0 is padding, with an empty row and column in every graph. No
array of ``N x N`` elements is ever made (``N`` items).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from recbole_mm.graph.pairs import top_neighbours

if TYPE_CHECKING:
    from recbole_mm.data.sessions import Sessions

# Pairs of positions held at once: about 100 MB.
_BLOCK_PAIRS = 1 << 21


def distance_cooccurrence(
    sessions: Sessions, n_items: int, *, weight: str = "inv_distance", window: int = 0
) -> sp.csr_matrix:
    """Sum the nearness of items over all pairs of positions (MDSRec eq. 1-2).

    ``K_ij = sum 1/|q - p|`` over sessions and positions ``p, q`` that hold ``i`` and ``j``;
    ``i != j``. Only training sessions make an honest graph.

    Parameters
    ----------
    sessions
        Sessions in CSR form.
    n_items
        Number of items, padding included.
    weight
        ``"inv_distance"``, or ``"count"`` for 1 per pair.
    window
        Farthest distance that counts; 0 for any.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32 ``(n_items, n_items)``, symmetric, diagonal zero.
    """
    total = sp.csr_matrix((n_items, n_items), dtype=np.float64)
    for left, right, distance in _pairs(sessions, window):
        left, right = np.minimum(left, right), np.maximum(left, right)
        value = 1.0 / distance if weight == "inv_distance" else np.ones(len(distance))
        total = total + sp.coo_matrix((value, (left, right)), total.shape).tocsr()
    matrix = total + total.T
    matrix.sort_indices()
    return matrix.astype(np.float32)


def directed_cooccurrence(
    sessions: Sessions, n_items: int, *, weight: str = "inv_distance", window: int = 0
) -> sp.csr_matrix:
    """Sum the nearness of items to those that came before them, like `distance_cooccurrence`.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32 ``(n_items, n_items)``, row the earlier item, diagonal zero.
    """
    total = sp.csr_matrix((n_items, n_items), dtype=np.float64)
    for earlier, later, distance in _pairs(sessions, window):
        value = 1.0 / distance if weight == "inv_distance" else np.ones(len(distance))
        total = total + sp.coo_matrix((value, (earlier, later)), total.shape).tocsr()
    total.sort_indices()
    return total.astype(np.float32)


def _pairs(sessions: Sessions, window: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield earlier item, later item and distance of all pairs, in blocks of sessions."""
    lengths = sessions.lengths()
    place = np.arange(len(sessions.items))
    after = np.repeat(sessions.offsets[1:], lengths) - place - 1
    if window:
        after = np.minimum(after, window)
    before = np.concatenate(([0], np.cumsum(after)))[sessions.offsets]
    cuts = np.flatnonzero(np.diff(before[:-1] // _BLOCK_PAIRS)) + 1
    bounds = sessions.offsets[np.concatenate(([0], cuts, [len(sessions)]))]
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        counts = after[low:high]
        first = np.repeat(place[low:high], counts)
        distance = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        left, right = sessions.items[first], sessions.items[first + distance]
        keep = left != right
        yield left[keep], right[keep], distance[keep]


def heaviest(matrix: sp.csr_matrix, top: int) -> sp.csr_matrix:
    """Keep the ``top`` heaviest entries of each row, ties by ascending column; 0 keeps all."""
    if top == 0:
        return matrix
    entries = matrix.tocoo()
    order = np.lexsort((entries.col, -entries.data, entries.row))
    row, col, value = entries.row[order], entries.col[order], entries.data[order]
    keep = np.arange(len(row)) - np.searchsorted(row, row) < top
    return sp.csr_matrix((value[keep], (row[keep], col[keep])), matrix.shape)


def prune(matrix: sp.csr_matrix, top: int) -> sp.csr_matrix:
    """Keep the heaviest pairs of a symmetric matrix ``(N, N)``.

    A pair stays that is among the ``top`` heaviest of either of its items, so that the matrix
    stays symmetric; ``top = 0`` keeps all.
    """
    if top == 0:
        return matrix
    ids, _ = top_neighbours(matrix, top)
    rows = np.repeat(np.arange(len(ids)), top)[ids.ravel() > 0]
    marks = (np.ones(len(rows), np.float32), (rows, ids[ids > 0]))
    mark = sp.csr_matrix(marks, matrix.shape)
    matrix = matrix.multiply(mark.maximum(mark.T)).tocsr()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix.astype(np.float32)


def normalised(matrix: sp.csr_matrix, how: str) -> sp.csr_matrix:
    """Scale a graph: ``none``; ``row``: rows sum to 1; ``sym``: ``D^-1/2 K D^-1/2``.

    Empty rows stay empty.
    """
    if how == "none":
        return matrix
    power = -1.0 if how == "row" else -0.5
    left = np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()
    right = np.asarray(matrix.sum(axis=0), dtype=np.float64).ravel()
    scale_left, scale_right = (np.power(x, power, where=x > 0, out=0 * x) for x in (left, right))
    scaled = sp.diags(scale_left) @ matrix
    scaled = scaled if how == "row" else scaled @ sp.diags(scale_right)
    return scaled.tocsr().astype(np.float32)
