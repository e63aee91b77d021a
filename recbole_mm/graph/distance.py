"""Items that stand near each other in sessions, and groups of items that look alike.

Ids are RecBole's internal ones: item 0 is padding, with an empty row and column in every graph. No
array of ``N x N`` elements is ever made (``N`` items).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch.nn.functional as F
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from recbole_mm.graph.cooccurrence import top_neighbours

if TYPE_CHECKING:
    from recbole_mm.data.sessions import Sessions

logger = logging.getLogger(__name__)

# Pairs of positions held at once: about 100 MB.
_BLOCK_PAIRS = 1 << 21
# K-means goes to mini-batches above this many items.
_MINIBATCH_FROM = 200_000


def distance_cooccurrence(
    sessions: Sessions,
    n_items: int,
    *,
    weight: str = "inv_distance",
    repeat: str = "sum",
    window: int = 0,
    directed: bool = False,
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
    repeat
        ``"sum"`` over all pairs of positions, or ``"min"``: per session and pair of items only the
        nearest.
    window
        Farthest distance that counts; 0 for any.
    directed
        Keep only what follows: ``K_ij`` holds items ``j`` that come after ``i``.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32 ``(n_items, n_items)``, symmetric unless directed, diagonal zero.
    """
    total = sp.csr_matrix((n_items, n_items), dtype=np.float64)
    for owner, left, right, distance in _pairs(sessions, window):
        if not directed:
            left, right = np.minimum(left, right), np.maximum(left, right)
        if repeat == "min":
            keep = _nearest_pairs(owner, left, right, distance)
            left, right, distance = left[keep], right[keep], distance[keep]
        value = 1.0 / distance if weight == "inv_distance" else np.ones(len(distance))
        total = total + sp.coo_matrix((value, (left, right)), total.shape).tocsr()
    matrix = total if directed else total + total.T
    matrix.sort_indices()
    return matrix.astype(np.float32)


def _pairs(
    sessions: Sessions, window: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield session, earlier item, later item and distance of all pairs, in blocks of sessions."""
    lengths = sessions.lengths()
    place = np.arange(len(sessions.items))
    after = np.repeat(sessions.offsets[1:], lengths) - place - 1
    if window:
        after = np.minimum(after, window)
    before = np.concatenate(([0], np.cumsum(after)))[sessions.offsets]
    cuts = np.flatnonzero(np.diff(before[:-1] // _BLOCK_PAIRS)) + 1
    bounds = sessions.offsets[np.concatenate(([0], cuts, [len(sessions)]))]
    owner = np.repeat(np.arange(len(sessions)), lengths)
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        counts = after[low:high]
        first = np.repeat(place[low:high], counts)
        distance = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        left, right = sessions.items[first], sessions.items[first + distance]
        keep = left != right
        yield owner[first[keep]], left[keep], right[keep], distance[keep]


def _nearest_pairs(
    owner: np.ndarray, left: np.ndarray, right: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    """Return the positions of the nearest pair per session and pair of items."""
    order = np.lexsort((distance, right, left, owner))
    keys = np.stack([owner, left, right])[:, order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    return order[first]


def prune(matrix: sp.csr_matrix, top: int = 0, min_weight: float = 0.0) -> sp.csr_matrix:
    """Drop weak pairs.

    Parameters
    ----------
    matrix
        ``(N, N)``.
    top
        Keep a pair that is among the ``top`` heaviest of either of its items, so that a symmetric
        matrix stays so; 0 keeps all.
    min_weight
        Keep pairs of at least this weight.
    """
    if min_weight > 0:
        matrix = matrix.multiply(matrix >= min_weight).tocsr()
    if top:
        ids, weights = top_neighbours(matrix, top)
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


def injected(features: np.ndarray, graph: sp.csr_matrix, strength: float) -> np.ndarray:
    """Add the vectors of co-occurring items: ``kappa K X + X`` (MDSRec eq. 3), float32 ``(N, d)``.

    An item without a vector is given one by the items it co-occurs with.
    """
    if strength == 0:
        return features
    return (features + np.float32(strength) * (graph @ features)).astype(np.float32)


def cluster_items(
    features: Tensor, present: Tensor, count: int, seed: int, on_sphere: bool = False
) -> np.ndarray:
    """Group the items by content with k-means (MDSRec eq. 10).

    Parameters
    ----------
    features
        ``(N, d)``.
    present
        bool ``(N,)``: items that take part; the others get no group.
    count
        Groups ``k``; fewer if there are fewer items.
    seed
        Seed of the first centres.
    on_sphere
        Scale the vectors to length 1 first.

    Returns
    -------
    numpy.ndarray
        int32 ``(N,)``: group from 0 on, no group empty; -1 for items without one.
    """
    labels = np.full(len(features), -1, dtype=np.int32)
    chosen = F.normalize(features[present], dim=1) if on_sphere else features[present]
    points = np.ascontiguousarray(chosen.numpy(), dtype=np.float32)
    if not len(points):
        return labels
    kind = MiniBatchKMeans if len(points) > _MINIBATCH_FROM else KMeans
    with warnings.catch_warnings():
        # Equal vectors make fewer groups than asked for; what is empty gets no number below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = kind(min(count, len(points)), n_init=3, random_state=seed).fit(points)
    groups, labels[present.numpy()] = np.unique(fitted.labels_, return_inverse=True)
    if len(groups) < count:
        logger.warning("k-means: %d groups instead of %d, no more items differ", len(groups), count)
    return labels
