"""Propagation of item vectors over a sparse graph, with a backward pass that stores nothing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Adjacency:
    """Row-normalised counts ``P = diag(1/r) C``, with zero rows where ``r = 0``.

    Attributes
    ----------
    counts
        Symmetric ``C``, torch CSR ``(N, N)``.
    inverse_degree
        ``1/r`` or 0, ``(N, 1)``.
    """

    counts: Tensor
    inverse_degree: Tensor

    def count_sum(self, table: Tensor) -> Tensor:
        """Return ``C H`` for ``H`` ``(N, d)``."""
        return self.counts @ table


class _Propagate(torch.autograd.Function):
    """``H <- a H + b P H``, ``n_layers`` times; linear, so nothing is saved for backward."""

    @staticmethod
    def forward(
        ctx: Any, table: Tensor, adjacency: Adjacency, n_layers: int, keep: float, take: float
    ) -> Tensor:
        ctx.settings = (adjacency, n_layers, keep, take)
        for _ in range(n_layers):
            around = adjacency.count_sum(table)
            own = table if keep == 1.0 else table * keep
            table = torch.addcmul(own, around, adjacency.inverse_degree, value=take)
        return table

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        adjacency, n_layers, keep, take = ctx.settings
        grad = grads[0]
        for _ in range(n_layers):
            # The transpose of diag(1/r) C is C diag(1/r): the same symmetric matrix serves.
            around = adjacency.count_sum(grad * adjacency.inverse_degree)
            grad = torch.add(grad if keep == 1.0 else grad * keep, around, alpha=take)
        return grad, None, None, None, None


def residual_propagate(
    table: Tensor, adjacency: Adjacency, n_layers: int, keep: float = 1.0, take: float = 1.0
) -> Tensor:
    """Return ``(keep I + take P)^n_layers`` times the table.

    ``keep = take = 1`` is the propagation of SRIM's released code. Backward repeats
    ``G <- keep G + take C (G / r)`` and stores no activation, so that memory is ``O(N d)`` whatever
    the number of layers.

    Parameters
    ----------
    table
        Item vectors ``(N, d)``.
    adjacency
        Row-normalised counts.
    n_layers
        Number of steps, 0 for none.
    keep, take
        Weight of an item's own vector and of its neighbours' mean.

    Returns
    -------
    Tensor
        ``(N, d)``.
    """
    if n_layers == 0:
        return table
    result: Tensor = _Propagate.apply(  # type: ignore[no-untyped-call]
        table, adjacency, n_layers, keep, take
    )
    return result


def neighbour_mean(table: Tensor, adjacency: Adjacency) -> Tensor:
    """Return ``P H``, the count-weighted mean of each item's partners, ``(N, d)``."""
    return residual_propagate(table, adjacency, n_layers=1, keep=0.0, take=1.0)


def inverse_degree(degree: Tensor) -> Tensor:
    """Return ``1/r`` where ``r > 0``, else 0."""
    return torch.where(degree > 0, 1.0 / degree.clamp_min(1.0), torch.zeros_like(degree))


def csr_matrix(crow: Tensor, col: Tensor, value: Tensor) -> Tensor:
    """Return a square torch CSR matrix over the given arrays, without copying them."""
    size = (len(crow) - 1, len(crow) - 1)
    with warnings.catch_warnings():
        # torch calls its CSR support beta, once per process; only the product is used here.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support", category=UserWarning)
        return torch.sparse_csr_tensor(crow, col, value, size=size, check_invariants=False)
