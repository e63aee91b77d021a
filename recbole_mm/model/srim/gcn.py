"""Propagation of one branch's item table over the co-occurrence graph (SRIM eq. 4).

``P`` are the row-normalised counts, ``E`` is the table ``(N, d)``, ``L`` the number of layers.
"""

from __future__ import annotations

from torch import Tensor, nn

from recbole_mm.graph.propagation import Adjacency, neighbour_mean, residual_propagate


class ResidualGCN(nn.Module):
    """``(I + P)^L E``, what the released code does: no maps, and each item keeps itself."""

    def __init__(self, n_layers: int, size: int) -> None:
        super().__init__()
        self.n_layers = n_layers

    def forward(self, table: Tensor, adjacency: Adjacency) -> Tensor:
        """Return the propagated table ``(N, d)``; with any other width ``d`` as well."""
        return residual_propagate(table, adjacency, self.n_layers)


class LiteralGCN(nn.Module):
    """``P(...P(E W_1)...W_L)``, eq. 4 as printed; items without neighbours become zero."""

    def __init__(self, n_layers: int, size: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(n_layers))

    def forward(self, table: Tensor, adjacency: Adjacency) -> Tensor:
        """Return the propagated table ``(N, d)``."""
        for layer in self.maps:
            table = neighbour_mean(layer(table), adjacency)
        return table
