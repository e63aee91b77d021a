"""MISSRec's interests: groups of the adapted vectors of training items, found anew each epoch.

Symbols: ``P`` points, ``K`` interests, ``d`` width, ``B`` sessions, ``Q`` interests of a session.
"""

from __future__ import annotations

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import Tensor

# Cells of a table of points x interests that are held at once, 4 MiB in float32.
CELLS = 2**20
# Rounds of k-means, as many as in the released code.
ROUNDS = 5


def find_interests(points: Tensor, count: int, seed: int) -> Tensor:
    """Return the centres of k-means.

    It starts at points drawn without replacement.

    Parameters
    ----------
    points
        ``(P, d)``.
    count
        ``K``, at most ``P``.
    seed
        Of the draw.

    Returns
    -------
    Tensor
        ``(K, d)``.
    """
    drawn = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:count]
    known = points.cpu().numpy()
    fit = KMeans(count, init=known[drawn.numpy()], n_init=1, max_iter=ROUNDS, tol=0.0)
    # Several threads add up in the order in which they end: not the same bits each time.
    with warnings.catch_warnings(), threadpool_limits(1):
        # Five rounds need not settle, and equal points make fewer groups than centres.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = fit.fit(known).cluster_centers_
    return torch.from_numpy(found).to(points)


def nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Return the centre ``(P,)`` of the least Euclidean distance to each point, from 0."""
    # |p - c|^2 = |p|^2 - 2 (p c - |c|^2 / 2), and |p| is the same for all centres.
    half = centres.square().sum(dim=1) / 2
    chunks = torch.split(points, max(1, CELLS // len(centres)))
    return torch.cat([(chunk @ centres.T - half).argmax(dim=1) for chunk in chunks])


def distinct(ids: Tensor) -> Tensor:
    """Return each row's distinct numbers above 0, the largest first, filled up with 0.

    Parameters
    ----------
    ids
        int64 ``(B, n)``, at least 0.

    Returns
    -------
    Tensor
        ``(B, Q)`` with ``Q`` the largest count of a row, at least 1.
    """
    ordered = ids.sort(dim=1, descending=True).values
    again = ordered[:, 1:] == ordered[:, :-1]
    once = torch.cat([ordered[:, :1], ordered[:, 1:].masked_fill(again, 0)], dim=1)
    longest = max(1, int((once > 0).sum(dim=1).max()))
    return once.sort(dim=1, descending=True).values[:, :longest]
