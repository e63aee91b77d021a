"""Prices and categories, read from the ``.item`` file by item token."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from recbole_mm.errors import DataError
from recbole_mm.model.mmsbr.item_columns import (
    CATEGORY_COLUMNS,
    PRICE_COLUMNS,
    find_column,
    item_categories,
    item_prices,
)

ITEMS = """item_id:token\tprice:token\tcost:float\tcategories:token_seq\tkind:token
b\t$12.99\t2.5\ttools hand_tools\tsaws, fine
a\t12,99 - 15\t\ttools\t
a\t99\t99\tother\tother
[PAD]\t7\t7\tpadding\tpadding
c\tcall us\t-1\t\tsaws
stranger\t5\t5\tx\ty
e\t1,299.50 EUR\t0\t tools  drills \tdrills
"""


@pytest.fixture
def dataset(tmp_path):
    (tmp_path / "shop.item").write_text(ITEMS)
    return SimpleNamespace(
        dataset_path=str(tmp_path),
        dataset_name="shop",
        iid_field="item_id",
        field2id_token={"item_id": np.array(["[PAD]", "a", "b", "c", "d", "e"])},
        config={"seq_separator": " "},
    )


def test_texts_are_read_as_prices(dataset):
    expected = [np.nan, 13.995, 12.99, np.nan, np.nan, 1299.5]
    np.testing.assert_array_equal(item_prices(dataset, "price"), expected)


def test_numbers_are_taken_as_they_are_and_must_be_above_zero(dataset):
    expected = [np.nan, np.nan, 2.5, np.nan, np.nan, np.nan]
    np.testing.assert_array_equal(item_prices(dataset, "cost"), expected)


def test_the_last_entry_is_the_category(dataset):
    assert item_categories(dataset, "categories").tolist() == [
        "", "tools", "hand_tools", "", "", "drills",
    ]  # fmt: skip


def test_a_token_is_a_category_as_a_whole(dataset):
    assert item_categories(dataset, "kind").tolist() == ["", "", "saws, fine", "saws", "", "drills"]


def test_columns_are_found_by_name_or_by_habit(dataset):
    assert find_column(dataset, None, PRICE_COLUMNS) == "price"
    assert find_column(dataset, None, CATEGORY_COLUMNS) == "categories"
    assert find_column(dataset, "kind", CATEGORY_COLUMNS) == "kind"
    assert find_column(dataset, None, ("absent",)) is None
    with pytest.raises(DataError, match="no item column 'absent'.*price, cost, categories, kind"):
        find_column(dataset, "absent", PRICE_COLUMNS)


def test_a_data_set_without_an_item_file_has_no_columns(dataset, tmp_path):
    (tmp_path / "shop.item").unlink()
    assert find_column(dataset, None, PRICE_COLUMNS) is None
    with pytest.raises(DataError, match="no item column 'price'"):
        find_column(dataset, "price", PRICE_COLUMNS)
