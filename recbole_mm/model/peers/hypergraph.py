"""CoHHN's graph: items, price levels and categories, and what they tell each other.

Symbols: ``N`` items, ``L`` price levels, ``C`` categories, ``d`` width, ``E`` edges between two
kinds of nodes. Row 0 of each table is padding, which has no edge.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_mm.data.sessions import Sessions
from recbole_mm.graph.cooccurrence import session_item_matrix
from recbole_mm.graph.propagation import Adjacency, csr_matrix, inverse_degree, neighbour_mean


class Nodes(NamedTuple):
    """Vectors of items ``(N, d)``, price levels ``(L, d)`` and categories ``(C, d)``."""

    items: Tensor
    prices: Tensor
    categories: Tensor


def hyperedge_counts(sessions: Sessions, n_items: int) -> sp.csr_matrix:
    """Return ``H^T B^-1 H`` ``(N, N)``, symmetric: a session is a hyperedge of its distinct items.

    ``H`` says which session holds which item, ``B`` how many items a session has. Row ``i`` sums
    to the number of sessions with item ``i``.
    """
    held = session_item_matrix(sessions, n_items)
    sizes = np.asarray(held.sum(axis=1)).ravel()
    # The root on either side keeps the product symmetric to the last bit.
    halves = sp.diags(1 / np.sqrt(np.maximum(sizes, 1)), dtype=np.float32) @ held
    counts = (halves.T @ halves).tocsr().astype(np.float32)
    counts.sort_indices()
    return counts


def edges(left: Tensor, right: Tensor) -> Tensor:
    """Return the distinct pairs ``(2, E)`` of numbers that stand beside each other, sorted."""
    found: Tensor = torch.unique(torch.stack([left, right]), dim=1)
    return found


class Aggregation(nn.Module):
    """Intra-type attention: what one kind of nodes tells each node of another.

    ``m_t = sum_s alpha_ts e_s`` over the neighbours ``s`` of ``t``, with
    ``alpha_t = softmax_s(u_t sum_k e_sk)`` and one learned number ``u_t`` for each node ``t``.
    A node without a neighbour hears nothing.

    Parameters
    ----------
    pairs
        Edges ``(2, E)`` from ``t`` to ``s``.
    n_targets
        Number of nodes ``t``.
    dropout
        Share of the result's values dropped.
    """

    pairs: Tensor

    def __init__(self, pairs: Tensor, n_targets: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("pairs", pairs, persistent=False)
        self.weight = nn.Parameter(torch.empty(n_targets))
        self.dropout = nn.Dropout(dropout)

    def forward(self, sources: Tensor) -> Tensor:
        """Return ``m`` ``(n_targets, d)`` of the vectors ``e``."""
        target, source = self.pairs
        logits = self.weight[target] * sources.sum(dim=1)[source]
        least = logits.new_full((len(self.weight),), -torch.inf)
        top = least.scatter_reduce(0, target, logits.detach(), "amax")
        raised = torch.exp(logits - top[target])
        total = torch.zeros_like(self.weight).index_add(0, target, raised)
        share = (raised / total[target]).unsqueeze(1)
        heard = sources.new_zeros(len(self.weight), sources.shape[1])
        mixed: Tensor = self.dropout(heard.index_add(0, target, share * sources[source]))
        return mixed


class Gate(nn.Module):
    """Inter-type gate: ``x + g y + (1 - g) z`` with ``g = sigmoid(W [x, y, z] + V y + U z)``."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.whole = nn.Linear(3 * size, size)
        self.first = nn.Linear(size, size)
        self.second = nn.Linear(size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, own: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Return ``(n, d)`` of a node's own vectors ``x`` and those of two other kinds."""
        logits = self.whole(torch.cat([own, first, second], dim=1))
        gate = torch.sigmoid(logits + self.first(first) + self.second(second))
        mixed: Tensor = self.dropout(own + gate * first + (1 - gate) * second)
        return mixed


class HyperGraph(nn.Module):
    """Layers in which items, price levels and categories hear each other, all at once.

    Items hear their price, their category and the items of their sessions; prices and categories
    hear training items, and each other where a training item has both. All layers share weights.

    Parameters
    ----------
    counts
        See `hyperedge_counts`.
    levels, categories
        Price level and category of each item ``(N,)``.
    seen
        bool ``(N,)``: items of training sessions.
    sizes
        ``L`` and ``C``.
    size
        ``d``.
    n_layers
        Number of layers.
    gate_dropout, neighbour_dropout
        Share of values dropped behind gates, and of what is heard by prices and categories.
    """

    levels: Tensor
    categories: Tensor
    crow: Tensor
    col: Tensor
    value: Tensor
    scale: Tensor

    def __init__(
        self,
        counts: sp.csr_matrix,
        levels: Tensor,
        categories: Tensor,
        seen: Tensor,
        sizes: tuple[int, int],
        size: int,
        n_layers: int,
        gate_dropout: float,
        neighbour_dropout: float,
    ) -> None:
        super().__init__()
        self.n_layers = n_layers
        degree = torch.from_numpy(np.asarray(counts.sum(axis=1), dtype=np.float32))
        for name, tensor in {
            "levels": levels,
            "categories": categories,
            "crow": torch.from_numpy(counts.indptr),
            "col": torch.from_numpy(counts.indices),
            "value": torch.from_numpy(counts.data),
            "scale": inverse_degree(degree),
        }.items():
            self.register_buffer(name, tensor, persistent=False)
        items = torch.nonzero(seen)[:, 0]
        price, kind = levels[items], categories[items]
        n_levels, n_categories = sizes
        for name, left, right, count in (
            ("price_items", price, items, n_levels),
            ("price_categories", price, kind, n_levels),
            ("category_prices", kind, price, n_categories),
            ("category_items", kind, items, n_categories),
        ):
            self.add_module(name, Aggregation(edges(left, right), count, neighbour_dropout))
        for name in ("item_gate", "price_gate", "category_gate"):
            self.add_module(name, Gate(size, gate_dropout))

    def forward(self, nodes: Nodes) -> Nodes:
        """Return the vectors behind the last layer."""
        hears = self.get_submodule
        graph = Adjacency(csr_matrix(self.crow, self.col, self.value), self.scale)
        for _ in range(self.n_layers):
            items, prices, categories = nodes
            around = neighbour_mean(items, graph)
            own_price = F.embedding(self.levels, prices)
            own_category = F.embedding(self.categories, categories)
            nodes = Nodes(
                hears("item_gate")(items, own_price, own_category) + around,
                hears("price_gate")(
                    prices, hears("price_items")(items), hears("price_categories")(categories)
                ),
                hears("category_gate")(
                    categories, hears("category_prices")(prices), hears("category_items")(items)
                ),
            )
        return nodes
