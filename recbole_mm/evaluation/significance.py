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
RESAMPLES = 2000
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
        Two-sided p of Wilcoxon's signed-rank test over sessions.
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
    sums, counts = _by_session(values, sessions)
    if len(sums) < 2:
        return float("nan"), float("nan")
    found = stats.bootstrap(
        (sums, counts),
        _ratio,
        n_resamples=RESAMPLES,
        batch=max(1, _DRAWN // len(sums)),
        paired=True,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


def paired_difference(ours: np.ndarray, theirs: np.ndarray, sessions: Sequence[str]) -> Difference:
    """Compare two systems on the same rows, row by row.

    Wilcoxon's test looks at the sessions' mean differences. Sessions without a difference are
    split evenly between the signs (scipy's ``zsplit``), so a system against itself has p = 1.

    Parameters
    ----------
    ours, theirs
        ``(n,)`` one number per row, for example its mean reciprocal rank over seeds.
    sessions
        ``(n,)`` session of each row.
    """
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    sums, counts = _by_session(difference, sessions)
    p = stats.wilcoxon(sums / counts, zero_method="zsplit").pvalue if sums.any() else 1.0
    low, high = interval(difference, sessions)
    return Difference(float(difference.mean()), low, high, float(p), len(sums))


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


def _by_session(values: np.ndarray, sessions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the values and the number of rows of each session."""
    _, place = np.unique(np.asarray(sessions), return_inverse=True)
    counts = np.bincount(place)
    return np.bincount(place, weights=values), counts.astype(np.float64)


def _ratio(sums: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean over rows of drawn sessions."""
    return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))
