"""Columns told from their names, what is missing named at once, and kinds of events."""

from __future__ import annotations

import logging

import pytest

from recbole_mm.cli import main
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import ConfigError
from recbole_mm.prepare.tabular.guess import complete, first_of
from recbole_mm.prepare.tabular.job import prepare_tabular
from recbole_mm.prepare.tabular.options import TableOptions

CLICKS = """Visitor ID,event,Product-ID,Event Time
u,view,a,2024-05-31T10:00
u,buy,a,2024-05-31T10:01
u,view,b,2024-05-31T10:02
u,buy,b,2024-05-31T12:00
u,buy,c,2024-05-31T12:01
"""
GOODS = """id,Name,brand,Price,photo,stock
a,Tea,Norvik,$4,pics/tea.jpg,3
b,Cup,,5,http://shop.example/cup.png,4
c,Pot,Norvik,6,,5
"""


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "i.csv").write_text(CLICKS)
    (tmp_path / "g.csv").write_text(GOODS)
    return tmp_path


def options(shop, **more):
    return TableOptions("shop", str(shop / "i.csv"), **more)


def test_names_in_order_of_preference_without_case_and_signs():
    assert first_of(["itemid", "sku"], ["SKU", "Item_ID"]) == "Item_ID"
    assert first_of(["itemid", "sku"], ["other", "S.K.U"]) == "S.K.U"
    assert first_of(["itemid"], ["items", "theitemid"]) is None


def test_what_was_guessed_is_shown_and_kept(shop, capsys):
    argv = [
        "prepare", "tabular", f"--out={shop}", "--dataset=shop", f"--inter={shop}/i.csv",
        f"--items={shop}/g.csv",
    ]  # fmt: skip
    assert main(argv) == 0
    guessed = (
        '--item_col=Product-ID --time_col="Event Time" --user_col="Visitor ID" '
        "--items_item_col=id --text_cols=Name,brand --price_col=Price --image_col=photo"
    )
    assert f"guessed: {guessed}" in capsys.readouterr().out
    card = load_dataset_card(shop / "shop")
    assert card.report["guessed"] == guessed
    assert (card.image_field, card.image_folder, card.text_fields) == (
        "photo", "..", ("Name", "brand"),
    )  # fmt: skip
    item = read_atomic(shop / "shop" / "shop.item")
    assert item.columns.tolist() == ["item_id", "Name", "brand", "photo", "price"]
    assert item["photo"].tolist() == ["pics/tea.jpg", "http://shop.example/cup.png", ""]
    assert card.report["items_with_a_picture"] == 2


def test_what_is_named_is_not_guessed_and_none_is_none(shop):
    goods = str(shop / "g.csv")
    named = options(
        shop, item_col="event", items=goods, items_item_col="brand", text_cols=("stock",),
        price_col="none", image_col="none",
    )  # fmt: skip
    done, guessed = complete(named)
    assert (done.item_col, done.items_item_col, done.text_cols) == ("event", "brand", ("stock",))
    assert done.price_col is None and done.image_col is None
    assert guessed == ['--time_col="Event Time"', '--user_col="Visitor ID"']
    bare, _ = complete(options(shop, items=goods, text_cols=("none",)))
    assert bare.text_cols == ()


def test_a_gap_asks_for_users_where_there_are_sessions_too(tmp_path):
    (tmp_path / "i.csv").write_text("session_id,user_id,item_id,time\n1,2,3,4\n")
    assert complete(options(tmp_path))[0].session_col == "session_id"
    done, _ = complete(options(tmp_path, gap_minutes=5.0))
    assert (done.session_col, done.user_col) == (None, "user_id")


@pytest.mark.parametrize(
    ("header", "given", "missing"),
    [
        ("a,b", {}, ["--item_col", "--session_col=<column of the session id>, or --user_col"]),
        ("a,b", {"dataset": ""}, ["--dataset", "--item_col", "--session_col"]),
        ("sku,user", {}, ["--time_col"]),
        ("sku,time", {}, ["--session_col"]),
        ("sku,user,time", {"time_col": "none"}, ["--time_col"]),
    ],
)
def test_all_that_is_missing_is_named_at_once_with_the_header(tmp_path, header, given, missing):
    (tmp_path / "i.csv").write_text(f"{header}\n" + ",".join("1" for _ in header.split(",")))
    given = {"dataset": "shop", "inter": str(tmp_path / "i.csv"), **given}
    with pytest.raises(ConfigError) as caught:
        complete(TableOptions(**given))
    message = str(caught.value)
    listed, _, columns = message.removeprefix("prepare tabular: missing: ").partition(". ")
    assert [part.strip() for part in listed.split(";")] == [
        next(part.strip() for part in listed.split(";") if name in part) for name in missing
    ]
    assert len(listed.split(";")) == len(missing)
    assert f"has the columns {header.replace(',', ', ')}." in columns


def test_events_of_one_kind_make_the_sessions(shop, caplog):
    folder = prepare_tabular(options(shop, event_col="event", keep=("buy",)), shop)
    rows = read_atomic(folder / "shop.inter")
    assert rows["item_id"].tolist() == ["b", "c"]  # the purchase of a stands alone: too short
    report = load_dataset_card(folder).report
    assert report["dropped_rows_of_other_events"] == {"view": 2}
    assert "kinds of events" not in caplog.text


def test_events_are_all_kept_with_a_word_where_none_were_chosen(shop, caplog):
    with caplog.at_level(logging.WARNING):
        folder = prepare_tabular(options(shop), shop)
    assert "rows of all kinds are kept. To choose: --event_col=event --keep=" in caplog.text
    assert len(read_atomic(folder / "shop.inter")) == 5


def test_kinds_that_do_not_occur_are_refused_with_those_that_do(shop):
    with pytest.raises(ConfigError, match=r"--keep names sale, .*: buy \(3\), view \(2\)"):
        prepare_tabular(options(shop, event_col="event", keep=("sale",)), shop)
    with pytest.raises(ConfigError, match=r"needs --keep.*: buy \(3\), view \(2\)"):
        prepare_tabular(options(shop, event_col="event"), shop)


def test_one_table_may_hold_all(tmp_path):
    (tmp_path / "i.csv").write_text("order,sku,time,name\n1,a,1,Tea\n1,b,2,Cup\n2,a,1,Tea\n2,b,2,")
    file = str(tmp_path / "i.csv")
    folder = prepare_tabular(TableOptions("shop", file, items=file), tmp_path)
    assert read_atomic(folder / "shop.item").to_numpy().tolist() == [["a", "Tea"], ["b", "Cup"]]
