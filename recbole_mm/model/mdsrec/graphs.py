"""The item tables of MDSRec's streams: injection of co-occurring items, sum of similar items.

All move with the model. Co-occurrences and features stay out of its state dict, because they are
there again in the next run; neighbours are part of it, so that a checkpoint does not depend on how
ties were broken.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recbole_mm.graph.distance import normalised
from recbole_mm.graph.propagation import Adjacency, csr_matrix, residual_propagate
from recbole_mm.model.layers import gather_rows

# Looking pairs up costs this many times what the product with the whole matrix pays for them.
_LOOKUP_COST = 8


class Injection(nn.Module):
    """``Z = kappa K W + W`` with a fixed sparse symmetric ``K`` (MDSRec eq. 3).

    Parameters
    ----------
    graph
        Co-occurrences ``(N, N)``.
    norm
        ``none``, ``row`` or ``sym``, see `recbole_mm.graph.distance.normalised`.
    strength
        ``kappa``.
    """

    crow: Tensor
    col: Tensor
    value: Tensor
    scale: Tensor

    def __init__(self, graph: sp.csr_matrix, norm: str, strength: float) -> None:
        super().__init__()
        self.strength = strength
        degree = np.asarray(graph.sum(axis=1), dtype=np.float32)
        scale = np.ones_like(degree)
        if norm == "row":
            # Rows are scaled afterwards, so that what is multiplied stays symmetric.
            np.divide(1.0, degree, where=degree > 0, out=scale)
        else:
            graph = normalised(graph, norm)
        arrays = (graph.indptr, graph.indices, graph.data.astype(np.float32), scale)
        for name, array in zip(("crow", "col", "value", "scale"), arrays, strict=True):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def forward(self, table: Tensor) -> Tensor:
        """Return ``Z`` ``(N, d)`` of ``W`` ``(N, d)``."""
        adjacency = Adjacency(csr_matrix(self.crow, self.col, self.value), self.scale)
        return residual_propagate(table, adjacency, 1, keep=1.0, take=self.strength)

    def of(self, table: Tensor, items: Tensor) -> Tensor:
        """Return the rows of ``Z`` that belong to ``items`` ``(M,)``, without making the others."""
        start, stop = self.crow[items], self.crow[items + 1]
        counts = stop - start
        offsets = counts.cumsum(0) - counts
        pairs = torch.arange(int(counts.sum()), device=items.device)
        pairs = pairs + (start - offsets).repeat_interleave(counts)
        around = F.embedding_bag(
            self.col[pairs].long(),
            table,
            offsets,
            mode="sum",
            per_sample_weights=self.value[pairs],
        )
        return gather_rows(table, items) + self.strength * (around * self.scale[items])

    def at(self, table: Tensor, item_seq: Tensor) -> Tensor:
        """Return the rows of ``Z`` at the positions of sessions: ``(B, T)`` to ``(B, T, d)``.

        Only the batch's items are injected where that is the cheaper way.
        """
        items, where = torch.unique(item_seq, return_inverse=True)
        if self._pays(items):
            return F.embedding(where, self.of(table, items))
        return gather_rows(self(table), item_seq)

    def _pays(self, items: Tensor) -> bool:
        """Tell whether to look up the rows of these items instead of making all."""
        pairs = int((self.crow[items + 1] - self.crow[items]).sum())
        return pairs * _LOOKUP_COST < len(self.col)


class NeighbourSum(nn.Module):
    """``G_i``: sum of the ID vectors of item ``i``'s neighbours by content (MDSRec eq. 6).

    Parameters
    ----------
    neighbours
        Ids ``(N, H)``, filled up with 0; ``H = 0`` makes ``G = W``.
    """

    neighbours: Tensor

    def __init__(self, neighbours: NDArray[np.int32]) -> None:
        super().__init__()
        self.register_buffer("neighbours", torch.from_numpy(neighbours.astype(np.int32)))

    def forward(self, table: Tensor) -> Tensor:
        """Return ``G`` ``(N, d)`` of ``W`` ``(N, d)``; row 0 is zero."""
        if self.neighbours.shape[1] == 0:
            return torch.cat([torch.zeros_like(table[:1]), table[1:]])
        # Ids are kept as int32; a bag of them works as it is.
        return F.embedding_bag(self.neighbours, table, mode="sum", padding_idx=0)


class FeatureMap(nn.Module):
    """``G = X M``: a learned map of the features in the place of a graph ("w/o MRGC").

    The paper names no map; without one the features ``X`` ``(N, d_m)`` do not fit the width.
    """

    features: Tensor

    def __init__(self, features: Tensor, size: int) -> None:
        super().__init__()
        self.register_buffer("features", features.float(), persistent=False)
        self.project = nn.Linear(features.shape[1], size, bias=False)

    def forward(self, table: Tensor) -> Tensor:
        """Return ``G`` ``(N, d)``; the ID vectors take no part in it."""
        mapped: Tensor = self.project(self.features)
        return mapped
