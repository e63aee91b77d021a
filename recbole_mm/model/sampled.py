"""A softmax over a sample of the items, with the correction for how it was drawn.

For catalogues of which not even a chunk of rows is cheap. Inside `sampling`, whatever computes
`recbole_mm.model.chunked.mean_softmax_ce` of all items takes the sample instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from recbole_mm.errors import ConfigError
from recbole_mm.model.layers import gather_rows


class ItemSampler:
    """Draws negatives in proportion to ``(clicks + 1) ** alpha``, anew for each batch.

    The probabilities, laid out from 0 to 1, are cut into as many equal stretches as there are
    draws, with one draw from each. An item is then expected ``n p`` times, exactly, and as many
    draws as there are items with ``alpha = 0`` are all items. Draws come from torch's generator, so
    from the seed of the run.

    Parameters
    ----------
    clicks
        ``(n_items,)`` how often an item occurs in training; padding, 0, is never drawn.
    n
        Draws per batch.
    alpha
        0 draws uniformly, 1 by popularity.

    Attributes
    ----------
    n_items
        Items, padding included.
    used
        Whether a loss has been computed of a sample.

    Raises
    ------
    ConfigError
        More draws than items.
    """

    def __init__(self, clicks: NDArray[np.int64], n: int, alpha: float) -> None:
        self.n, self.n_items, self.used = n, len(clicks), False
        if n >= self.n_items:
            raise ConfigError(
                f"sampled_softmax = {n} is not accepted; expected at most {self.n_items - 1}, the "
                "number of items. 0 takes all of them."
            )
        weights = (torch.from_numpy(np.asarray(clicks[1:], dtype=np.float64)) + 1.0) ** alpha
        share = weights / weights.sum()
        self._ends = share.cumsum(0)
        expected = torch.cat([torch.ones(1, dtype=share.dtype), n * share])
        self._log_expected = expected.log().float()

    def draw(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return items ``(n,)``, maybe some twice, and how often each is expected (logarithm)."""
        if self._ends.device != device:
            self._ends, self._log_expected = self._ends.to(device), self._log_expected.to(device)
        steps = torch.arange(self.n, dtype=torch.float64, device=device)
        places = (steps + torch.rand(self.n, dtype=torch.float64, device=device)) / self.n
        # The last end may be a rounding below 1.
        drawn = torch.searchsorted(self._ends, places, right=True).clamp_max(self.n_items - 2) + 1
        return drawn, self._log_expected[drawn]

    def loss(
        self,
        query: Tensor,
        items: Tensor,
        target: Tensor,
        struck: Tensor | None = None,
        bonus: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Return the mean loss of `sampled_softmax_ce` over a new sample, a scalar."""
        self.used = True
        return sampled_softmax_ce(query, items, target, *self.draw(query.device), struck, bonus)


def sampled_softmax_ce(
    query: Tensor,
    items: Tensor,
    target: Tensor,
    drawn: Tensor,
    log_expected: Tensor,
    struck: Tensor | None = None,
    bonus: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Mean sampled softmax cross-entropy with logQ correction, a scalar.

    ``-log e^(s_y) / (e^(s_y) + sum_j e^(s_j - log Q_j))`` over draws ``j`` other than the target,
    with ``Q_j`` the expected number of draws of ``j`` (Bengio and Senecal 2008). On average the sum
    is that over all items. The target is not drawn, it is always there, and so its score is not
    corrected; a draw that hits it is left out of the sum. An item drawn twice counts twice, as
    ``Q`` says.

    Parameters
    ----------
    query
        ``(B, d)``.
    items
        ``(N, d)``.
    target
        Right items ``(B,)``.
    drawn, log_expected
        Items ``(n,)`` and ``log Q`` of each.
    struck
        Items ``(B, T)`` that are no classes of their row.
    bonus
        Items ``(B, T)``, and a scalar that is added to their scores in their row.
    """
    with torch.autocast(query.device.type, enabled=False):
        wide = torch.promote_types(query.dtype, torch.float32)
        left = query.to(wide)
        right = (left * gather_rows(items, target).to(wide)).sum(dim=1, keepdim=True)
        others = left @ gather_rows(items, drawn).to(wide).T - log_expected.to(wide)
        if bonus is not None:
            held, more = bonus
            right = right + more * _among(target.unsqueeze(1), held)
            others = others + more * _among(drawn, held)
        out = drawn == target.unsqueeze(1)
        if struck is not None:
            out |= _among(drawn, struck)
        scores = torch.cat([right, others.masked_fill(out, -math.inf)], dim=1)
        return F.cross_entropy(scores, torch.zeros_like(target))


def _among(items: Tensor, rows: Tensor) -> Tensor:
    """Return which items, ``(n,)`` or ``(B, n)``, are among those of each row ``(B, T)``."""
    found = items == rows[:, :1]
    for column in rows[:, 1:].unbind(dim=1):
        found |= items == column.unsqueeze(1)
    return found


_SAMPLER: ContextVar[ItemSampler | None] = ContextVar("sampler", default=None)


@contextmanager
def sampling(sampler: ItemSampler | None) -> Iterator[None]:
    """Compute softmax losses over all items of a sample inside the block; None takes all items."""
    before = _SAMPLER.set(sampler)
    try:
        yield
    finally:
        _SAMPLER.reset(before)


def sampler_for(items: Tensor) -> ItemSampler | None:
    """Return the sampler of this block if these ``(N, d)`` are the items it draws from."""
    sampler = _SAMPLER.get()
    return sampler if sampler is not None and sampler.n_items == len(items) else None
