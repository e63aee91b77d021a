"""Intervals from memory are those that would be drawn."""

from __future__ import annotations

import numpy as np

from recbole_mm.evaluation.significance import interval, paired_difference
from recbole_mm.run import intervals


def test_they_are_drawn_once_and_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(60), rng.random(60)
    sessions = [f"s{n // 2}" for n in range(60)]
    assert intervals.interval_of(ours, sessions) == interval(ours, sessions)
    assert intervals.difference_of(ours, theirs, sessions) == paired_difference(
        ours, theirs, sessions
    )
    monkeypatch.setattr(intervals, "interval", None)
    assert intervals.interval_of(ours.copy(), list(sessions)) == interval(ours, sessions)
    assert (
        intervals.difference_of(theirs, ours, sessions).delta
        == -intervals.difference_of(ours, theirs, sessions).delta
    )
