"""What the processes of a run compute together; in one process each function is the plain thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from recbole_mm import processes


def batch_rows(rows: Tensor) -> Tensor:
    """Return the rows of the whole batch, given this process's own; gradients flow back.

    Parameters
    ----------
    rows
        ``(b, ...)``, one for each own row of the batch.

    Returns
    -------
    Tensor
        ``(B, ...)``, the same on every process.
    """
    group = processes.group()
    if group.world == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows, group)  # type: ignore[no-untyped-call]
    return gathered


def own_rows(rows: Tensor) -> Tensor:
    """Return this process's own rows ``(b, ...)`` of those of the whole batch ``(B, ...)``."""
    group = processes.group()
    if group.world == 1:
        return rows
    return rows[group.own()] if group.own_rows() else rows[:1]


class _Gather(torch.autograd.Function):
    """Rows of all processes in the order of the batch; each gets the sum of all gradients back."""

    @staticmethod
    def forward(context: Any, rows: Tensor, group: processes.Group) -> Tensor:
        context.group, context.rows = group, len(rows)
        whole = rows.new_zeros((group.rows, *rows.shape[1:]))
        # A process without a row of its own computes one for nothing.
        whole[group.own()] = rows[: group.own_rows()]
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        group = context.group
        whole = gradients[0].contiguous()
        dist.all_reduce(whole)
        own = whole.new_zeros((context.rows, *whole.shape[1:]))
        own[: group.own_rows()] = whole[group.own()]
        return own, None


def distinct(ids: Tensor) -> Tensor:
    """Return the distinct numbers ``(M,)`` that any process holds, in ascending order."""
    own: Tensor = torch.unique(ids)
    world = processes.group().world
    if world == 1:
        return own
    sizes = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(world)]
    dist.all_gather(sizes, torch.tensor([len(own)], device=own.device))
    longest = int(torch.cat(sizes).max())
    padded = own.new_zeros(longest)
    padded[: len(own)] = own
    found = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(found, padded)
    parts = [part[: int(size)] for part, size in zip(found, sizes, strict=True)]
    return torch.unique(torch.cat(parts))


def summed(numbers: Sequence[float]) -> list[float]:
    """Return the sums over all processes."""
    if processes.group().world == 1:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(total)
    return [float(number) for number in total]


def summed_counts(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sums of whole numbers over all processes."""
    if processes.group().world > 1:
        dist.all_reduce(torch.from_numpy(counts))
    return counts


def of_the_first(value: object) -> Any:
    """Return what the first process gives; the others' value is not looked at."""
    if processes.group().world == 1:
        return value
    given = [value]
    dist.broadcast_object_list(given, src=0, device=torch.device("cpu"))
    return given[0]


def same_weights(module: torch.nn.Module) -> None:
    """Give every process the weights of the first."""
    if processes.group().world > 1:
        for weight in module.parameters():
            dist.broadcast(weight.detach(), src=0)
