"""The page of one run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.evaluation.ranking import metrics_from_ranks
from recbole_mm.run import page
from recbole_mm.run.record import RunResult, model_name

N = 50
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def record() -> dict:
    ranks = np.arange(1, N + 1)
    test = metrics_from_ranks(ranks, [10, 20], ["Hit", "NDCG"])
    floor = metrics_from_ranks(np.full(N, 19), [10, 20], ["Hit", "NDCG"])
    groups = {"target": {"seen": {"n": N, **test}, "cold": {"n": 0}}}
    parts = {"whole": {**test, "ce": 3.0}, "id": {**floor, "ce": 4.0}}
    difference = {"metric": "ndcg@20", "delta": 0.1, "low": 0.05, "high": 0.15}
    return {
        "model": "AlterRec", "preset": "aug", "dataset": EVIL, "synthetic": True, "leaky": False,
        "seed": 7, "fingerprint": {"data": "d" * 64, "features": {}},
        "counts": {"items": 99, "test_rows": N, "test_cold_targets": 3},
        "versions": {"recbole": "1.2.1"}, "config": {"valid_metric": "NDCG@20", "topk": [10, 20]},
        "command": ["recbole-mm", "run", f"--dataset={EVIL}"], "valid": test, "test": test,
        "slices": groups, "epochs_run": 2, "best_epoch": 2, "parameters": 1234,
        "seconds": {"train": 1.5, "total": 3.0}, "peak_memory_mb": 100.0,
        "history": [{"epoch": n, "loss": {"loss": 1 / n}, "valid": test} for n in (1, 2)],
        "ranks": {"session": [f"s{n}" for n in range(N)], "rank": ranks.tolist()}, "tied": 0,
        "floor": {"model": "Counting", "valid": floor, "test": floor, "slices": groups,
                  "rank": [19] * N, "tied": 0, "difference": difference},
        "parts": {"valid": parts, "test": parts}, "diagnostics": {"norm": 1.25},
    }  # fmt: skip


def test_what_a_run_found_stands_on_its_page(record):
    text = page.run_page(record)
    titles = [part.split("</h2>")[0] for part in text.split("<h2>")[1:]]
    assert titles == [
        "Metrics", "The floor", "Curves", "Parts of the test rows", "Parts of the score",
        "Diagnostics", "How it was made",
    ]  # fmt: skip
    assert "<img" not in text and "AlterRec (aug) on &lt;img src" in text
    assert "SYNTHETIC" in text and "+0.1000" in text and "+0.0500 to +0.1500" in text
    assert f'data-value="{record["test"]["ndcg@20"]!r}"' in text
    assert "50 test rows (3 with a target unseen in training), 99 candidates, seed 7" in text


def test_a_run_without_floor_parts_and_curves(record):
    for name in ("floor", "parts", "diagnostics"):
        record.pop(name)
    record["history"] = []
    titles = [part.split("</h2>")[0] for part in page.run_page(record).split("<h2>")[1:]]
    assert titles == ["Metrics", "Parts of the test rows", "How it was made"]


def test_a_page_that_fails_costs_a_warning_only(record, tmp_path: Path, monkeypatch, caplog):
    page.write_page(RunResult(tmp_path, record))
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "report.html").unlink()
    monkeypatch.setattr(page, "draw", lambda *_: 1 / 0)
    with caplog.at_level(logging.WARNING):
        page.write_page(RunResult(tmp_path, record))
    assert not list(tmp_path.iterdir()) and "ZeroDivisionError" in caplog.text


def test_recboles_own_models_have_no_preset_in_their_name():
    assert model_name("SASRec", "sound") == "SASRec"
    assert model_name("SRIM", "sound") == "SRIM (sound)"
    assert model_name("SomeOnesOwn", "sound") == "SomeOnesOwn (sound)"
