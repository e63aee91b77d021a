"""Levels of price: where an item's price lies among the prices of its category.

The range of a category comes from the items marked for fitting, which callers set to the items of
the training sessions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def price_levels(
    prices: ArrayLike,
    groups: Sequence[str] | NDArray[np.str_],
    fit: ArrayLike,
    steps: int = 99,
) -> NDArray[np.int64]:
    """Turn prices into levels inside each category.

    ``level = floor(steps * (p - min) / (max - min)) + 1``: only the dearest item reaches
    ``steps + 1``. Prices outside of what was seen take the nearest level.

    Parameters
    ----------
    prices
        ``(N,)``, NaN where unknown.
    groups
        Category of each item ``(N,)``; items without category form one of their own.
    fit
        bool ``(N,)``: items that the ranges are taken from.
    steps
        ``rho``; there are one more levels than steps.

    Returns
    -------
    numpy.ndarray
        int64 ``(N,)``: ``1 .. steps + 1``; ``ceil(steps / 2)`` in a category with one price only;
        ``steps + 2`` (unknown) without a price or in a category without any to fit on.
    """
    values = np.asarray(prices, dtype=np.float64)
    known = np.isfinite(values)
    usable = known & np.asarray(fit, dtype=bool)
    levels = np.full(len(values), steps + 2, dtype=np.int64)
    _, code = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    for members in _by_group(code, known):
        seen = values[members[usable[members]]]
        if len(seen):
            levels[members] = _levels(values[members], float(seen.min()), float(seen.max()), steps)
    return levels


def logistic_levels(
    prices: ArrayLike,
    groups: Sequence[str] | NDArray[np.str_],
    fit: ArrayLike,
    steps: int = 99,
) -> NDArray[np.int64]:
    """Turn prices into levels as `price_levels` does, where the steps hold about as many prices.

    Inside each category a price ``p`` counts as ``1 / (1 + exp(-(p - mean) / g))`` with
    ``g = sqrt(3) / pi`` times the deviation of its prices (CoHHN). Parameters and result as there.
    """
    values = np.asarray(prices, dtype=np.float64)
    known = np.isfinite(values)
    usable = known & np.asarray(fit, dtype=bool)
    _, code = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    shares = values.copy()
    for members in _by_group(code, known):
        seen = values[members[usable[members]]]
        deviation = seen.std(ddof=1) if len(seen) > 1 else 0.0
        if deviation > 0:
            place = (values[members] - seen.mean()) * math.pi / (math.sqrt(3) * deviation)
            shares[members] = 0.5 * (1 + np.tanh(place / 2))
    return price_levels(shares, groups, fit, steps)


def _by_group(code: NDArray[np.int64], known: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return, per group, the positions of its members that are known."""
    order = np.flatnonzero(known)
    order = order[np.argsort(code[order], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(order) else []


def _levels(prices: Floats, low: float, high: float, steps: int) -> NDArray[np.int64]:
    """Return the levels of prices in one category, given the range to fit on."""
    if low == high:
        return np.full(len(prices), math.ceil(steps / 2), dtype=np.int64)
    position = (np.clip(prices, low, high) - low) / (high - low)
    levels: NDArray[np.int64] = np.floor(steps * position).astype(np.int64) + 1
    return levels
