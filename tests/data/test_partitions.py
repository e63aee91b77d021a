"""Interactions as Parquet partitions: the same data set as from the atomic file, or one line."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from recbole_mm.cli import main
from recbole_mm.config import MMConfig
from recbole_mm.data import partitions
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.partitions import Fields, SortedNames, datasets_in, read_partitions
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.yaml_files import default_data_path

CELLPHONES = default_data_path() / "Cellphones"
FIELDS = Fields("session_id", "item_id", "timestamp")


@pytest.fixture
def table() -> pl.DataFrame:
    """Return the interactions of Cellphones."""
    frame = read_atomic(CELLPHONES / "Cellphones.inter")
    return pl.DataFrame({name: frame[name].tolist() for name in FIELDS})


def write_parts(folder: Path, frame: pl.DataFrame, parts: int = 3, hive: bool = False) -> Path:
    """Write rows in order as Spark names its files, with what it leaves beside them."""
    for number, rows in enumerate(np.array_split(np.arange(len(frame)), parts)):
        place = folder / f"day=2024-01-0{number + 1}" if hive else folder
        place.mkdir(parents=True, exist_ok=True)
        frame[rows].write_parquet(place / f"part-{number:05}-c000.snappy.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "_temporary").mkdir(exist_ok=True)
    (folder / "_temporary" / "part-00000.parquet").write_bytes(b"half a file")
    (folder / ".part-00000.parquet.crc").write_bytes(b"sum")
    return folder


def cellphones(root: Path, frame: pl.DataFrame, **how: Any) -> Path:
    """Make a data set Cellphones of partitions and the item file; return the folder of data."""
    folder = root / "Cellphones"
    folder.mkdir(parents=True, exist_ok=True)
    write_parts(folder / "Cellphones.inter.parquet", frame, **how)
    for name in ("Cellphones.item", "dataset.json"):
        (folder / name).write_bytes((CELLPHONES / name).read_bytes())
    return root


def load(root: Path, **keys: Any) -> SessionDataset:
    config = MMConfig("SASRec", "Cellphones", (), {"data_path": str(root), **keys})
    dataset = SessionDataset(config)
    dataset.build()
    return dataset


@pytest.mark.parametrize("hive", [False, True])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"split_by": "leave_one_out"},
        {"split_by": "session_random", "item_inter_num_interval": "[5,inf)"},
        {"val_interval": {"timestamp": "[1700000000,inf)"}, "rm_dup_inter": "first"},
        {"selected_features": ["category"]},
    ],
    ids=["time", "leave_one_out", "core", "filter", "columns"],
)
def test_partitions_make_the_same_data_set(
    tmp_path: Path, table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch, hive: bool, keys: Any
) -> None:
    monkeypatch.setattr(partitions, "_ROWS", 1000)  # several reads per file
    if "selected_features" in keys:
        keys = {"load_col": {"inter": list(FIELDS), "item": ["item_id", "title"]}}
    root = cellphones(tmp_path, table, hive=hive)
    found, atomic = load(root, **keys), load(default_data_path(), **keys)
    assert found.fingerprint() == atomic.fingerprint()
    assert found.counts == atomic.counts
    for part in ("train", "valid", "test"):
        ours, theirs = found.rows(part), atomic.rows(part)
        for name in ("session", "target", "length", "history"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(found.split.test.time, atomic.split.test.time)
    for field in ("session_id", "item_id"):
        tokens = list(atomic.field2id_token[field])
        assert list(found.field2id_token[field]) == tokens
        assert found.field2token_id[field] == atomic.field2token_id[field]
        np.testing.assert_array_equal(found.token2id(field, tokens), np.arange(len(tokens)))
    if "load_col" in keys:
        assert found.item_feat["title"].equal(atomic.item_feat["title"])


def test_one_file_and_other_types(tmp_path: Path) -> None:
    moments = [datetime(2024, 1, 1, 0, 0, k, 500_000, tzinfo=timezone.utc) for k in range(3)]
    frame = pl.DataFrame(
        {"session_id": [10, 9, 10], "item_id": ["b", "a", "ä"], "timestamp": moments}
    )
    frame.with_columns(pl.col("item_id").cast(pl.Categorical)).write_parquet(tmp_path / "x.parquet")
    coded = read_partitions(tmp_path / "x.parquet", FIELDS)
    # Names are text, so that 10 comes before 9, as in an atomic file.
    assert coded.session_names.tolist() == ["10", "9"] and coded.session.tolist() == [0, 1, 0]
    assert coded.item_names.tolist() == ["a", "b", "ä"] and coded.item.tolist() == [1, 0, 2]
    assert coded.time.tolist() == [1704067200.5, 1704067201.5, 1704067202.5]


def test_files_may_differ_in_their_types(tmp_path: Path) -> None:
    first = pl.DataFrame({"session_id": ["1"], "item_id": ["7"], "timestamp": [5.5], "more": [1]})
    second = pl.DataFrame({"timestamp": [6], "item_id": [8], "session_id": [1]})
    first.write_parquet(tmp_path / "a.parquet")
    second.write_parquet(tmp_path / "b.parquet")
    coded = read_partitions(tmp_path, FIELDS)
    assert coded.session.tolist() == [0, 0] and coded.time.tolist() == [5.5, 6.0]
    assert coded.item_names[coded.item].tolist() == ["7", "8"]


def test_a_column_may_stand_in_the_names_of_folders(tmp_path: Path) -> None:
    for day, item in ((3, "a"), (2, "b")):
        place = tmp_path / f"timestamp={day}"
        place.mkdir()
        pl.DataFrame({"session_id": ["s"], "item_id": [item]}).write_parquet(place / "0.parquet")
    coded = read_partitions(tmp_path, FIELDS)
    assert coded.time.tolist() == [2, 3] and coded.item.tolist() == [1, 0]


def test_names_are_kept_distinct_while_they_are_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_ROWS", 7)
    monkeypatch.setattr(partitions, "_NAMES", 3)
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "session_id": [f"s{k}" for k in rng.integers(0, 40, 200)],
            "item_id": [f"{k}" for k in rng.integers(0, 9, 200)],
            "timestamp": np.arange(200),
        }
    )
    frame.write_parquet(tmp_path / "x.parquet")
    coded = read_partitions(tmp_path, FIELDS)
    assert coded.session_names[coded.session].tolist() == frame["session_id"].to_list()
    assert coded.item_names[coded.item].tolist() == frame["item_id"].to_list()
    assert coded.session_names.tolist() == sorted(set(frame["session_id"]))


def test_sorted_names() -> None:
    names = SortedNames(np.array(["a", "b", "d"]))
    assert len(names) == 4 and list(names) == ["[PAD]", "a", "b", "d"]
    assert [names[name] for name in names] == [0, 1, 2, 3]
    assert "c" not in names and "" not in names and "e" not in names


GOOD: dict[str, list[Any]] = {
    "session_id": ["s", "s"],
    "item_id": ["a", "b"],
    "timestamp": [1.0, 2.0],
}


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("item_id", ["a", None], r"b.parquet, row 2: item_id is empty"),
        ("session_id", ["", "s"], r"b.parquet, row 1: session_id is empty"),
        ("item_id", ["a", "b\tc"], r"b.parquet, row 2: item_id holds a double quote, a tab"),
        ("session_id", ["s", "[PAD]"], r"row 2: session_id holds .* or is \[PAD\]"),
        ("timestamp", [1.0, None], r"b.parquet, row 2: timestamp is empty or no finite number"),
        ("timestamp", [np.inf, 1.0], r"b.parquet, row 1: timestamp is empty or no finite number"),
        ("timestamp", ["1", "2"], r"b.parquet: timestamp is of type String, expected numbers"),
        ("item_id", [1.0, 2.0], r"b.parquet: item_id is of type Float64, expected text or whole"),
        ("item_id", [["a"], ["b"]], r"b.parquet: item_id is of type List\(String\)"),
    ],
)
def test_bad_cells_are_named(tmp_path: Path, column: str, cells: list[Any], message: str) -> None:
    pl.DataFrame(GOOD).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame({**GOOD, column: cells}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(DataError, match=message):
        read_partitions(tmp_path, FIELDS)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file \*.parquet"):
        read_partitions(tmp_path, FIELDS)
    pl.DataFrame({name: GOOD[name] for name in ("session_id", "timestamp")}).write_parquet(
        tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match=r"a.parquet: column\(s\) item_id not found"):
        read_partitions(tmp_path, FIELDS)
    pl.DataFrame(GOOD)[:0].write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"(is of type Null|files without rows)"):
        read_partitions(tmp_path, FIELDS)
    pl.DataFrame(GOOD).write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for damaged in (b"", b"PAR1", whole[:-3], whole[: len(whole) // 2], whole[:8] + whole[40:]):
        (tmp_path / "b.parquet").write_bytes(damaged)
        with pytest.raises(DataError, match=r"b.parquet: no readable Parquet file"):
            read_partitions(tmp_path, FIELDS)


def test_what_partitions_cannot_do_is_said(tmp_path: Path, table: pl.DataFrame) -> None:
    root = cellphones(tmp_path, table)
    for keys, message in (
        ({"load_col": {"inter": [*FIELDS, "rating"]}}, "load_col asks for rating"),
        ({"val_interval": {"session_id": ["s1"]}}, "session_id by name"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(root, **keys)
    mixed = table.with_columns(
        pl.when(pl.int_range(pl.len()) == 4000)
        .then(1.7e12)
        .otherwise("timestamp")
        .alias("timestamp")
    )
    with pytest.raises(DataError, match=r"parquet, row 4001: timestamp is in milliseconds"):
        load(cellphones(tmp_path / "mixed", mixed))
    (root / "Cellphones" / "Cellphones.inter").write_text("x")
    with pytest.raises(DataError, match="both hold interactions"):
        load(root)


def test_data_sets_are_found_by_either_form(tmp_path: Path, table: pl.DataFrame) -> None:
    cellphones(tmp_path, table)
    (tmp_path / "Toy").mkdir()
    (tmp_path / "Toy" / "Toy.inter").write_text("")
    (tmp_path / "Toy" / "Other.inter").write_text("")
    assert datasets_in(tmp_path) == ["Cellphones", "Toy"]


def test_a_run_from_partitions_ends_like_one_from_the_atomic_file(
    tmp_path: Path, table: pl.DataFrame
) -> None:
    root = cellphones(tmp_path / "data", table, hive=True)
    ranks = []
    for name, data in (("parquet", root), ("atomic", default_data_path())):
        folder = tmp_path / name
        arguments = ["--model=GRU4Rec", "--dataset=Cellphones", "--epochs=1", "--seed=3"]
        arguments += [f"--data_path={data}", f"--run_folder={folder}"]
        assert main(["run", *arguments]) == 0
        record = pd.read_json(folder / "result.json", typ="series")
        ranks.append((record["ranks"], record["test"], record["fingerprint"]))
    assert ranks[0] == ranks[1]
