"""The strict reader and writer of atomic files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_mm.data.atomic import header, read_atomic, write_atomic
from recbole_mm.data.card import DatasetCard, load_dataset_card
from recbole_mm.errors import DataError

GOOD = "item_id:token\ttitle:token_seq\tprice:float\n"


def write(tmp_path: Path, content: bytes | str) -> Path:
    path = tmp_path / "shop.item"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_reads_quotes_na_and_missing_cells_as_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + '"a\t5" screen\t12.5\nNA\t\t\nnull\tx "y\t-3\n')
    frame = read_atomic(path)
    assert frame["item_id"].tolist() == ['"a', "NA", "null"]
    assert frame["title"].tolist() == ['5" screen', "", 'x "y']
    np.testing.assert_array_equal(frame["price"], [12.5, np.nan, -3.0])


def test_accepts_byte_order_mark_and_crlf(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode() + "é\tü\t1\r\n".encode()
    frame = read_atomic(write(tmp_path, content))
    assert frame.columns.tolist() == ["item_id", "title", "price"]
    assert frame.iloc[0].tolist() == ["é", "ü", 1.0]


def test_header_gives_types(tmp_path: Path) -> None:
    types = header(write(tmp_path, GOOD + "a\tb\t1\n"))
    assert types == {"item_id": "token", "title": "token_seq", "price": "float"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (GOOD, "header without rows"),
        ("item_id\tprice:float\na\t1\n", "line 1: header cell 'item_id' is not name:type"),
        ("item_id:token\tprice:money\na\t1\n", "line 1: header cell 'price:money'"),
        ("item_id:token\titem_id:token\na\tb\n", "line 1: column item_id stands twice"),
        (GOOD + "a\tb\t1\na\tb\n", r"line 3: 2 cell\(s\), expected 3"),
        (GOOD + "a\tb\tc\t1\na\tb\n", r"line 2: 4 cell\(s\), expected 3"),
        (GOOD + "a\tb\t1\n\nb\tc\t2\n", r"line 3: 1 cell\(s\), expected 3"),
        (GOOD.encode() + b"a\tb\t1\n\xff\xfe\tb\t2\n", "line 3: the bytes are not UTF-8"),
        (GOOD + "a\tone\rtwo\t1\n", "line 2: a carriage return"),
        (GOOD + "a\tone\0two\t1\n", "line 2: a NUL"),
        (GOOD + "a\tb\t1\nb\tc\t$12.99\n", r"line 3: price is '\$12.99', expected a finite number"),
        (GOOD + "a\tb\tinf\n", "line 2: price is 'inf'"),
        (GOOD + "a\tb\tnan\n", "line 2: price is 'nan'"),
    ],
)
def test_bad_files_are_named_with_their_line(
    tmp_path: Path, content: bytes | str, message: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        read_atomic(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_missing_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_atomic(tmp_path / "none.inter")
    with pytest.raises(DataError, match="brand not found. The header has: item_id, title, price"):
        read_atomic(write(tmp_path, GOOD + "a\tb\t1\n"), ["item_id", "brand"])


def test_columns_that_are_not_asked_for_are_not_judged(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "a\tb\t$12.99\n")
    assert read_atomic(path, ["item_id"])["item_id"].tolist() == ["a"]


cell = st.text(st.characters(codec="utf-8", exclude_characters='"'), max_size=8)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(cell, st.floats(allow_nan=False, allow_infinity=False)), min_size=1))
def test_write_then_read_gives_the_text_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("round") / "x.item"
    frame = pd.DataFrame(rows, columns=["title", "price"])
    write_atomic(path, frame, {"title": "token_seq", "price": "float"})
    back = read_atomic(path)
    # White space is folded to single blanks, because tabs and line ends would break the file.
    expected = [" ".join(title.replace("\0", " ").split()) for title, _ in rows]
    assert [" ".join(text.split()) for text in back["title"]] == expected
    np.testing.assert_array_equal(back["price"], frame["price"])


def test_writing_never_loses_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "a\tb\t1\n")
    before = path.read_bytes()
    with pytest.raises(DataError, match="cannot write column"):
        write_atomic(path, pd.DataFrame({"title": ["x"]}), {"title": "text"})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_card_round_trip_and_bad_cards(tmp_path: Path) -> None:
    card = DatasetCard("shop", "made up", "CC0", "real", True, "one visit", ("title",), {"x": 1})
    card.save(tmp_path)
    assert load_dataset_card(tmp_path) == card
    assert load_dataset_card(tmp_path / "nowhere") == DatasetCard(name="nowhere")
    for content, message in (
        ("{", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ('{"name": 1}', "name is 1, expected text"),
        ('{"name": "x", "session": null}', "session is None, expected text"),
        ('{"name": "x", "report": []}', "expected an object"),
        ('{"nam": 1}', "expected an object with name"),
        ('{"name": "x", "timestamps": "true"}', "expected one of real, positional, unknown"),
        ('{"name": "x", "synthetic": "no"}', "expected true or false"),
        ('{"name": "x", "text_fields": "title"}', "expected a list of column names"),
    ):
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(DataError, match=message):
            load_dataset_card(tmp_path)
