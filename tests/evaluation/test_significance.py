from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from recbole_mm.evaluation.significance import holm, interval, paired_difference


def names(n, per_session=1):
    return [f"s{row // per_session}" for row in range(n)]


def test_a_system_against_itself():
    values = np.random.default_rng(0).random(300)
    found = paired_difference(values, values.copy(), names(300))
    assert (found.delta, found.low, found.high, found.p, found.n) == (0.0, 0.0, 0.0, 1.0, 300)


def test_a_planted_difference_is_found_and_noise_is_not():
    rng = np.random.default_rng(1)
    base = 1.0 / rng.integers(1, 50, 400)
    better = np.where(rng.random(400) < 0.3, 1.0, base)
    found = paired_difference(better, base, names(400))
    assert found.p < 0.001 and found.low > 0
    assert found.delta == pytest.approx(np.mean(better - base))
    mirrored = paired_difference(base, better, names(400))
    assert mirrored.p == found.p and mirrored.delta == -found.delta
    noise = base + rng.normal(0, 0.01, 400)
    unsure = paired_difference(noise, base, names(400))
    assert unsure.p > 0.01 and unsure.low < 0 < unsure.high


def test_p_and_interval_agree_and_are_near_the_t_test():
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.02, 0.05, 0.1):
        ours, theirs = rng.random(400) + shift, rng.random(400)
        found = paired_difference(ours, theirs, names(400))
        assert found.p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, abs=0.03)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_the_smallest_p_is_bounded_by_the_draws():
    found = paired_difference(np.ones(50), np.zeros(50), names(50))
    assert found.p == 2 / 5001


def test_rows_of_one_session_count_once():
    rng = np.random.default_rng(3)
    ours, theirs = rng.random(60), rng.random(60)
    doubled = paired_difference(np.repeat(ours, 5), np.repeat(theirs, 5), names(300, 5))
    single = paired_difference(ours, theirs, [f"s{row}" for row in range(60)])
    assert (doubled.p, doubled.n) == (single.p, 60)
    assert doubled.low == pytest.approx(single.low) and doubled.high == pytest.approx(single.high)


def test_the_interval_covers_the_mean_about_as_a_normal_one():
    values = np.random.default_rng(4).random(2000)
    low, high = interval(values, names(2000))
    half = 1.96 * values.std() / math.sqrt(2000)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)
    assert interval(values, names(2000)) == (low, high)


def test_one_session_has_no_interval():
    assert all(math.isnan(end) for end in interval(np.array([0.5, 0.7]), ["a", "a"]))
    found = paired_difference(np.array([0.5]), np.array([0.7]), ["a"])
    assert math.isnan(found.p) and found.n == 1


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
