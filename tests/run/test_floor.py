"""The floor under a result: what counting reaches on the very rows of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_mm.compare.results import Attempt, Row, with_floor
from recbole_mm.evaluation.ranking import metrics_from_ranks
from recbole_mm.run import RunResult, floor, format_result, run
from recbole_mm.testing.case import Toy, write_toy

SMALL = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1, "epochs": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("floor")
    write_toy(folder, Toy("toy", n_items=40, n_sessions=150), [])
    return folder


def start(data: Path, tmp_path: Path, model: str = "SASRec", **keys: Any) -> RunResult:
    own = SMALL if model == "SASRec" else {}
    where = {"data_path": str(data), "run_folder": str(tmp_path / model), "use_gpu": False}
    return run(model, "toy", (), {**own, **where, **keys})


@pytest.mark.parametrize("history", ["keep", "mask"])
def test_the_floor_is_a_run_of_counting_on_the_same_rows(
    history: str, data: Path, tmp_path: Path
) -> None:
    record = start(data, tmp_path, history=history).record
    counting = start(data, tmp_path, "Counting", history=history).record
    found = record["floor"]
    assert found["rank"] == counting["ranks"]["rank"]
    assert "floor" not in counting
    ranks = np.array(counting["ranks"]["rank"])
    assert found["test"] == metrics_from_ranks(ranks, [10, 20], ["hit", "mrr", "ndcg"])
    assert set(found["valid"]) == set(found["test"])
    gains = [
        np.where(np.array(ranks) <= 20, 1 / np.log2(np.array(ranks) + 1), 0)
        for ranks in (record["ranks"]["rank"], found["rank"])
    ]
    difference = found["difference"]
    assert difference["metric"] == "ndcg@20"
    assert difference["delta"] == pytest.approx((gains[0] - gains[1]).mean())
    assert difference["low"] < difference["delta"] < difference["high"]


def test_it_is_counted_once_and_read_afterwards(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(data, tmp_path / "a").record["floor"]
    monkeypatch.setattr(floor, "_count", None)
    assert start(data, tmp_path / "b", seed=3).record["floor"]["rank"] == first["rank"]
    # Other rows are another floor.
    with pytest.raises(TypeError):
        start(data, tmp_path / "c", split_by="session_random")


def test_other_text_fields_are_another_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy(tmp_path, Toy("toy", n_items=40, n_sessions=150), [])
    start(tmp_path, tmp_path / "a")
    monkeypatch.setattr(floor, "_count", None)
    start(tmp_path, tmp_path / "b")
    card = tmp_path / "toy" / "dataset.json"
    content = json.loads(card.read_text("utf-8")) if card.is_file() else {}
    card.write_text(json.dumps({**content, "text_fields": ["title"]}), "utf-8")
    with pytest.raises(TypeError):
        start(tmp_path, tmp_path / "c")


def test_the_result_says_where_the_model_stands(data: Path, tmp_path: Path) -> None:
    result = start(data, tmp_path)
    words = format_result(result)
    assert "ndcg@20 of Counting, which counts and does not train" in words
    for low, high, place in ((-0.2, -0.1, "below"), (-0.1, 0.1, "level with"), (0.1, 0.2, "above")):
        result.record["floor"]["difference"] |= {"low": low, "high": high}
        assert f"this model is {place} it" in format_result(result)


def test_without_a_floor(data: Path, tmp_path: Path) -> None:
    result = start(data, tmp_path / "off", floor=False)
    assert "floor" not in result.record
    assert "which counts and does not train" not in format_result(result)
    broken = tmp_path / "data"
    write_toy(broken, Toy("toy", n_items=40, n_sessions=150), [])
    (broken / "toy" / "toy.item").write_bytes(b"item_id:token\ttitle:token_seq\na\tb\tc\n")
    result = start(broken, tmp_path / "broken")
    assert "floor" not in result.record
    assert "no floor under this result: " in (result.folder / "run.log").read_text("utf-8")


def test_tables_carry_the_floor_unless_it_is_a_row(data: Path, tmp_path: Path) -> None:
    record = start(data, tmp_path).record
    row = Row("SASRec", (Attempt(1, (), record, "", Path()),))
    rows = with_floor([row])
    assert [one.label for one in rows] == ["SASRec", "floor: Counting"]
    assert rows[1].ranks().tolist() == [record["floor"]["rank"]]
    assert rows[1].values("test", "ndcg@20")[0] == record["floor"]["test"]["ndcg@20"]
    counting = Row("mine", (Attempt(1, (), {**record, "model": "Counting"}, "", Path()),))
    assert with_floor([row, counting]) == [row, counting]
