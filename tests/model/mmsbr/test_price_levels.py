"""Levels of price against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_mm.model.mmsbr.price_levels import logistic_levels, price_levels

FOUR = [10.0, 20.0, 30.0, 110.0]


def levels(prices, steps=99, groups=None, fit=None):
    groups = ["a"] * len(prices) if groups is None else groups
    fit = [True] * len(prices) if fit is None else fit
    return price_levels(prices, groups, fit, steps).tolist()


@pytest.mark.parametrize(
    ("steps", "expected"), [(99, [1, 10, 20, 100]), (10, [1, 2, 3, 11]), (1, [1, 1, 1, 2])]
)
def test_levels_by_hand(steps, expected):
    assert levels(FOUR, steps) == expected


def test_logistic_levels_by_hand():
    """The mean is 42.5, the deviation 45.73: shares of .216, .291, .379 and .936 of the way."""
    every = [True] * 4
    assert logistic_levels(FOUR, ["a"] * 4, every, 99).tolist() == [1, 11, 23, 100]
    # A price that is not fitted on moves nothing, and takes the nearest level.
    more = logistic_levels([*FOUR, 9000.0], ["a"] * 5, [*every, False], 99)
    assert more.tolist() == [1, 11, 23, 100, 100]
    # Each category by itself; one price alone, and none.
    prices, groups = [*FOUR, 7.0, np.nan], ["a"] * 4 + ["b", "a"]
    found = logistic_levels(prices, groups, [True] * 6, 99)
    assert found.tolist() == [1, 11, 23, 100, 50, 101]


def test_each_category_has_its_own_range():
    groups = ["a", "b", "a", "b", ""]
    assert levels([1.0, 100.0, 3.0, 500.0, 7.0], steps=10, groups=groups) == [1, 1, 11, 11, 5]


def test_one_price_gives_the_middle_level():
    assert levels([5.0, 5.0, 5.0], 99) == [50, 50, 50]
    assert levels([5.0], 10) == [5]
    assert levels([5.0], 1) == [1]


def test_unknown_prices_and_categories_have_a_level_of_their_own():
    prices, groups = [1.0, np.nan, 2.0, 4.0], ["a", "a", "a", "new"]
    fit = [True, True, True, False]
    assert levels(prices, steps=10, groups=groups, fit=fit) == [1, 12, 11, 12]


def test_only_fitted_items_make_the_range():
    fit = [True, True, True, True, False, False]
    assert levels([*FOUR, 1.0, 900.0], fit=fit)[4:] == [1, 100]
    assert levels([*FOUR, 5.0, 7.0], fit=fit)[:4] == levels(FOUR)


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=30), st.integers(1, 120))
def test_levels_keep_the_order_and_the_bounds(prices, steps):
    found = np.array(levels(prices, steps))
    assert found.min() >= 1 and found.max() <= steps + 1
    assert (np.diff(found[np.argsort(prices, kind="stable")]) >= 0).all()
