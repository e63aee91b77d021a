"""Levels of price: where an item's price lies among the prices of its category.

What is estimated (ranges, means, ranks) comes from the items marked for fitting, which callers set
to the items of the training sessions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from recbole_mm.errors import ConfigError

Floats = NDArray[np.float64]


def price_levels(
    prices: ArrayLike,
    groups: Sequence[str] | NDArray[np.str_],
    fit: ArrayLike,
    binning: str = "linear",
    steps: int = 99,
) -> NDArray[np.int64]:
    """Turn prices into levels inside each category.

    With ``x`` in 0..1 the position of a price in its category,
    ``level = floor(steps * x) + 1``: only the dearest item reaches ``steps + 1``. Prices outside of
    what was seen take the nearest level.

    Parameters
    ----------
    prices
        ``(N,)``, NaN where unknown.
    groups
        Category of each item ``(N,)``; items without category form one of their own.
    fit
        bool ``(N,)``: items that ranges, means and ranks are taken from.
    binning
        Position of a price: ``"linear"`` between the lowest and the highest one; ``"logistic"``, by
        a logistic distribution with the category's mean and standard deviation, stretched to
        0..1; ``"quantile"``, by rank.
    steps
        ``rho``; there are one more levels than steps.

    Returns
    -------
    numpy.ndarray
        int64 ``(N,)``: ``1 .. steps + 1``; ``ceil(steps / 2)`` in a category with one price only;
        ``steps + 2`` (unknown) without a price or in a category without any to fit on.

    Raises
    ------
    ConfigError
        An unknown binning.
    """
    if binning not in _POSITIONS:
        raise ConfigError(f"price_binning = {binning!r}; expected {', '.join(_POSITIONS)}")
    values = np.asarray(prices, dtype=np.float64)
    known = np.isfinite(values)
    usable = known & np.asarray(fit, dtype=bool)
    levels = np.full(len(values), steps + 2, dtype=np.int64)
    _, code = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    for members in _by_group(code, known):
        seen = values[members[usable[members]]]
        if len(seen):
            levels[members] = _levels(values[members], np.sort(seen), binning, steps)
    return levels


def _by_group(code: NDArray[np.int64], known: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return, per group, the positions of its members that are known."""
    order = np.flatnonzero(known)
    order = order[np.argsort(code[order], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(order) else []


def _levels(prices: Floats, seen: Floats, binning: str, steps: int) -> NDArray[np.int64]:
    """Return the levels of prices in one category, given the sorted prices to fit on."""
    if seen[0] == seen[-1]:
        return np.full(len(prices), math.ceil(steps / 2), dtype=np.int64)
    position = _POSITIONS[binning](np.clip(prices, seen[0], seen[-1]), seen)
    return np.floor(steps * position).astype(np.int64) + 1


def _linear(prices: Floats, seen: Floats) -> Floats:
    """Return ``(p - min) / (max - min)``."""
    return (prices - seen[0]) / (seen[-1] - seen[0])


def _logistic(prices: Floats, seen: Floats) -> Floats:
    """Return ``(F(p) - F(min)) / (F(max) - F(min))``, ``F`` logistic with scale std sqrt(3)/pi."""
    scale = seen.std(ddof=1) * math.sqrt(3) / math.pi
    below = expit((prices - seen.mean()) / scale)
    low, high = expit((seen[[0, -1]] - seen.mean()) / scale)
    return (below - low) / (high - low)


def _quantile(prices: Floats, seen: Floats) -> Floats:
    """Return the rank from 0 to 1; equal prices share the mean of their ranks."""
    below = np.searchsorted(seen, prices, "left")
    up_to = np.searchsorted(seen, prices, "right")
    return np.clip((below + up_to - 1) / 2 / (len(seen) - 1), 0.0, 1.0)


_POSITIONS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "linear": _linear,
    "logistic": _logistic,
    "quantile": _quantile,
}
