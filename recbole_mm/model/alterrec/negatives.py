"""Negatives of AlterRec, and its losses over them.

Symbols: ``B`` rows, ``V`` real items, ``N = V + 1`` with padding. Scores are ``(B, N)``; what
stands in column 0, padding, is never used. The teacher is the branch that is not being trained; an
item's rank is its place, from 1, in the teacher's descending order. The window holds ranks ``k1``
to ``k2``, both included, ``K = k2 - k1 + 1`` items.
"""

from __future__ import annotations

import logging
import math

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
        An empty window.
    """
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


class NegativeSampler:
    """Draws uniform negatives, and hard ones from the teacher's window.

    Of ``K`` negatives, ``floor(ratio K)`` come from the window, without replacement, and
    ``floor((1 - ratio) K)`` from the whole catalogue, with replacement.

    Parameters
    ----------
    window
        ``(k1, k2)``, see `rank_window`.
    ratio
        Share of the negatives that come from the window.
    n_items
        ``V``.

    Attributes
    ----------
    n_hard, n_uniform
        Negatives per row from the window and from the catalogue.
    """

    def __init__(self, window: tuple[int, int], ratio: float, n_items: int) -> None:
        self.window, self.n_items = window, n_items
        self.size = window[1] - window[0] + 1
        self.n_hard = _floor(ratio * self.size)
        self.n_uniform = _floor((1.0 - ratio) * self.size)

    def uniform(self, scores: Tensor) -> Tensor:
        """Draw ``K`` items ``(B, K)`` from the whole catalogue for the rows of ``scores``."""
        return self._anywhere(scores, self.size)

    def hard(self, teacher: Tensor) -> Tensor:
        """Draw hard and uniform negatives ``(B, M)`` for teacher scores ``(B, N)``."""
        parts = []
        if self.n_hard:
            window = self.in_window(teacher)
            parts.append(window if self.n_hard == self.size else self._choose(window))
        if self.n_uniform:
            parts.append(self._anywhere(teacher, self.n_uniform))
        return torch.cat(parts, dim=1)

    def in_window(self, teacher: Tensor) -> Tensor:
        """Return the items of the window, ``(B, K)``, in no set order."""
        return window_items(teacher, *self.window)

    def _anywhere(self, scores: Tensor, count: int) -> Tensor:
        return torch.randint(1, self.n_items + 1, (len(scores), count), device=scores.device)

    def _choose(self, window: Tensor) -> Tensor:
        """Draw ``n_hard`` of the ``K`` items ``(B, K)`` of each row.

        One set of places for all rows is as good as one per row: each row's draw is a uniform
        subset of its window either way.
        """
        places = torch.randperm(self.size, device=window.device)[: self.n_hard]
        # In ascending order they are read faster, and the set is the same.
        return window.index_select(1, places.sort().values)


def _floor(number: float) -> int:
    """Return the whole part; 0.9999999999 of a float product counts as 1."""
    return int(number + 1e-9)


def negative_mass(scores: Tensor, drawn: Tensor | None, struck: Tensor) -> Tensor:
    """Return ``Z_i = log sum exp`` of the student's scores over row ``i``'s negatives, ``(B,)``.

    Parameters
    ----------
    scores
        ``(B, N)``.
    drawn
        The negatives ``(B, M)``, where an item that is drawn twice counts twice; None for every
        item once.
    struck
        Items ``(B, s)`` that are no negatives of their row, whatever was drawn: its target.
    """
    if drawn is None:
        padding = torch.zeros_like(struck[:, :1])
        left = scores.scatter(1, torch.cat([padding, struck], dim=1), FLOOR)
    else:
        out = torch.zeros_like(drawn, dtype=torch.bool)
        for one in struck.unbind(dim=1):
            out |= drawn == one.unsqueeze(1)
        left = scores.gather(1, drawn).masked_fill(out, FLOOR)
    return torch.logsumexp(left, dim=1)


def own_masses(scores: Tensor, drawn: Tensor, target: Tensor, positives: Tensor) -> Tensor:
    """Return ``Z_ik`` of each further positive: row ``i``'s negatives without ``k``, ``(B, p)``.

    A positive that stood among its own negatives could not bring its loss below ``ln 2``. The
    negatives that are none of the positives are summed once; then each positive gets the others
    back as often as they were drawn. Nothing is taken off, so nothing cancels.

    Parameters
    ----------
    scores
        ``(B, N)``.
    drawn
        The negatives ``(B, M)``.
    target
        Items ``(B, 1)``; no negatives of any positive.
    positives
        Items ``(B, p)``, no two of a row the same.
    """
    rest = negative_mass(scores, drawn, torch.cat([target, positives], dim=1))
    times = torch.stack([(drawn == k.unsqueeze(1)).sum(dim=1) for k in positives.unbind(1)], dim=1)
    times = times.masked_fill(positives == target, 0)
    each = scores.gather(1, positives) + times.to(scores.dtype).log().clamp_min(FLOOR)
    itself = torch.eye(positives.shape[1], dtype=torch.bool, device=scores.device)
    others = each.unsqueeze(1).masked_fill(itself, FLOOR)
    return torch.logaddexp(rest.unsqueeze(1), torch.logsumexp(others, dim=2))


def positive_loss(mass: Tensor, scores: Tensor, items: Tensor) -> Tensor:
    """Return ``ln(1 + exp(Z - s_ik)) = -ln softmax(k | k, negatives)`` (eqs 8 to 11), ``(B, p)``.

    Parameters
    ----------
    mass
        ``Z_i`` ``(B,)``, the same for all of a row's positives, or ``Z_ik`` ``(B, p)``.
    scores
        ``(B, N)``.
    items
        Positives ``(B, p)``; each has a softmax of its own.
    """
    if mass.dim() == 1:
        mass = mass.unsqueeze(1)
    return F.softplus(mass - scores.gather(1, items))
