"""Losses over all items without a table of rows x items: a chunk of rows at a time.

Scores of 2,048 rows and a million items are 8 GB, and plain autograd holds them three times. Both
functions here go forward and at once backward through a chunk of rows; what stays is the gradient
of what they were given. It is scaled by the gradient that comes from behind, so a loss can be
weighted or summed as any other. There are no second derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_mm.model.sampled import sampler_for

# Scores held at once, 32 MiB in float32; larger chunks leave the processor's caches.
CHUNK = 2**23
# Fewer rows would read and write the gradient of the items more often than it takes to compute it.
LEAST_ROWS = 64
# Scores up to which `mean_in_chunks` leaves all to autograd: 256 MiB, about four times held.
PLAIN = 2**26


def rows_per_chunk(n_items: int) -> int:
    """Return how many rows of ``n_items`` scores are held at once."""
    return max(LEAST_ROWS, CHUNK // n_items)


def _chunks(n_rows: int, size: int) -> Iterator[slice]:
    """Yield the rows of each chunk."""
    yield from (slice(start, start + size) for start in range(0, n_rows, size))


def mean_softmax_ce(
    query: Tensor,
    items: Tensor,
    target: Tensor,
    struck: Tensor | None = None,
    padding_counts: bool = False,
    bonus: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Mean softmax cross-entropy of ``query . items^T`` over all items but padding, a scalar.

    Equal to `recbole_mm.model.losses.softmax_ce` of columns 1 to N - 1, and more than twice as
    fast. Numbers of less than 32 bits are computed in float32; in mixed precision (autocast) the
    products are of its bits, and their softmax in float32. Inside
    `recbole_mm.model.sampled.sampling` it is the loss over a sample of the items.

    Parameters
    ----------
    query
        ``(B, d)``.
    items
        ``(N, d)``; row 0 is padding and no class.
    target
        Right items ``(B,)``, 1 to N - 1.
    struck
        Items ``(B, T)`` that are no classes of their row, unless they are its target; 0 fills up.
    padding_counts
        Row 0 is a class, as in RecBole's models; a sample never holds it.
    bonus
        Items ``(B, T)``, filled up with 0, and a scalar that is added to their scores in their row.
    """
    if (sampler := sampler_for(items)) is not None:
        return sampler.loss(query, items, target, struck, bonus)
    graded, kind = torch.is_grad_enabled(), query.device.type
    narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    held, more = (None, None) if bonus is None else bonus
    given = query, items, target, struck, held, more, padding_counts, narrow, graded
    return _MeanSoftmaxCE.apply(*given)  # type: ignore[no-any-return,no-untyped-call]


class _MeanSoftmaxCE(torch.autograd.Function):
    """See `mean_softmax_ce`."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, items: Tensor, target: Tensor, struck: Tensor | None,
        held: Tensor | None, more: Tensor | None, padding_counts: bool,
        narrow: torch.dtype | None, graded: bool,
    ) -> Tensor:  # fmt: skip
        with torch.autocast(query.device.type, enabled=False):
            given = query, items, target, struck, held, more, padding_counts, narrow, graded
            loss, *grads = _forth_and_back(*given)
        ctx.save_for_backward(*grads)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        to_query, to_items, to_more = (one * grads[0] for one in ctx.saved_tensors)
        more = to_more if ctx.needs_input_grad[5] else None
        return to_query, to_items, None, None, None, more, None, None, None


def _forth_and_back(
    query: Tensor, items: Tensor, target: Tensor, struck: Tensor | None, held: Tensor | None,
    more: Tensor | None, padding_counts: bool, narrow: torch.dtype | None, graded: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the mean loss and, if graded, its gradients by queries, items and bonus."""
    wide = torch.promote_types(query.dtype, torch.float32)
    to_left, to_right = (torch.zeros_like(one, dtype=wide) for one in (query, items))
    left, right = query.to(narrow or wide), items.to(narrow or wide)
    loss, to_more, n_rows = to_left.new_zeros(()), to_left.new_zeros(()), len(left)
    for rows in _chunks(n_rows, rows_per_chunk(len(right))):
        at = target[rows].unsqueeze(1)
        own = None if struck is None else struck[rows]
        scores = (left[rows] @ right.T).to(wide)
        if held is not None and more is not None:
            # An item held twice is set to the same score twice.
            scores.scatter_(1, held[rows], scores.gather(1, held[rows]) + more.to(wide))
        losses, chances = _softmax(scores, at, own, padding_counts)
        loss += losses.sum() / n_rows
        if graded:
            # The derivative of a row's loss by its scores: p - 1 at the target, else p.
            chances.scatter_add_(1, at, -torch.ones_like(losses)).div_(n_rows)
            if held is not None:
                to_more += (chances.gather(1, held[rows]) * _first_of_each(held[rows])).sum()
            chances = chances.to(left.dtype)
            to_left[rows] = chances @ right
            if narrow is None:
                to_right.addmm_(chances.T, left[rows])
            else:
                # Summed in full: many chunks are many roundings.
                to_right += chances.T @ left[rows]
    return loss, to_left.to(query.dtype), to_right.to(items.dtype), to_more


def _first_of_each(held: Tensor) -> Tensor:
    """Return where an item of a row ``(B, T)`` stands for the first time; nowhere for 0."""
    ordered, order = held.sort(dim=1, stable=True)
    new = ordered != 0
    new[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(new).scatter_(1, order, new)


def _softmax(
    scores: Tensor, at: Tensor, struck: Tensor | None, padding_counts: bool
) -> tuple[Tensor, Tensor]:
    """Return losses ``(b, 1)`` and probabilities ``(b, N)``, which overwrite the scores."""
    right = scores.gather(1, at)
    if struck is not None:
        scores.scatter_(1, struck, -math.inf).scatter_(1, at, right)
    if not padding_counts:
        scores[:, 0] = -math.inf
    top = scores.amax(dim=1, keepdim=True)
    total = scores.sub_(top).exp_().sum(dim=1, keepdim=True)
    return top + total.log() - right, scores.div_(total)


def mean_in_chunks(
    losses: Callable[..., Tensor],
    rows: Sequence[Tensor],
    shared: Sequence[Tensor],
    parameters: Sequence[Tensor] = (),
) -> Tensor:
    """Return the mean over rows of ``losses(*rows, *shared)``, in chunks where rows are many.

    For losses that are no plain softmax. Up to `PLAIN` scores it is that mean and nothing else.

    Parameters
    ----------
    losses
        Gives ``(b,)`` or, for several losses, ``(b, k)``, of any rows; a row's loss must not
        depend on the other rows. It may draw random numbers: it is called once for each chunk.
    rows
        Tensors ``(B, ...)``, cut into chunks.
    shared
        Tensors that all rows use, whole; the first has one row per item.
    parameters
        Parameters that ``losses`` reads in another way than by its arguments.

    Returns
    -------
    Tensor
        A scalar, or ``(k,)``.
    """
    n_items = len(shared[0])
    if len(rows[0]) * n_items <= PLAIN:
        return losses(*rows, *shared).mean(dim=0)
    size = rows_per_chunk(n_items)
    if not torch.is_grad_enabled():
        parts = ([one[chunk] for one in rows] for chunk in _chunks(len(rows[0]), size))
        return torch.cat([losses(*part, *shared) for part in parts]).mean(dim=0)
    given = (*rows, *shared, *parameters)
    return _MeanInChunks.apply(losses, len(rows), len(shared), size, *given)  # type: ignore[no-any-return,no-untyped-call]


class _MeanInChunks(torch.autograd.Function):
    """See `mean_in_chunks`."""

    @staticmethod
    def forward(
        ctx: Any, losses: Callable[..., Tensor], n_rows: int, n_shared: int, size: int,
        *given: Tensor,
    ) -> Tensor:  # fmt: skip
        total, sums = torch.zeros(()), list[list[Tensor | None]]()
        whole = [_leaf(one, one) for one in given[n_rows : n_rows + n_shared]]
        for chunk in _chunks(len(given[0]), size):
            parts = [_leaf(one[chunk], one) for one in given[:n_rows]]
            with torch.enable_grad():
                means = losses(*parts, *whole).sum(dim=0) / len(given[0])
                singles = means.reshape(-1).unbind()
            total = total.to(means.device) + means.detach()
            sums = sums or [[_zeros(one) for one in given] for _ in singles]
            # Parameters are leaves already, and `losses` reads them as they are.
            read = [*parts, *whole, *given[n_rows + n_shared :]]
            for own, loss in zip(sums, singles, strict=True):
                to_rows, to_all = own[:n_rows], own[n_rows:]
                places = [one if one is None else one[chunk] for one in to_rows] + to_all
                _add_gradients(loss, read, places, keep=own is not sums[-1])
        ctx.sums = sums
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = []
        for parts in zip(*ctx.sums, strict=True):
            weighted = zip(parts, grads[0].reshape(-1), strict=True)
            found.append(None if parts[0] is None else sum(part * w for part, w in weighted))
        return None, None, None, None, *found


def _leaf(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor cut off from what made it; with a gradient of its own if ``like`` has one."""
    return tensor.detach().requires_grad_(like.requires_grad)


def _zeros(tensor: Tensor) -> Tensor | None:
    """Return room for a tensor's gradient, or None if it has none."""
    return torch.zeros_like(tensor) if tensor.requires_grad else None


def _add_gradients(
    loss: Tensor, read: Sequence[Tensor], sums: Sequence[Tensor | None], keep: bool
) -> None:
    """Add the gradients of a loss by what it read where there is room; may keep the graph."""
    pairs = [(one, place) for one, place in zip(read, sums, strict=True) if place is not None]
    by = [one for one, _ in pairs]
    found = torch.autograd.grad(loss, by, retain_graph=keep, allow_unused=True)
    for (_, place), gradient in zip(pairs, found, strict=True):
        if gradient is not None:
            place.add_(gradient)
