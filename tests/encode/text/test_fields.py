"""Texts made from columns of the item file."""

from __future__ import annotations

import json
import logging

import pytest

from recbole_mm.encode.text.fields import clean_text, default_fields, item_texts
from recbole_mm.errors import DataError, EncodeError

ITEMS = (
    "item_id:token\ttitle:token_seq\tbrand:token\tcategories:token_seq\tprice:float\n"
    "a\tRed  shirt\tAcme\tHome_&_Kitchen Shirts\t12.5\n"
    "b\t\t\t\t\n"
    "NA\tnull\t\t\t3\n"
    "a\tAnother\t\t\t\n"
)


def write(folder, content=ITEMS, card=None):
    (folder / "d.item").write_text(content, encoding="utf-8")
    if card is not None:
        (folder / "dataset.json").write_text(json.dumps(card), encoding="utf-8")


def test_fields_are_joined_and_empty_items_counted(tmp_path, caplog):
    write(tmp_path)
    with caplog.at_level(logging.WARNING):
        items = item_texts(tmp_path, "d", ["title", "brand", "categories"])
    assert items.texts == {"a": "Red shirt. Acme. Home_&_Kitchen Shirts", "NA": "null"}
    assert (items.empty, items.repeated) == (1, 1)
    assert "1 row(s) repeat an item" in caplog.text


def test_numbers_can_be_part_of_the_text(tmp_path):
    write(tmp_path)
    texts = item_texts(tmp_path, "d", ["brand", "price"]).texts
    assert texts == {"a": "Acme. 12.5", "NA": "3"}


def test_default_fields(tmp_path):
    write(tmp_path)
    assert default_fields(tmp_path, "d") == ["title", "brand", "categories"]
    write(tmp_path, card={"name": "d", "text_fields": ["brand", "title"]})
    assert default_fields(tmp_path, "d") == ["brand", "title"]


def test_no_usual_field(tmp_path):
    write(tmp_path, "item_id:token\tmovie_title:token_seq\na\tb\n")
    with pytest.raises(EncodeError, match=r"d\.item: no text column.*movie_title"):
        default_fields(tmp_path, "d")


def test_unknown_field_and_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"d\.item"):
        default_fields(tmp_path, "d")
    write(tmp_path)
    with pytest.raises(DataError, match="colour"):
        item_texts(tmp_path, "d", ["colour"])


@pytest.mark.parametrize(
    ("text", "clean"),
    [(None, ""), ("", ""), (" a\t b\n", "a b"), ("\ud800x", "?x"), ("שלום 🎉", "שלום 🎉")],
)
def test_clean_text(text, clean):
    assert clean_text(text) == clean
