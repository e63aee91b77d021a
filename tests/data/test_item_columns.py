"""Texts of items out of the columns of ``.item``."""

from __future__ import annotations

from pathlib import Path

from recbole_mm.data.item_columns import ItemColumns, usual_texts

TABLE = [
    "item_id:token\ttitle:token_seq\tprice:float\tbrand:token\tclass:token_seq",
    "b\tred  lamp\t3\tAcme\tlight",
    "a\t\t\tBolt\t",
    "z\tunknown item\t1\tNo\tnone",
]


def columns(folder: Path) -> ItemColumns:
    path = folder / "shop.item"
    path.write_text("\n".join(TABLE) + "\n", "utf-8")
    return ItemColumns(path, "item_id", ["[PAD]", "a", "b", "c"])


def test_usual_columns_are_joined_by_item_id(tmp_path: Path) -> None:
    assert usual_texts(columns(tmp_path)) == ["", "Bolt", "red  lamp Acme", ""]


def test_the_card_names_the_columns(tmp_path: Path) -> None:
    assert usual_texts(columns(tmp_path), ("class", "title")) == ["", "", "light red  lamp", ""]


def test_no_column_no_texts(tmp_path: Path) -> None:
    assert usual_texts(columns(tmp_path), ("@image",)) == []
    assert usual_texts(ItemColumns(tmp_path / "none.item", "item_id", ["[PAD]", "a"])) == []
