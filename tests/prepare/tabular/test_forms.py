"""One table as CSV, tab-separated, JSON lines and Parquet, packed and not, gives one data set."""

from __future__ import annotations

import datetime
import gzip
import json
import tempfile
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import DataError
from recbole_mm.prepare.tabular.job import prepare_tabular
from recbole_mm.prepare.tabular.options import TableOptions
from recbole_mm.prepare.tabular.table import column_names, read_table
from recbole_mm.prepare.tabular.typed import cell_text

ROWS = [
    {"session_id": 7, "item_id": "a", "timestamp": 1700000000},
    {"session_id": 7, "item_id": "b", "timestamp": 1700000060},
    {"session_id": 8, "item_id": "b", "timestamp": 1700000120},
    {"session_id": 8, "item_id": "Täßchen 👜", "timestamp": 1700000180},
]
COLUMNS = list(ROWS[0])
SUFFIXES = [".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ""]


def csv(separator: str) -> str:
    lines = [COLUMNS, *([str(value) for value in row.values()] for row in ROWS)]
    return "\n".join(separator.join(line) for line in lines) + "\n"


def write(path: Path) -> Path:
    """Write ROWS in the form that the name says."""
    plain = path.name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        pl.DataFrame(ROWS).write_parquet(path)
        content = path.read_bytes()
    elif plain.endswith(".jsonl"):
        content = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    else:
        content = csv("," if plain.endswith(".csv") else "\t").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "i.tsv",
        "i.txt",
        "i.jsonl",
        "i.parquet",
        "i.csv.gz",
        "i.tsv.gz",
        "i.jsonl.gz",
        "i.parquet.gz",
    ],
)
def test_every_form_gives_the_bytes_of_the_csv(name, tmp_path):
    made = [
        prepare_tabular(TableOptions("shop", str(write(tmp_path / file))), tmp_path / file[2:])
        for file in ("i.csv", name)
    ]
    assert (made[0] / "shop.inter").read_bytes() == (made[1] / "shop.inter").read_bytes()
    assert read_atomic(made[1] / "shop.inter")["session_id"].tolist() == ["7", "7", "8", "8"]


def test_the_content_tells_packed_and_parquet_files_whatever_their_name(tmp_path):
    write(tmp_path / "i.parquet").rename(tmp_path / "data")
    write(tmp_path / "i.csv.gz").rename(tmp_path / "other.csv")
    assert column_names(tmp_path / "data") == column_names(tmp_path / "other.csv") == COLUMNS


def test_values_with_types_become_the_text_a_csv_would_have():
    assert cell_text(None) == cell_text(float("nan")) == ""
    assert (cell_text(12.0), cell_text(4.5), cell_text(10**20), cell_text(1e300)) == (
        "12", "4.5", "100000000000000000000", "1e+300",
    )  # fmt: skip
    assert (cell_text(True), cell_text(Decimal("4.50")), cell_text(" x ")) == ("true", "4.50", "x")
    moment = datetime.datetime(2024, 5, 31, 12, 0, 1)
    assert (cell_text(moment), cell_text(moment.date())) == ("2024-05-31T12:00:01", "2024-05-31")
    assert cell_text(["Home", None, 3.0], joined=True) == "Home 3"


def test_dates_and_lists_of_a_parquet_file(tmp_path):
    start = datetime.datetime(2024, 5, 31, 12)
    pl.DataFrame(
        {
            "session_id": ["s", "s"],
            "item_id": [1.0, 2.0],
            "bought": [start, start + datetime.timedelta(seconds=1.5)],
        }
    ).write_parquet(tmp_path / "i.parquet")
    pl.DataFrame({"id": [1, 2], "categories": [["Tea", "Green"], None]}).write_parquet(
        tmp_path / "g.parquet"
    )
    options = TableOptions(
        "shop", str(tmp_path / "i.parquet"), time_col="bought", items=str(tmp_path / "g.parquet")
    )
    folder = prepare_tabular(options, tmp_path)
    rows = read_atomic(folder / "shop.inter")
    assert rows["item_id"].tolist() == ["1", "2"]
    assert rows["timestamp"].tolist() == [1717156800.0, 1717156801.5]
    assert read_atomic(folder / "shop.item")["categories"].tolist() == ["Tea Green", ""]
    assert load_dataset_card(folder).timestamps == "real"


def test_a_key_that_some_lines_lack_is_an_empty_cell(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n{"a": 2, "b": "x"}\n')
    table = read_table(tmp_path / "t.jsonl", ["a", "b"])
    assert table.frame.to_numpy().tolist() == [["1", ""], ["2", "x"]]
    assert table.lines.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("i.jsonl", b'{"a": 1}\n{"a":\n', r"line 2: no JSON"),
        ("i.jsonl", b'[{"a": 1}]\n', r"line 1: a list, expected one JSON object per line"),
        ("i.jsonl", b'{"a": {"b": 1}}\n', r"line 1: a is an object, expected a text"),
        ("i.jsonl", b'{"a": [1, 2]}\n', r"line 1: a is a list"),
        ("i.jsonl", b'{"a": "\\ud800"}\n', r"line 1: a is half a character"),
        ("i.jsonl", b'{"b": 1}\n', r"column 'a' is not in the header, which has: b"),
        ("i.jsonl", b"", r"i\.jsonl: empty"),
        ("i.jsonl", b"[" * 100000, r"line 1: no JSON"),
        ("i.csv", b"\ra,b\n1,2\n", r"line 1: no readable header"),
        ("i.csv", b"PK\x03\x04rest", r"a zip file or a spreadsheet"),
        ("i.parquet", b"a,b\n1,2\n", r"not a Parquet file, whatever its name says"),
        ("i.parquet", b"PAR1" + b"x" * 99, r"no readable Parquet file"),
        ("i.csv.gz", gzip.compress(b"a\n" + b"1\n" * 9999, mtime=0)[:-20], r"damaged or cut off"),
        ("i.csv.gz", b"\x1f\x8b" + b"x" * 99, r"damaged or cut off"),
        ("absent.csv", None, r"absent\.csv: no such file"),
    ],
)
def test_bad_files_are_named(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / name, ["a"])
    assert len(str(caught.value).splitlines()) == 1


def test_a_bad_row_of_a_parquet_file_is_named_by_its_number(tmp_path):
    pl.DataFrame({"a": [b"\xff", b"\xfe"]}).write_parquet(tmp_path / "i.parquet")
    with pytest.raises(DataError, match=r"row 1: a is bytes"):
        read_table(tmp_path / "i.parquet", ["a"])
    pl.DataFrame({"session_id": ["p", "p"], "item_id": ["a", 'b"'], "time": [1, 2]}).write_parquet(
        tmp_path / "j.parquet"
    )
    with pytest.raises(DataError, match=r"j\.parquet, row 2: item_id is 'b\"'"):
        prepare_tabular(TableOptions("shop", str(tmp_path / "j.parquet")), tmp_path)


PIECES = st.sampled_from(
    [b"a,b\n", b"1,2\n", b'"', b"\t",
     b"\r", b"\xff", b"\0", b"{", b'{"a": 1}\n', b"[1]\n", b"null\n",
     b"PAR1", b"\x1f\x8b\x08", b"PK", b"1e999", b"NaN", b'{"a": NaN}\n', b"\xef\xbb\xbf", b"a\n"]
)  # fmt: skip


@given(st.lists(PIECES | st.binary(max_size=8), max_size=12), st.sampled_from(SUFFIXES))
@settings(max_examples=400)
def test_whatever_a_file_holds_it_is_read_or_named(pieces, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"table{suffix}")
        path.write_bytes(b"".join(pieces))
        try:
            table = read_table(path, ["a"])
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert len(table.frame) == len(table.lines) > 0
            assert all(isinstance(cell, str) for cell in table.frame["a"])


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_parquet_file_is_read_or_named(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.parquet")
        pl.DataFrame({"a": [f"x{n}" for n in range(50)], "b": range(50)}).write_parquet(path)
        raw = bytearray(path.read_bytes())
        for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=8)):
            raw[place] ^= 0x5A
        path.write_bytes(raw[: data.draw(st.integers(4, len(raw)))])
        try:
            assert len(read_table(path, ["a"]).frame) > 0
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)
