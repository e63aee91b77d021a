"""Negatives of AlterRec, and its losses over them.

Symbols: ``B`` rows, ``V`` real items, ``N = V + 1`` with padding. Scores are ``(B, N)``; what
stands in column 0, padding, is never used. The teacher is the branch that is not being trained; an
item's rank is its place, from 1, in the teacher's descending order. The window holds ranks ``k1``
to ``k2``, both included, ``K = k2 - k1 + 1`` items.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_mm.errors import ConfigError

logger = logging.getLogger(__name__)

# Stands for -inf, which would make the gradient of a row without any negative NaN.
FLOOR = -1e30


def rank_window(first: int, last: int | float, n_items: int) -> tuple[int, int]:
    """Return ``(k1, k2)`` for a catalogue of ``n_items`` real items.

    Parameters
    ----------
    first
        ``k1``.
    last
        ``k2``, or, as a float in (0, 1], the share of the catalogue that ends the window.
    n_items
        ``V``; a larger ``k2`` is cut to it, with a message.

    Raises
    ------
    ConfigError
        A float above 1, or an empty window.
    """
    if isinstance(last, float) and last > 1.0:
        raise ConfigError(
            f"hard_negative_end_rank={last} is neither a rank nor a share: write a rank as a whole "
            "number and a share of the catalogue as a number in (0, 1]"
        )
    end = round(last * n_items) if isinstance(last, float) else last
    if end > n_items:
        logger.info(f"hard_negative_end_rank={end} is cut to the {n_items} items there are")
        end = n_items
    if first > end:
        raise ConfigError(
            f"hard_negative_start_rank={first} lies behind hard_negative_end_rank={last}, which is "
            f"rank {end} of {n_items} items. Lower the first or raise the second."
        )
    return first, end


def top_items(scores: Tensor, count: int) -> Tensor:
    """Return the ``count`` items with the highest scores ``(B, N)`` of each row, best first."""
    return scores[:, 1:].topk(count).indices + 1


def window_items(scores: Tensor, first: int, last: int) -> Tensor:
    """Return the items ``(B, K)`` of ranks ``first`` to ``last`` of each row, in no set order.

    The few before the window are struck out, and the rest needs no sorting, only selecting.
    """
    struck = [torch.zeros(len(scores), 1, dtype=torch.long, device=scores.device)]
    if first > 1:
        struck.append(top_items(scores, first - 1))
    rest = scores.scatter(1, torch.cat(struck, dim=1), -math.inf)
    return rest.topk(last - first + 1, sorted=False).indices


class Drawn(NamedTuple):
    """Negatives of a batch, as a list or as weights.

    Attributes
    ----------
    items
        ``(B, M)`` with repetitions, or None.
    log_weight
        ``(B, N)``: logarithm of how often each item is expected in the list, or None.
        Both None: every item once.
    """

    items: Tensor | None = None
    log_weight: Tensor | None = None


class NegativeSampler:
    """Draws uniform negatives, and hard ones from the teacher's window.

    Of ``K`` negatives, ``floor(ratio K)`` come from the window, without replacement, and
    ``floor((1 - ratio) K)`` from the whole catalogue, with replacement.

    Parameters
    ----------
    config
        Read: ``hard_negative_start_rank``, ``hard_negative_end_rank``, ``hard_negative_ratio``,
        ``hard_negative_sampling``, ``share_negative_ranks``.
    n_items
        ``V``.

    Attributes
    ----------
    window
        ``(k1, k2)``.
    n_hard, n_uniform
        Negatives per row from the window and from the catalogue.

    Raises
    ------
    ConfigError
        An empty window, or ``window`` sampling with a ratio of 0.
    """

    def __init__(self, config: Any, n_items: int) -> None:
        self.n_items = n_items
        first, last = config["hard_negative_start_rank"], config["hard_negative_end_rank"]
        self.window = rank_window(first, last, n_items)
        self.size = self.window[1] - self.window[0] + 1
        self.shared = bool(config["share_negative_ranks"])
        sampling, ratio = config["hard_negative_sampling"], float(config["hard_negative_ratio"])
        self.n_hard = _floor(ratio * self.size)
        self.n_uniform = _floor((1.0 - ratio) * self.size)
        if sampling == "window":
            if not ratio:
                raise ConfigError(
                    "hard_negative_sampling=window takes the whole window, but "
                    "hard_negative_ratio=0 wants nothing of it. Set "
                    "--hard_negative_sampling=subset."
                )
            # The window is taken whole; the uniform part keeps the proportion.
            self.n_hard = self.size
            self.n_uniform = _floor(self.size * (1.0 - ratio) / ratio)
        makers: dict[str, Callable[[Tensor], Drawn]] = {
            "subset": self._subset,
            "window": self._subset,
            "expected": self._expected,
        }
        self._make = makers[sampling]

    def uniform(self, scores: Tensor) -> Drawn:
        """Draw ``K`` items per row of ``scores`` from the whole catalogue, with replacement."""
        return Drawn(items=self._anywhere(scores, self.size))

    def hard(self, teacher: Tensor) -> Drawn:
        """Draw the mixture of hard and uniform negatives for teacher scores ``(B, N)``."""
        return self._make(teacher)

    def in_window(self, teacher: Tensor) -> Tensor:
        """Return the items of the window, ``(B, K)``, in no set order."""
        return window_items(teacher, *self.window)

    def _anywhere(self, scores: Tensor, count: int) -> Tensor:
        return torch.randint(1, self.n_items + 1, (len(scores), count), device=scores.device)

    def _subset(self, teacher: Tensor) -> Drawn:
        """Draw without replacement from each row's window, and add the uniform part."""
        parts = []
        if self.n_hard:
            parts.append(self._from_window(self.in_window(teacher)))
        if self.n_uniform:
            parts.append(self._anywhere(teacher, self.n_uniform))
        return Drawn(items=torch.cat(parts, dim=1))

    def _from_window(self, window: Tensor) -> Tensor:
        """Draw ``n_hard`` of the ``K`` items ``(B, K)`` of each row.

        One set of places for all rows is as good as one per row: each row's draw is a uniform
        subset of its window either way.
        """
        if self.n_hard == self.size:
            return window
        if self.shared:
            places = torch.randperm(self.size, device=window.device)[: self.n_hard]
            # In ascending order they are read faster, and the set is the same.
            return window.index_select(1, places.sort().values)
        keys = torch.rand(window.shape, device=window.device)
        return window.gather(1, keys.topk(self.n_hard, largest=False, sorted=False).indices)

    def _expected(self, teacher: Tensor) -> Drawn:
        """Return how often the mixture would hold each item on average: no sampling at all."""
        everywhere = self.n_uniform / self.n_items
        inside = self.n_hard / self.size + everywhere
        outside = math.log(everywhere) if everywhere else FLOOR
        weight = torch.full_like(teacher, outside)
        if self.n_hard:
            weight.scatter_(1, self.in_window(teacher), math.log(inside))
        return Drawn(log_weight=weight)


def _floor(number: float) -> int:
    """Return the whole part; 0.9999999999 of a float product counts as 1."""
    return int(number + 1e-9)


def negative_mass(
    scores: Tensor, drawn: Drawn, target: Tensor, history: Tensor | None = None
) -> Tensor:
    """Return ``Z_i = log sum exp`` of the student's scores over row ``i``'s negatives, ``(B,)``.

    Parameters
    ----------
    scores
        ``(B, N)``.
    drawn
        The negatives. An item that is drawn twice counts twice.
    target
        Items ``(B, 1)``; a row's target is no negative, whatever was drawn.
    history
        Items ``(B, T)`` that are no negatives either, or None.
    """
    if drawn.items is not None:
        out = drawn.items == target
        if history is not None:
            seen = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, history, True)
            out |= seen.gather(1, drawn.items)
        return torch.logsumexp(scores.gather(1, drawn.items).masked_fill(out, FLOOR), dim=1)
    struck = [torch.zeros_like(target), target, *([] if history is None else [history])]
    scores = scores.scatter(1, torch.cat(struck, dim=1), FLOOR)
    if drawn.log_weight is not None:
        scores = scores + drawn.log_weight
    return torch.logsumexp(scores, dim=1)


def positive_loss(mass: Tensor, scores: Tensor, items: Tensor) -> Tensor:
    """Return ``ln(1 + exp(Z_i - s_ik)) = -ln softmax(k | k, negatives)`` (eqs 8 to 11).

    Parameters
    ----------
    mass
        ``Z`` ``(B,)``.
    scores
        ``(B, N)``.
    items
        Positives ``(B, p)``; each has a softmax of its own against the same negatives.

    Returns
    -------
    Tensor
        ``(B, p)``.
    """
    return F.softplus(mass.unsqueeze(1) - scores.gather(1, items))


def borrowed_loss(terms: Tensor, counted: Tensor, reduction: str) -> Tensor:
    """Reduce the losses of borrowed positives ``(B, p)`` to a scalar.

    ``"mean"`` is over all counted terms of the batch (released code), ``"sum"`` adds each row's
    terms and takes the mean over rows (eqs 10 and 11). No counted term gives 0.

    Parameters
    ----------
    terms
        ``(B, p)``.
    counted
        bool ``(B, p)``.
    reduction
        ``"mean"`` or ``"sum"``.
    """
    total = (terms * counted).sum()
    return total / (counted.sum().clamp_min(1) if reduction == "mean" else len(terms))
