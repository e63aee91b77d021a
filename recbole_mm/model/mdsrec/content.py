"""What an item's content decides: its neighbours and its group, computed once for all.

Both are kept on disk beside the feature files under a hash of all they are made of. Ids are
RecBole's internal ones; item 0 is padding.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from recbole_mm.graph.derived import Arrays, derived, fingerprint
from recbole_mm.graph.nearest import nearest_items, neighbour_table, uses_faiss

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Ids = NDArray[np.int32]

# So many neighbours are kept on disk, that other values of n_neighbors find theirs there.
_KEPT, _KEPT_UP_TO = 50, 100_000
# K-means goes to mini-batches above this many items.
_MINIBATCH_FROM = 200_000


@dataclass(frozen=True)
class Shelf:
    """Where the arrays of one modality are kept for the next run.

    Attributes
    ----------
    folder
        None keeps nothing.
    name
        How file names begin.
    """

    folder: Path | None
    name: str

    def get(
        self,
        what: str,
        made_of: Arrays,
        settings: Mapping[str, int],
        compute: Callable[[], Arrays],
        fits: Callable[[Arrays], bool] = lambda arrays: True,
    ) -> Arrays:
        """Return an earlier result under all that it is made of, or compute and keep it."""
        key = fingerprint(made_of, settings)
        return derived(self.folder, f"{self.name}.{what}", key, compute, fits)


def injected(features: Floats, graph: sp.csr_matrix, strength: float) -> Floats:
    """Add the vectors of co-occurring items: ``kappa K X + X`` (MDSRec eq. 3), float32 ``(N, d)``.

    An item without a vector is given one by the items it co-occurs with.
    """
    if strength == 0:
        return features
    total: Floats = (features + np.float32(strength) * (graph @ features)).astype(np.float32)
    return total


def neighbours(vectors: Floats, count: int, backend: str, shelf: Shelf) -> Ids:
    """Return the ``H`` items of the largest cosine, the item itself first (MDSRec eq. 4-5).

    Parameters
    ----------
    vectors
        ``(N, d)``.
    count
        ``H``; 0 gives empty lists.
    backend
        See `recbole_mm.graph.nearest.nearest_items`.
    shelf
        Where they are kept. A hash of the vectors stands for sessions and features.

    Returns
    -------
    numpy.ndarray
        int32 ``(N, H)``, filled up with 0.
    """
    if count == 0:
        return np.zeros((len(vectors), 0), np.int32)
    others = count - 1
    more = max(others, _KEPT) if len(vectors) <= _KEPT_UP_TO else others
    found = shelf.get(
        "neighbours",
        {"vectors": vectors},
        {"faiss": uses_faiss(backend, len(vectors))},
        lambda: {"ids": nearest_items(torch.from_numpy(vectors), more, backend=backend)},
        lambda kept: kept["ids"].shape[1] >= others,
    )
    return neighbour_table(found["ids"], count)


def with_new_neighbours(kept: Ids, vectors: Floats) -> Ids:
    """Return a longer table of neighbours: new items, behind the known ones, get theirs.

    A new item's neighbours are known items; lists of known items stay as they were trained.

    Parameters
    ----------
    kept
        int32 ``(N, H)``.
    vectors
        ``(N + M, d)``.
    """
    known, count = kept.shape
    new = np.arange(known, len(vectors), dtype=np.int32)
    lists = np.zeros((len(new), count), dtype=np.int32)
    lists[:, :1] = new[:, None]
    if count > 1:
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.where(length > 0, length, 1)
        cosines = unit[new] @ unit[1:known].T
        near = np.argsort(-cosines, axis=1, kind="stable")[:, : count - 1] + 1
        # An item without vector is like no other.
        near[length[new, 0] == 0] = 0
        lists[:, 1 : 1 + near.shape[1]] = near
    return np.concatenate([kept, lists])


def with_new_members(kept: Ids, n_items: int) -> Ids:
    """Return the groups of more items: new ones have none, so that centres stay as trained."""
    return np.concatenate([kept, np.full(n_items - len(kept), -1, dtype=np.int32)])


def groups(features: Tensor, present: Tensor, count: int, seed: int, shelf: Shelf) -> Ids:
    """Return the group of each item; see `cluster_items`, whose result is kept."""
    return shelf.get(
        "groups",
        {"points": features.numpy(), "present": present.numpy()},
        {"count": count, "seed": seed},
        lambda: {"labels": cluster_items(features, present, count, seed)},
    )["labels"]


def cluster_items(features: Tensor, present: Tensor, count: int, seed: int) -> Ids:
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

    Returns
    -------
    numpy.ndarray
        int32 ``(N,)``: group from 0 on, no group empty; -1 for items without one.
    """
    labels = np.full(len(features), -1, dtype=np.int32)
    points = np.ascontiguousarray(features[present].numpy(), dtype=np.float32)
    if not len(points):
        return labels
    kind = MiniBatchKMeans if len(points) > _MINIBATCH_FROM else KMeans
    with warnings.catch_warnings():
        # Equal vectors make fewer groups than asked for; what is empty gets no number below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = kind(min(count, len(points)), n_init=3, random_state=seed).fit(points)
    found, labels[present.numpy()] = np.unique(fitted.labels_, return_inverse=True)
    if len(found) < count:
        logger.warning("k-means: %d groups instead of %d, no more items differ", len(found), count)
    return labels
