"""What every run looks into after training, through a whole run of a model that has parts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from recbole_mm.errors import TrainingError
from recbole_mm.run import format_result, run
from recbole_mm.run.studies import diagnostics, scores_apart

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    settings = {
        "data_path": str(ROOT / "atomic_data"), "use_gpu": False, "train_batch_size": 1024,
        "hidden_size": 16, "preset": "concat", "epochs": 2, "part_metrics": "epoch",
        "popularity_groups": [2, 5], "history_groups": [3], "metrics": ["Hit", "NDCG", "MAP"],
        "run_folder": str(tmp_path_factory.mktemp("runs") / "nfrec"),
    }  # fmt: skip
    return run("NFRec", "Cellphones", (), settings)


def test_the_parts_stand_in_the_result(result):
    record = json.loads((result.folder / "result.json").read_text())
    for part in ("valid", "test"):
        assert list(record["parts"][part]) == ["id", "text", "whole"]
        whole = record["parts"][part]["whole"]
        for name in ("hit@10", "ndcg@20"):
            assert whole[name] == pytest.approx(record[part][name], abs=1e-12)
    assert "variants" not in record and "diagnostics" not in record
    assert record["seconds"]["studies"] > 0


def test_the_best_epochs_parts_are_those_of_the_end(result):
    history, best = result.record["history"], result.record["best_epoch"]
    assert [epoch["epoch"] for epoch in history] == [0, 1, 2]
    assert result.record["epochs_run"] == 2
    assert history[best]["parts"] == result.record["parts"]["valid"]
    assert history[0]["parts"]["whole"]["ce"] == pytest.approx(6.4, abs=0.1)  # ln 600


def test_popularity_groups_cover_the_test_rows(result):
    groups = result.record["slices"]["popularity"]
    assert list(groups) == ["0", "1-2", "3-5", ">5"]
    assert sum(group["n"] for group in groups.values()) == 300
    assert groups["0"]["n"] == result.record["counts"]["test_cold_targets"] > 0
    assert "map@10" in result.record["test"] and "hit@10" in groups[">5"]


def test_history_groups_cover_the_test_rows(result):
    groups = result.record["slices"]["history"]
    assert list(groups) == ["1-3", "4+"] and list(result.record["floor"]["slices"]["history"]) == [
        "1-3",
        "4+",
    ]
    assert sum(group["n"] for group in groups.values()) == 300


def test_the_parts_are_shown(result):
    shown = format_result(result).splitlines()
    parts = {
        line.split()[0]: line.split() for line in shown if line[:4] in ("whol", "id  ", "text")
    }
    whole = result.record["parts"]["test"]["whole"]
    assert parts["whole"][2] == f"{whole['ndcg@20']:.4f}"
    assert parts["whole"][4] == f"{whole['ce']:.4f}"
    assert {"id", "text"} < set(parts)


def test_diagnostics_and_variants_are_shown_where_they_are(result):
    record = dict(result.record)
    record["variants"] = {
        part: {"fusion_weight=0.5": {"ndcg@20": 0.25, "ce": 2.5}} for part in ("valid", "test")
    }
    record["diagnostics"] = {"norm id": 0.125}
    shown = format_result(SimpleNamespace(record=record, folder=result.folder))
    assert "fusion_weight=0.5      0.2500    0.2500    2.5000    2.5000" in shown
    assert "diagnostics\nnorm id         0.125" in shown


def test_no_study_of_the_parts_is_made_if_none_is_wanted():
    def never(*_):
        raise AssertionError("scored for nothing")

    model = SimpleNamespace(score_parts=never, score_variants=never)
    prepared = SimpleNamespace(config={"part_metrics": "none"}, model=model, valid=None, test=None)
    assert scores_apart(prepared) == {}


def prepared_with(hook):
    model = torch.nn.Linear(1, 1)
    if hook:
        model.diagnostics = hook
    return SimpleNamespace(model=model, train="train rows", valid="valid rows")


def test_diagnostics_see_training_and_validation_rows_only():
    seen = []

    def hook(*data):
        seen.extend(data)
        return {"norm": torch.tensor(2.0), "share": 0.5}

    prepared = prepared_with(hook)
    assert diagnostics(prepared) == {"norm": 2.0, "share": 0.5}
    assert seen == ["train rows", "valid rows"] and not prepared.model.training
    assert diagnostics(prepared_with(None)) == {}
    # A model's own attribute that happens to have the name.
    assert diagnostics(prepared_with({"kept": 1.0})) == {}


def test_diagnostics_that_are_not_finite_are_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        found = diagnostics(prepared_with(lambda *_: {"a": float("nan"), "b": 1}))
    assert found == {"b": 1.0} and "not finite are left out: a" in caplog.text


def test_diagnostics_must_be_named():
    with pytest.raises(TrainingError, match="diagnostics returned a list"):
        diagnostics(prepared_with(lambda *_: [1.0]))
