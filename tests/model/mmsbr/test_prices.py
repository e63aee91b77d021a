"""Prices and categories, read from the columns of the ``.item`` file by item token."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_mm.data.item_columns import ItemColumns
from recbole_mm.errors import DataError
from recbole_mm.model.mmsbr.prices import (
    CATEGORY_COLUMNS,
    PRICE_COLUMNS,
    find_column,
    item_categories,
    item_prices,
    read_prices,
)
from recbole_mm.model.mmsbr.settings import MMSBRSettings

ITEMS = """item_id:token\tprice:token\tcost:float\tcategories:token_seq\tkind:token
b\t$12.99\t2.5\ttools hand_tools\tsaws, fine
a\t12,99 - 15\t\ttools\t
a\t99\t99\tother\tother
[PAD]\t7\t7\tpadding\tpadding
c\tcall us\t-1\t\tsaws
stranger\t5\t5\tx\ty
e\t1,299.50 EUR\t0\t tools  drills \tdrills
"""
TOKENS = ["[PAD]", "a", "b", "c", "d", "e"]


@pytest.fixture
def columns(tmp_path):
    (tmp_path / "shop.item").write_text(ITEMS)
    return ItemColumns(tmp_path / "shop.item", "item_id", TOKENS)


def test_texts_are_read_as_prices(columns):
    expected = [np.nan, 13.995, 12.99, np.nan, np.nan, 1299.5]
    np.testing.assert_array_equal(item_prices(columns, "price"), expected)


def test_numbers_are_taken_as_they_are_and_must_be_above_zero(columns):
    expected = [np.nan, np.nan, 2.5, np.nan, np.nan, np.nan]
    np.testing.assert_array_equal(item_prices(columns, "cost"), expected)


def test_the_last_entry_is_the_category(columns):
    assert item_categories(columns, "categories").tolist() == [
        "", "tools", "hand_tools", "", "", "drills",
    ]  # fmt: skip


def test_entries_are_parted_as_the_data_set_says(columns):
    columns.separator = "_"
    assert item_categories(columns, "categories")[2] == "tools"


def test_a_token_is_a_category_as_a_whole(columns):
    assert item_categories(columns, "kind").tolist() == ["", "", "saws, fine", "saws", "", "drills"]


def test_columns_are_found_by_name_or_by_habit(columns):
    assert find_column(columns, None, PRICE_COLUMNS) == "price"
    assert find_column(columns, None, CATEGORY_COLUMNS) == "categories"
    assert find_column(columns, "kind", CATEGORY_COLUMNS) == "kind"
    assert find_column(columns, None, ("absent",)) is None
    with pytest.raises(DataError, match="no item column 'absent'.*price, cost, categories, kind"):
        find_column(columns, "absent", PRICE_COLUMNS)


def test_a_data_set_without_an_item_file_has_no_columns(tmp_path):
    columns = ItemColumns(tmp_path / "none.item", "item_id", TOKENS)
    assert find_column(columns, None, PRICE_COLUMNS) is None
    with pytest.raises(DataError, match=r"none\.item: no item column 'price'.*has: none"):
        find_column(columns, "price", PRICE_COLUMNS)


def test_levels_and_categories_by_hand(columns):
    """Training holds b (12.99), c (no price) and e (1299.50)."""
    seen = np.array([False, False, True, True, False, True])
    known = read_prices(columns, MMSBRSettings(category_field="kind", price_levels=10), seen)
    # b and e are alone in their categories: the middle level; a has no category, c no price.
    assert known.levels.tolist() == [0, 12, 5, 12, 12, 5]
    assert known.categories.tolist() == [0, 4, 3, 2, 4, 1]
    assert (known.n_levels, known.n_categories) == (13, 5)
    assert known.priced.tolist() == [False, True, True, False, False, True]
    whole = read_prices(columns, MMSBRSettings(use_category=False, price_levels=10), seen)
    assert whole.categories is None
    assert whole.levels.tolist() == [0, 1, 1, 12, 12, 11]


def test_nothing_is_read_of_prices_that_are_not_wanted(columns):
    seen = np.ones(6, dtype=bool)
    assert read_prices(columns, MMSBRSettings(use_price=False), seen) is None
    seen[:] = [False, False, False, True, True, False]  # neither of the two has a price
    assert read_prices(columns, MMSBRSettings(), seen) is None
