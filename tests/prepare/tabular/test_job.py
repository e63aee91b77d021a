"""Tables to a data set: sessions, items, times, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.prepare.tabular.job import prepare_tabular
from recbole_mm.prepare.tabular.options import TableOptions

BASKETS = """basket,sku,when,qty
b1,x,1700000200,1
b2,y,1700000100,1
b1,y,1700000000,2
b2,x,1700000100,1
b3,x,1700000300,1
"""
GOODS = '''sku,name,maker,cost
x,"Cable, 2 m
""braided""",Norvik,$4.50
y,Charger,,"1,299.00"
x,Other cable,Norvik,$5
z,Never sold,Norvik,3
'''


@pytest.fixture
def write(tmp_path):
    def _write(name: str, text: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return _write


def _options(inter: str, **more) -> TableOptions:
    defaults = {"session_col": "basket", "item_col": "sku", "time_col": "when"}
    return TableOptions(**{"dataset": "shop", "inter": inter, **defaults, **more})


def _prepare(tmp_path: Path, inter: str, **more) -> Path:
    return prepare_tabular(_options(inter, **more), tmp_path / "out")


def test_sessions_in_time_order_and_ties_in_file_order(write, tmp_path):
    folder = _prepare(tmp_path, write("i.csv", BASKETS))
    assert (folder / "shop.inter").read_text().splitlines() == [
        "session_id:token\titem_id:token\ttimestamp:float",
        "b1\ty\t1700000000",
        "b1\tx\t1700000200",
        "b2\ty\t1700000100",
        "b2\tx\t1700000100",
    ]
    card = load_dataset_card(folder)
    assert card.timestamps == "real" and not card.synthetic
    report = card.report
    assert report["rows_read"] == 5
    assert report["dropped_sessions_too_short_or_of_rare_items"] == 1
    assert report["dropped_rows_of_these"] == 1
    assert (report["sessions"], report["items"], report["interactions"]) == (2, 2, 4)
    assert not (folder / "shop.item").exists()


def test_items_first_row_kept_and_cells_cleaned(write, tmp_path, caplog):
    goods = write("g.csv", GOODS)
    with caplog.at_level(logging.WARNING):
        folder = _prepare(
            tmp_path, write("i.csv", BASKETS), items=goods, text_cols=("name", "maker"),
            price_col="cost",
        )  # fmt: skip
    assert "1 repeated item rows differ" in caplog.text and "line 5" in caplog.text
    assert (folder / "shop.item").read_text().splitlines() == [
        "item_id:token\tname:token_seq\tmaker:token_seq\tprice:float",
        "x\tCable, 2 m braided\tNorvik\t4.5",
        "y\tCharger\t\t1299.0",
    ]
    card = load_dataset_card(folder)
    assert card.text_fields == ("name", "maker")
    assert card.report["prices"] == {"read": 2}
    assert card.report["item_rows_read"] == 4
    assert card.report["dropped_item_rows_repeated"] == 1
    assert card.report["of_these_with_other_content"] == 1
    assert card.report["dropped_item_rows_never_in_a_session"] == 1
    assert card.report["items_without_a_row"] == 0


def test_missing_prices_are_empty_cells(write, tmp_path):
    goods = write("g.tsv", 'sku\tcost\nx\tn/a\ny\t-3 "\n')
    folder = _prepare(tmp_path, write("i.csv", BASKETS), items=goods, price_col="cost")
    prices = read_atomic(folder / "shop.item")["price"]
    assert np.isnan(prices).all()
    assert load_dataset_card(folder).report["prices"] == {"empty": 1, "not_positive": 1}


def test_users_are_cut_at_pauses(write, tmp_path):
    text = "who\tsku\twhen\n" + "".join(
        f"u\t{item}\t2024-05-31T{time}\n"
        for item, time in [("a", "10:00:00"), ("b", "10:30:00"), ("c", "11:00:01"), ("d", "11:05")]
    )
    folder = _prepare(tmp_path, write("i.tsv", text), session_col=None, user_col="who")
    rows = read_atomic(folder / "shop.inter")
    assert rows["session_id"].tolist() == ["u_1", "u_1", "u_2", "u_2"]
    assert rows["timestamp"].tolist() == [1717149600, 1717151400, 1717153201, 1717153500]
    assert "30 minutes" in load_dataset_card(folder).session


def test_without_times_the_file_order_counts(write, tmp_path):
    text = "basket;sku\np;a\nq;b\np;c\nq;a\n"
    folder = _prepare(tmp_path, write("i.csv", text), time_col="none")
    rows = read_atomic(folder / "shop.inter")
    assert rows["session_id"].tolist() == ["p", "p", "q", "q"]
    assert rows["item_id"].tolist() == ["a", "c", "b", "a"]
    assert rows["timestamp"].tolist() == [1, 2, 1, 2]
    assert load_dataset_card(folder).timestamps == "positional"


def test_positions_are_kept_and_named_so(write, tmp_path):
    text = "basket,sku,when\np,a,2\np,b,1\n"
    folder = _prepare(tmp_path, write("i.csv", text))
    assert read_atomic(folder / "shop.inter")["item_id"].tolist() == ["b", "a"]
    assert load_dataset_card(folder).timestamps == "positional"


def test_milliseconds_become_seconds(write, tmp_path):
    text = "basket,sku,when\np,a,1700000000500\np,b,1700000001000\n"
    folder = _prepare(tmp_path, write("i.csv", text))
    assert read_atomic(folder / "shop.inter")["timestamp"].tolist() == [1700000000.5, 1700000001.0]


def test_incomplete_rows_are_dropped_and_counted(write, tmp_path):
    folder = _prepare(tmp_path, write("i.csv", BASKETS + ",x,1,1\nb1,,1,1\nb1,x, ,1\n,,,\n\n"))
    report = load_dataset_card(folder).report
    assert report["rows_read"] == 9
    assert report["dropped_rows_without_session"] == 2
    assert report["dropped_rows_without_item"] == 1
    assert report["dropped_rows_without_time"] == 1


def test_bom_crlf_and_quotes_are_accepted(write, tmp_path):
    text = ("\ufeff" + BASKETS.replace("b1", '"b1"')).replace("\n", "\r\n")
    plain = _prepare(tmp_path, write("i.csv", BASKETS))
    other = prepare_tabular(_options(write("j.csv", text)), tmp_path / "other")
    assert (plain / "shop.inter").read_bytes() == (other / "shop.inter").read_bytes()


def test_tokens_that_look_like_numbers_or_nothing_stay_text(write, tmp_path):
    text = "basket,sku,when\n007,NA,1\n007,1e5,2\n"
    folder = _prepare(tmp_path, write("i.csv", text))
    rows = read_atomic(folder / "shop.inter")
    assert rows["session_id"].tolist() == ["007", "007"]
    assert rows["item_id"].tolist() == ["NA", "1e5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"i\.csv, line 1: empty"),
        ("basket,sku,when\n", "header without rows"),
        ("basket,item,when\np,a,1\n", r"line 1: column 'sku' is not in the header"),
        ("basket,sku,sku,when\np,a,b,1\n", r"column 'sku' is twice"),
        ("basket,sku,when\np,a,1\np,b\n", r"line 3: 2 cell\(s\), expected 3"),
        ('basket,sku,when\np,"a\nb",1\np,b,2,3\n', r"line 4: 4 cell"),
        ('basket,sku,when\np,"a\nb",1\n', r"line 3: sku is 'a\\nb'"),
        ('basket,sku,when\np,"a""b",1\n', r"line 2: sku is 'a\"b'"),
        ("basket,sku,when\np,[PAD],1\n", r"line 2: sku is '\[PAD\]'"),
        ('basket,sku,when\np,"a,1\n', r"line 2: not a readable row"),
        (b"basket,sku,when\np,\xff,1\n", "line 2: the bytes are not UTF-8"),
        (b"basket,sku,when\np,\0,1\n", "line 2: a NUL"),
        ("basket,sku,when\np,a,noon\np,b,1\n", r"line 2: when is 'noon' while line 3"),
        ("basket,sku,when\np,a,noon\np,b,noon\n", r"line 2: when is 'noon', expected"),
        ("basket,sku,when\np,a,nan\np,b,2024-01-01\n", r"line 2: when is 'nan', expected"),
        (
            "basket,sku,when\np,a,1700000000\np,b,1700000000000\n",
            r"line 3: .*looks like milliseconds, while line 2 .*seconds.*/ 1000",
        ),
        ("basket,sku,when\np,a,1700000000\np,b,0\n", r"line 3: .*looks like a position"),
        ("basket,sku,when\np,a,20240101\np,b,20240102\n", r"line 2: .*date without dashes"),
        ("basket,sku,when\np,a,9e9\np,b,9e9\n", r"line 2: .*no Unix time between"),
        ("basket,sku,when\np,,1\n", "every row lacks one of basket, sku, when"),
        ("basket,sku,when\np,a,1\nq,a,1\n", "no row is left with --min_session=2"),
    ],
)
def test_bad_input_names_file_and_line_and_leaves_nothing(write, tmp_path, text, message):
    inter = write("i.csv", text)
    with pytest.raises(DataError, match=message) as caught:
        _prepare(tmp_path, inter)
    assert "i.csv" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_good_files_survive(write, tmp_path):
    folder = _prepare(tmp_path, write("i.csv", BASKETS))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match="--force"):
        _prepare(tmp_path, write("i.csv", BASKETS))
    with pytest.raises(DataError, match="line 2"):
        prepare_tabular(_options(write("i.csv", "basket,sku,when\np,a,x\n")), folder.parent, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    other = BASKETS.replace("b3,x", "b2,x")
    prepare_tabular(_options(write("i.csv", other)), folder.parent, force=True)
    assert (folder / "shop.inter").read_bytes() != before["shop.inter"]


def test_item_table_of_another_shop_is_refused(write, tmp_path):
    goods = write("g.csv", "sku,name\n9,Nine\n")
    with pytest.raises(DataError, match="no sku occurs"):
        _prepare(tmp_path, write("i.csv", BASKETS), items=goods, text_cols=("name",))


def test_core_options(write, tmp_path):
    text = "basket,sku,when\n" + "".join(
        f"{basket},{item},{n}\n" for n, (basket, item) in enumerate(["pa", "pb", "qa", "qb", "qc"])
    )
    folder = _prepare(tmp_path, write("i.csv", text), min_item=2)
    rows = read_atomic(folder / "shop.inter")
    assert rows["item_id"].tolist() == ["a", "b", "a", "b"]
    assert load_dataset_card(folder).report["dropped_items_too_rare_or_of_short_sessions"] == 1


def test_insisting_on_a_kind_of_time(write, tmp_path):
    dates = write("i.csv", "basket,sku,when\np,a,2024-01-01\np,b,2024-01-02\n")
    with pytest.raises(DataError, match="holds dates"):
        _prepare(tmp_path, dates, timestamps="positional")
    numbers = write("j.csv", "basket,sku,when\np,a,1\np,b,2\n")
    with pytest.raises(DataError, match="are positions"):
        _prepare(tmp_path, numbers, timestamps="real")
    folder = _prepare(tmp_path, write("k.csv", BASKETS), timestamps="positional")
    assert load_dataset_card(folder).timestamps == "positional"
    with pytest.raises(DataError, match="cannot be cut"):
        _prepare(tmp_path / "u", numbers, session_col=None, user_col="basket")


def test_text_columns_need_free_names(write, tmp_path):
    goods = write("g.csv", "sku,price,my name:x\nx,1,One\n")
    with pytest.raises(ConfigError, match="'price' is taken"):
        _prepare(tmp_path, write("i.csv", BASKETS), items=goods, text_cols=("price",))
    folder = _prepare(
        tmp_path, write("i.csv", BASKETS), items=goods, text_cols=("my name:x",), price_col="none"
    )
    assert read_atomic(folder / "shop.item").columns.tolist() == ["item_id", "my_name_x"]
    assert load_dataset_card(folder).text_fields == ("my_name_x",)
    assert load_dataset_card(folder).report["items_without_a_row"] == 1


def test_a_row_shuffle_changes_nothing_but_ties(write, tmp_path):
    generator = np.random.default_rng(0)
    lines = [
        f"b{generator.integers(20)},i{generator.integers(9)},{1700000000 + n}" for n in range(100)
    ]
    plain = _prepare(tmp_path, write("i.csv", "basket,sku,when\n" + "\n".join(lines)))
    generator.shuffle(lines)
    text = "basket,sku,when\n" + "\n".join(lines)
    other = prepare_tabular(_options(write("j.csv", text)), tmp_path / "o")
    assert (plain / "shop.inter").read_bytes() == (other / "shop.inter").read_bytes()
