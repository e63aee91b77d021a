"""Items that look alike: nearest neighbours by the cosine of their vectors, and lists of them.

Neighbours are found for a few hundred items at a time; no array of ``N x N`` elements is ever made
(``N`` items). Item 0 is padding and nobody's neighbour.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_mm.errors import ConfigError

logger = logging.getLogger(__name__)

# Rows of cosines held at once, and the most bytes they may take.
_TILE_ROWS, _TILE_BYTES = 256, 64 << 20
# Cosines closer than this count as equal; the lower id then comes first.
_RESOLUTION = 1e-6
# From this many items on, the exact search takes ten minutes and more, hours for a million.
APPROXIMATE_FROM = 200_000
# Approximate search: lists looked at per query, items that place a list, queries at once.
_PROBES, _POINTS_PER_LIST, _QUERIES = 32, 64, 16_384

# First position of a tile of rows; then candidates as row in the tile, item, cosine.
Found = Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]


def nearest_items(
    vectors: Tensor, count: int, rows: Tensor | None = None, backend: str = "auto"
) -> np.ndarray:
    """Return the items of the largest cosine, the item itself left out (MDSRec eq. 4-5).

    Parameters
    ----------
    vectors
        ``(N, d)``; items whose vector is zero have no neighbours and are nobody's.
    count
        Neighbours ``n`` per item.
    rows
        Ask for these items only ``(R,)``; all of them when left out.
    backend
        ``"exact"``; ``"faiss"``: approximate, for large catalogues; ``"auto"``: faiss from 200,000
        items on where it is installed.

    Returns
    -------
    numpy.ndarray
        int32 ``(R, n)`` by descending cosine, equal ones (to 1e-6) by ascending id, filled up with
        0.

    Raises
    ------
    ConfigError
        If faiss is asked for and not installed.
    """
    table = F.normalize(vectors.to(torch.float32), dim=1)
    rows = torch.arange(len(table), device=table.device) if rows is None else rows
    found = np.zeros((len(rows), count), dtype=np.int32)
    usable = (table != 0).any(dim=1)
    usable[0] = False
    if count == 0 or not bool(usable.any()):
        return found
    search = _approximate if uses_faiss(backend, len(table)) else _exact
    wanted = torch.nonzero(usable[rows]).flatten().cpu().numpy()
    for place, row, item, cosine in search(table, usable, rows[wanted], count):
        order = np.lexsort((item, -np.round(cosine / _RESOLUTION), row))
        row, item = row[order], item[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        keep = rank < count
        found[wanted[place + row[keep]], rank[keep]] = item[keep]
    return found


def _exact(table: Tensor, usable: Tensor, rows: Tensor, count: int) -> Found:
    """Yield, tile by tile, its first position and candidates as (row in tile, item, cosine)."""
    size = max(1, min(_TILE_ROWS, len(table) // 4, _TILE_BYTES // (4 * len(table))))
    count = min(count, len(table) - 1)
    for place in range(0, len(rows), size):
        tile = rows[place : place + size]
        cosines = (table[tile] @ table.T).masked_fill_(~usable, -torch.inf)
        cosines[torch.arange(len(tile)), tile] = -torch.inf
        # All that is as good as the last one, lest ties be cut at random.
        last = cosines.topk(count, dim=1).values[:, -1:] - 2 * _RESOLUTION
        row, item = torch.nonzero((cosines >= last) & (cosines > -torch.inf), as_tuple=True)
        cosine = cosines[row, item].double()
        yield place, row.cpu().numpy(), item.cpu().numpy(), cosine.cpu().numpy()


def uses_faiss(backend: str, n_items: int) -> bool:
    """Tell whether a search over so many items is the approximate one; see `nearest_items`."""
    if backend == "exact" or (backend == "auto" and n_items < APPROXIMATE_FROM):
        return False
    try:
        importlib.import_module("faiss")
    except ImportError as error:
        if backend == "faiss":
            raise ConfigError(
                "knn_backend=faiss needs the package faiss-cpu, which is not installed. Install "
                "it with `pip install 'recbole_mm[ann]'`, or choose --knn_backend=exact."
            ) from error
        logger.warning(
            "exact neighbours of %d items take long; `pip install 'recbole_mm[ann]'` brings an "
            "approximate search",
            n_items,
        )
        return False
    return True


def _approximate(table: Tensor, usable: Tensor, rows: Tensor, count: int) -> Found:
    """Yield candidates like `_exact`, found in the nearest of some inverted lists."""
    faiss = importlib.import_module("faiss")
    everything, wanted = table.cpu().numpy(), rows.cpu().numpy()
    ids = torch.nonzero(usable).flatten().cpu().numpy()
    base = everything[ids]
    lists = max(1, int(2 * len(ids) ** 0.5))
    coarse = faiss.IndexFlatIP(base.shape[1])
    index = faiss.IndexIVFFlat(coarse, base.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    # A quarter of the default: where the lists lie need not be known better than that.
    index.cp.max_points_per_centroid = _POINTS_PER_LIST
    index.train(base)
    index.add(base)
    index.nprobe = min(_PROBES, lists)
    for start in range(0, len(wanted), _QUERIES):
        asking = wanted[start : start + _QUERIES]
        cosine, place = index.search(everything[asking], count + 1)
        row = np.repeat(np.arange(len(asking)), count + 1)
        item, there = ids[place.ravel()], place.ravel() >= 0
        there &= item != asking[row]
        yield start, row[there], item[there], cosine.ravel()[there].astype(np.float64)


def neighbour_table(others: np.ndarray, count: int) -> np.ndarray:
    """Put the item itself, whose cosine is 1, before its neighbours.

    Parameters
    ----------
    others
        Ids ``(N, >= H - 1)`` by falling likeness, without the item itself, filled up with 0.
    count
        Neighbours ``H``, at least 1.

    Returns
    -------
    numpy.ndarray
        int32 ``(N, H)``; the row of padding is empty.
    """
    own = np.arange(len(others))[:, None]
    return np.concatenate([own, others[:, : count - 1] * (own > 0)], axis=1).astype(np.int32)


def overlap(left: np.ndarray, right: np.ndarray) -> float:
    """Return the mean share of neighbours that two lists ``(R, n)`` have in common.

    Rows without neighbours in either are left out; 0 fills a list up. NaN if no row is left.
    """
    here, there = left > 0, right > 0
    both = here.any(axis=1) & there.any(axis=1)
    same = ((left[:, :, None] == right[:, None, :]) & here[:, :, None]).any(axis=2).sum(axis=1)
    longer = np.maximum(here.sum(axis=1), there.sum(axis=1))
    return float((same[both] / longer[both]).mean()) if both.any() else float("nan")
