"""Levels of price against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_mm.errors import ConfigError
from recbole_mm.model.mmsbr.price_levels import price_levels

FOUR = [10.0, 20.0, 30.0, 110.0]


def levels(prices, binning="linear", steps=99, groups=None, fit=None):
    groups = ["a"] * len(prices) if groups is None else groups
    fit = [True] * len(prices) if fit is None else fit
    return price_levels(prices, groups, fit, binning, steps).tolist()


@pytest.mark.parametrize(
    ("binning", "steps", "expected"),
    [
        ("linear", 99, [1, 10, 20, 100]),
        ("linear", 10, [1, 2, 3, 11]),
        # mean 42.5, std 45.734742 (n - 1), scale 25.214885; F scaled to 0, .103657, .225824, 1
        ("logistic", 99, [1, 11, 23, 100]),
        ("logistic", 50, [1, 6, 12, 51]),
        ("logistic", 10, [1, 2, 3, 11]),
        ("quantile", 99, [1, 34, 67, 100]),
        ("quantile", 10, [1, 4, 7, 11]),
    ],
)
def test_levels_by_hand(binning, steps, expected):
    assert levels(FOUR, binning, steps) == expected


def test_the_logistic_scale_takes_the_sample_deviation():
    # With n in place of n - 1, F(30) would be .228526 and 1000 steps would tell.
    assert levels(FOUR, "logistic", 1000)[2] == 226


def test_the_survival_function_gives_the_same_levels():
    prices = np.array(FOUR)
    survival = 1 / (1 + np.exp((prices - 42.5) / 25.214885))
    position = (survival - survival[0]) / (survival[-1] - survival[0])
    assert levels(FOUR, "logistic", 50) == (np.floor(50 * position).astype(int) + 1).tolist()


def test_equal_prices_share_a_level():
    assert levels([5.0, 7.0, 7.0, 7.0, 9.0], "quantile", 4) == [1, 3, 3, 3, 5]


def test_each_category_has_its_own_range():
    groups = ["a", "b", "a", "b", ""]
    assert levels([1.0, 100.0, 3.0, 500.0, 7.0], steps=10, groups=groups) == [1, 1, 11, 11, 5]


@pytest.mark.parametrize("binning", ["linear", "logistic", "quantile"])
def test_one_price_gives_the_middle_level(binning):
    assert levels([5.0, 5.0, 5.0], binning, 99) == [50, 50, 50]
    assert levels([5.0], binning, 10) == [5]
    assert levels([5.0], binning, 1) == [1]


def test_unknown_prices_and_categories_have_a_level_of_their_own():
    prices, groups = [1.0, np.nan, 2.0, 4.0], ["a", "a", "a", "new"]
    fit = [True, True, True, False]
    assert levels(prices, steps=10, groups=groups, fit=fit) == [1, 12, 11, 12]


@pytest.mark.parametrize("binning", ["linear", "logistic", "quantile"])
def test_only_fitted_items_make_the_range(binning):
    fit = [True, True, True, True, False, False]
    assert levels([*FOUR, 1.0, 900.0], binning, 99, fit=fit)[4:] == [1, 100]
    assert levels([*FOUR, 5.0, 7.0], binning, 99, fit=fit)[:4] == levels(FOUR, binning, 99)


def test_an_unknown_binning_is_named():
    with pytest.raises(ConfigError, match="price_binning = 'log'.*linear, logistic, quantile"):
        levels(FOUR, "log")


@given(
    st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30),
    st.integers(1, 120),
    st.sampled_from(["linear", "logistic", "quantile"]),
)
def test_levels_keep_the_order_and_the_bounds(prices, steps, binning):
    found = np.array(levels(prices, binning, steps))
    assert found.min() >= 1 and found.max() <= steps + 1
    assert (np.diff(found[np.argsort(prices, kind="stable")]) >= 0).all()
