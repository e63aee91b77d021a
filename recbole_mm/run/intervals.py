"""Intervals and differences that several pages and tables ask for, drawn once.

The bootstrap of a hundred thousand sessions takes seconds, and one comparison shows the same
interval in Markdown, in CSV and on its page.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from recbole_mm.evaluation.significance import Difference, interval, paired_difference


def interval_of(values: np.ndarray, sessions: Sequence[str]) -> tuple[float, float]:
    """Return what `recbole_mm.evaluation.significance.interval` does, from memory if it can."""
    return _interval(np.asarray(values, dtype=np.float64).tobytes(), tuple(sessions))


def difference_of(ours: np.ndarray, theirs: np.ndarray, sessions: Sequence[str]) -> Difference:
    """Return what `recbole_mm.evaluation.significance.paired_difference` does, from memory too."""
    both = (np.asarray(values, dtype=np.float64).tobytes() for values in (ours, theirs))
    return _difference(*both, tuple(sessions))


@lru_cache(maxsize=128)
def _interval(values: bytes, sessions: tuple[str, ...]) -> tuple[float, float]:
    return interval(np.frombuffer(values), sessions)


@lru_cache(maxsize=128)
def _difference(ours: bytes, theirs: bytes, sessions: tuple[str, ...]) -> Difference:
    return paired_difference(np.frombuffer(ours), np.frombuffer(theirs), sessions)
