"""The two graphs of MDSRec as modules: injection of co-occurring items, sum of similar items.

Both move with the model. Co-occurrences stay out of its state dict, because they are made again
from the sessions; neighbours and groups are part of it, so that a checkpoint does not depend on how
ties were broken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_mm.graph import distance as content_graphs
from recbole_mm.graph import nearest
from recbole_mm.graph.derived import Arrays, derived, fingerprint
from recbole_mm.graph.propagation import Adjacency, csr_matrix, residual_propagate
from recbole_mm.model.layers import gather_rows

# Looking pairs up costs this many times what the product with the whole matrix pays for them.
_LOOKUP_COST = 8
# So many neighbours are kept on disk, that other values of n_neighbors find theirs there.
_KEPT, _KEPT_UP_TO = 50, 100_000


def cooccurrences(config: Mapping[str, Any], sessions: Any, n_items: int) -> sp.csr_matrix:
    """Return the co-occurrences of the training sessions, before normalisation."""
    matrix = content_graphs.distance_cooccurrence(
        sessions,
        n_items,
        weight=config["cooc_weight"],
        repeat=config["cooc_repeat"],
        window=int(config["cooc_window"]),
        directed=bool(config["cooc_directed"]),
    )
    top, least = int(config["cooc_topk"]), float(config["cooc_min_weight"])
    return content_graphs.prune(matrix, top, least)


class Injection(nn.Module):
    """``Z = kappa K W + W`` with a fixed sparse ``K`` (MDSRec eq. 3).

    Parameters
    ----------
    graph
        Co-occurrences ``(N, N)``.
    norm
        ``none``, ``row`` or ``sym``, see `content_graphs.normalised`.
    strength
        ``kappa``.
    directed
        The graph is not symmetric.
    dropout
        Share of the pairs dropped in a training step; the others are scaled up.
    lazy
        In training: ``always`` only the rows of the batch, ``never``, or ``auto``: where it pays.
    """

    crow: Tensor
    col: Tensor
    value: Tensor
    scale: Tensor

    def __init__(
        self,
        graph: sp.csr_matrix,
        norm: str,
        strength: float,
        *,
        directed: bool = False,
        dropout: float = 0.0,
        lazy: str = "auto",
    ) -> None:
        super().__init__()
        self.strength, self.directed, self.dropout, self.lazy = strength, directed, dropout, lazy
        degree = np.asarray(graph.sum(axis=1), dtype=np.float32)
        scale = np.ones_like(degree)
        if norm == "row":
            # Rows are scaled afterwards, so that what is multiplied stays symmetric.
            np.divide(1.0, degree, where=degree > 0, out=scale)
        elif norm == "sym":
            graph = content_graphs.normalised(graph, "sym")
        arrays = (graph.indptr, graph.indices, graph.data.astype(np.float32), scale)
        for name, array in zip(("crow", "col", "value", "scale"), arrays, strict=True):
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    def forward(self, table: Tensor) -> Tensor:
        """Return ``Z`` ``(N, d)`` of ``W`` ``(N, d)``."""
        if self.directed or (self.training and self.dropout):
            return self.of(table, torch.arange(len(table), device=table.device))
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
            per_sample_weights=F.dropout(self.value[pairs], self.dropout, self.training),
        )
        return gather_rows(table, items) + self.strength * (around * self.scale[items])

    def at(self, table: Tensor, item_seq: Tensor) -> Tensor:
        """Return the rows of ``Z`` at the positions of sessions: ``(B, T)`` to ``(B, T, d)``."""
        items, where = torch.unique(item_seq, return_inverse=True)
        if self._pays(items):
            return F.embedding(where, self.of(table, items))
        return gather_rows(self(table), item_seq)

    def _pays(self, items: Tensor) -> bool:
        """Tell whether to look up the rows of these items instead of making all."""
        if self.lazy != "auto":
            return self.lazy == "always"
        pairs = int((self.crow[items + 1] - self.crow[items]).sum())
        return pairs * _LOOKUP_COST < len(self.col)


class NeighbourSum(nn.Module):
    """``G_i``: sum of the ID vectors of item ``i``'s neighbours by content (MDSRec eq. 6).

    Parameters
    ----------
    neighbours
        Ids ``(N, H)``, filled up with 0; ``H = 0`` makes ``G = W``.
    how
        ``sum``; ``mean``; ``sym``: a pair counts ``1/sqrt(a b)`` if the item has ``a`` neighbours
        and the neighbour is one of ``b`` items.
    hops
        How many times the sum is taken.
    """

    neighbours: Tensor

    def __init__(self, neighbours: np.ndarray, how: str = "sum", hops: int = 1) -> None:
        super().__init__()
        self.how, self.hops = how, hops
        self.register_buffer("neighbours", torch.from_numpy(neighbours.astype(np.int32)))

    def forward(self, table: Tensor) -> Tensor:
        """Return ``G`` ``(N, d)`` of ``W`` ``(N, d)``; row 0 is zero."""
        if self.neighbours.shape[1] == 0:
            return torch.cat([torch.zeros_like(table[:1]), table[1:]])
        # Ids are kept as int32; a bag of them works as it is.
        weight = self._pair_weight(table) if self.how == "sym" else None
        for _ in range(self.hops):
            table = F.embedding_bag(
                self.neighbours, table, mode="sum", per_sample_weights=weight, padding_idx=0
            )
            if self.how == "mean":
                table = table / self._counts().clamp_min(1).unsqueeze(1)
        return table

    def _counts(self) -> Tensor:
        """Return the number of neighbours per item."""
        return (self.neighbours > 0).sum(dim=1)

    def _pair_weight(self, table: Tensor) -> Tensor:
        """Return the weight of each pair ``(N, H)``."""
        flat = self.neighbours.flatten().long()
        known = torch.bincount(flat, minlength=len(table)).clamp_min(1)
        both = self._counts().clamp_min(1).unsqueeze(1) * known[self.neighbours.long()]
        return both.to(table.dtype).rsqrt()


class CenterPool(nn.Module):
    """First vectors of the interest centres: items of a group together (MDSRec eq. 11).

    Parameters
    ----------
    labels
        Group of each item ``(N,)``, -1 for none; groups are numbered without gaps.
    how
        ``mean`` or ``sum``.
    """

    labels: Tensor

    def __init__(self, labels: np.ndarray, how: str = "mean") -> None:
        super().__init__()
        self.how = how
        self.register_buffer("labels", torch.from_numpy(labels.astype(np.int32)))

    def forward(self, table: Tensor) -> Tensor:
        """Return one vector per group ``(k, d)`` of item vectors ``(N, d)``."""
        ordered, order = torch.sort(self.labels, stable=True)
        sizes = torch.bincount(ordered[ordered >= 0].long())
        members = order[len(order) - int(sizes.sum()) :]
        return F.embedding_bag(members, table, sizes.cumsum(0) - sizes, mode=self.how)


class ContentSource:
    """One modality's features on the way to neighbours and groups.

    Parameters
    ----------
    config
        Settings of the model.
    name
        The modality.
    features, present
        Vectors ``(N, d_m)`` and which items have one of their own ``(N,)``.
    graph
        Normalised co-occurrences for the features, or None for none.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        name: str,
        features: Tensor,
        present: Tensor,
        graph: sp.csr_matrix | None,
    ) -> None:
        self.config, self.name = config, name
        self.features, self.present = features, present
        raw = features.to(torch.float32).numpy()
        if config["feat_center"]:
            filled = (raw != 0).any(axis=1)
            raw = np.where(filled[:, None], raw - raw[present.numpy()].mean(axis=0), 0)
            raw = raw.astype(np.float32)
        self.raw = raw
        strength = float(config["kappa_modal"])
        self.vectors = raw if graph is None else content_graphs.injected(raw, graph, strength)
        known = "feature_path" in config and config["graph_cache"]
        self.folder = Path(config["feature_path"]) if known else None

    def neighbours(self) -> np.ndarray:
        """Return the neighbours of each item ``(N, H)`` (eq. 4-5), from the disk if they are."""
        config, wanted = self.config, int(self.config["n_neighbors"])
        if wanted == 0:
            return np.zeros((len(self.vectors), 0), np.int32)
        count = wanted - (config["knn_self"] == "count")
        more = max(count, _KEPT) if len(self.vectors) <= _KEPT_UP_TO else count
        backend = str(config["knn_backend"])
        settings = {"faiss": nearest.uses_faiss(backend, len(self.vectors))}

        def compute() -> Arrays:
            vectors = torch.from_numpy(self.vectors)
            return {"ids": nearest.nearest_items(vectors, more, backend=backend)}

        def fits(arrays: Arrays) -> bool:
            return arrays["ids"].shape[1] >= count

        found = self._derived("neighbours", {"vectors": self.vectors}, settings, compute, fits)
        return nearest.neighbour_table(found["ids"], wanted, str(config["knn_self"]))

    def groups(self) -> np.ndarray:
        """Return the group of each item ``(N,)`` (eq. 10)."""
        config, seed = self.config, int(self.config["seed"])
        count, on_sphere = int(config["n_centers"]), bool(config["kmeans_normalize"])
        raw = config["kmeans_input"] == "raw"
        points = self.features if raw else torch.from_numpy(self.vectors)
        present = self.present if raw else (points != 0).any(dim=1)

        def compute() -> Arrays:
            groups = content_graphs.cluster_items(points, present, count, seed, on_sphere)
            return {"labels": groups}

        settings = {"count": count, "seed": seed, "on_sphere": on_sphere}
        arrays = {"points": points.numpy(), "present": present.numpy()}
        return self._derived("groups", arrays, settings, compute)["labels"]

    def _derived(
        self,
        what: str,
        arrays: Arrays,
        settings: Mapping[str, Any],
        compute: Callable[[], Arrays],
        fits: Callable[[Arrays], bool] = lambda arrays: True,
    ) -> Arrays:
        """Look for an earlier result under all that it is made of, or compute it.

        The vectors hold what sessions, features and their settings made of them.
        """
        key = fingerprint(arrays, settings)
        name = f"{self.config['dataset']}.{self.name}.{what}"
        return derived(self.folder, name, key, compute, fits)
