"""How sure a difference is: intervals and paired tests over sessions.

Sessions are the unit that is drawn: rows of one session are not independent of each other. The
draws say how much other sessions would change a number; they do not say how much another seed
would, which is what the spread over seeds is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 5000
SEED = 2020
# Limits the memory of the draws: at most this many numbers at a time.
_DRAWN = 20_000_000


@dataclass(frozen=True)
class Difference:
    """A paired comparison of two rows of a table.

    Attributes
    ----------
    delta
        Mean of the first minus mean of the second.
    low, high
        95 % interval of ``delta``, by bootstrap over sessions.
    p
        Two-sided p of "no difference", of the same draws.
    n
        Number of sessions.
    """

    delta: float
    low: float
    high: float
    p: float
    n: int


def interval(values: np.ndarray, sessions: Sequence[str]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean over rows.

    Parameters
    ----------
    values
        ``(n,)`` one number per row, for example its mean reciprocal rank over seeds.
    sessions
        ``(n,)`` session of each row; whole sessions are drawn.

    Returns
    -------
    tuple
        Lower and upper end; both ``nan`` for fewer than two sessions.
    """
    low, high, _ = _bootstrap(values, sessions)
    return low, high


def paired_difference(ours: np.ndarray, theirs: np.ndarray, sessions: Sequence[str]) -> Difference:
    """Compare two systems on the same rows, row by row, by the paired bootstrap.

    Whole sessions are drawn with both systems' numbers. With B draws of which b have a mean
    difference of at most 0 and c one of at least 0, p is ``2 (1 + min(b, c)) / (1 + B)``, at most
    1 (Efron and Tibshirani 1993, ch. 15 and 16). Interval and p so speak of the same mean, which a
    rank test such as Wilcoxon's does not: it may find the typical session worse and the mean equal.

    Parameters
    ----------
    ours, theirs
        ``(n,)`` one number per row, for example its mean reciprocal rank over seeds.
    sessions
        ``(n,)`` session of each row.
    """
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    low, high, draws = _bootstrap(difference, sessions)
    fewer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p = min(1.0, 2 * (1 + fewer) / (1 + len(draws))) if len(draws) else float("nan")
    return Difference(float(difference.mean()), low, high, p, len(set(sessions)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for the number of tests by Holm's step-down method, keeping their order.

    The i-th smallest of m (from 0) becomes the largest of ``(m - j) * p_j`` over j up to i, at
    most 1 (Holm 1979).
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=np.float64)[order] * (len(order) - np.arange(len(order)))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(p) for p in corrected]


def _bootstrap(values: np.ndarray, sessions: Sequence[str]) -> tuple[float, float, np.ndarray]:
    """Return the ends of the interval of the mean and the means that were drawn."""
    sums, counts = _by_session(values, sessions)
    if len(sums) < 2:
        return float("nan"), float("nan"), np.empty(0)
    found = stats.bootstrap(
        (sums, counts),
        _ratio,
        n_resamples=RESAMPLES,
        batch=max(1, _DRAWN // len(sums)),
        paired=True,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    )
    low, high = found.confidence_interval
    return float(low), float(high), found.bootstrap_distribution


def _by_session(values: np.ndarray, sessions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the values and the number of rows of each session."""
    _, place = np.unique(np.asarray(sessions), return_inverse=True)
    counts = np.bincount(place)
    return np.bincount(place, weights=values), counts.astype(np.float64)


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean over rows of drawn sessions."""
    return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))
