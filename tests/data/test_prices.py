from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recbole_mm.data.prices import parse_price, parse_prices


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12.99", 12.99),
        ("$12.99", 12.99),
        ("12,99", 12.99),
        ("12,5 €", 12.5),
        ("1,299", 1299.0),
        ("1,299.50", 1299.5),
        ("1.299,50", 1299.5),
        ("1.299", 1.299),
        ("1.299.000", 1_299_000.0),
        ("0,125", 0.125),
        ("1 299,00 kr", 1299.0),
        ("CHF 1'299.95", 1299.95),
        ("US$ 5", 5.0),
        ("EUR12", 12.0),
        ("12EUR", 12.0),
        (".99", 0.99),
        (" 7. ", 7.0),
        ("1e3", 1000.0),
    ],
)
def test_one_number(text, value):
    assert parse_price(text) == (value, "read")


@pytest.mark.parametrize("text", ["$10 - $20", "10-20", "10.00 – 20,00", "10 to 20", "10~20 EUR"])
def test_a_range_is_its_mean(text):
    assert parse_price(text) == (15.0, "range_read_as_its_mean")


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("NaN", "empty"),
        ("None", "empty"),
        ("—", "empty"),
        ("0", "not_positive"),
        ("$0.00", "not_positive"),
        ("-5", "not_positive"),
        ("$-5", "not_positive"),
        ("-$5.00", "not_positive"),
        ("(5.00)", "not_positive"),
        ("0 - 5", "not_positive"),
        ("1e999", "not_positive"),
        ("inf", "unreadable"),
        ("call us", "unreadable"),
        ("X200", "unreadable"),
        ("12.99 per 100", "unreadable"),
        ("5 - 6 - 7", "unreadable"),
        ("1,2,3", "unreadable"),
        ("1.2.3", "unreadable"),
        ("5 kg", "unreadable"),
        ("12 345 6", "unreadable"),
    ],
)
def test_missing_prices(text, outcome):
    value, got = parse_price(text)
    assert math.isnan(value) and got == outcome


def test_counts_of_a_column():
    values, counts = parse_prices(["$1", "", "x", "1-3", "$1"])
    assert np.array_equal(values, [1, math.nan, math.nan, 2, 1], equal_nan=True)
    assert counts == {"empty": 1, "range_read_as_its_mean": 1, "read": 2, "unreadable": 1}


@given(st.text())
@example("\0")
@example("\0 5 \0")
def test_any_text_is_a_positive_price_or_missing(text):
    value, outcome = parse_price(text)
    assert (value > 0 and math.isfinite(value)) == outcome.startswith(("read", "range"))


@given(st.integers(1, 10**9))
def test_english_and_german_writing_agree(cents):
    english = f"{cents / 100:,.2f}"
    german = english.translate(str.maketrans(",.", ".,"))
    assert parse_price(f"${english}")[0] == parse_price(f"{german} €")[0] == cents / 100
