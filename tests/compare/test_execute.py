"""Whole comparisons with real processes: run, kept, resumed, interrupted, written again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

import recbole_mm
from recbole_mm.compare import write_report
from recbole_mm.compare.execute import compare_command
from recbole_mm.compare.results import read_rows
from recbole_mm.errors import DataError
from recbole_mm.rows import as_argument
from recbole_mm.trainer.checkpoint import load_checkpoint

ROOT = Path(recbole_mm.__file__).parents[1]
SMALL = {"n_layers": 1, "hidden_size": 8, "inner_size": 8, "epochs": 2, "show_progress": False}


@pytest.fixture
def data(ninety_sessions):
    return ninety_sessions


def arguments(data, output, **changes):
    found = {
        "dataset": "toy",
        # The last row asks for a column that the data do not have.
        "models": ["SASRec", "narrow=SASRec:hidden_size=4", "bad=SASRec:TIME_FIELD=when"],
        "seeds": [1],
        "seeds_for": {},
        "output": str(output),
        "config_files": [],
        "plugins": [],
        "jobs": 2,
        "baseline": None,
        "table_only": False,
        "tuned": None,
        "knock_out": None,
    }
    return Namespace(**{**found, **changes}), {**SMALL, "data_path": str(data)}


def test_a_real_comparison_is_run_kept_resumed_and_written_again(data, tmp_path, capsys):
    args, overrides = arguments(data, tmp_path)
    assert compare_command(args, overrides) == 1  # a run has failed
    rows, baseline = read_rows(tmp_path)
    assert baseline == "SASRec"
    found = [(row.label, [a.seed for a in row.attempts], len(row.records)) for row in rows]
    assert found == [("SASRec", [1], 1), ("narrow", [1], 1), ("bad", [1], 0)]
    assert [row.records[0]["config"]["hidden_size"] for row in rows[:2]] == [8, 4]
    error = rows[2].attempts[0].error
    assert error.startswith("error: ") and "when" in error
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "## Paired comparison" in text and "| narrow | 1 |" in text
    assert f"| bad | 1 | {error} |" in text
    assert text in capsys.readouterr().out

    # An interrupted run has a last checkpoint and no result: it is resumed. The others are kept.
    expected = rows[0].records[0]
    folder = next(tmp_path.glob("runs/SASRec-*"))
    (folder / "result.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/narrow-*/result.json")}
    del args.models[2]
    assert compare_command(args, overrides) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept and len(kept) == 1
    log = next(tmp_path.glob("logs/SASRec-*")).read_text(encoding="utf-8")
    assert f"run --resume={folder}" in log
    again = read_rows(tmp_path)[0][0].records[0]
    for key in ("test", "valid", "ranks", "history", "fingerprint"):
        assert again[key] == expected[key]

    # The tables come from the results alone.
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    for name in ("table.md", "table.csv"):
        (tmp_path / name).unlink()
    args, _ = arguments(data, tmp_path, table_only=True, models=[])
    assert compare_command(args, {}) == 0
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == text


def test_asking_a_comparison_to_end_interrupts_its_runs(data, tmp_path):
    """In a process of its own, as by Ctrl-C; but SIGINT may be ignored where the tests run."""
    keys = {**SMALL, "epochs": 100_000, "stopping_step": 100_000, "data_path": str(data)}
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "recbole_mm",
            "compare",
            "--models=SASRec",
            "--dataset=toy",
            "--seeds=1",
            f"--output={tmp_path}",
            *(f"--{key}={as_argument(value)}" for key, value in keys.items()),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not list(tmp_path.glob("runs/*/last.safetensors")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 130, output
    log = next(tmp_path.glob("logs/*.log")).read_text(encoding="utf-8")
    assert "--resume=" in log
    assert write_report(tmp_path).exists()


def test_texts_are_encoded_once_before_runs_side_by_side(tmp_path, caplog):
    """Two runs at once on a data set without vectors: neither finds the other writing."""
    shop = tmp_path / "data" / "toy"
    shop.mkdir(parents=True)
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for session in range(60):
        lines += [
            f"s{session}\ti{(session + step) % 30}\t{1_600_000_000 + 1000 * session + step}"
            for step in range(3)
        ]
    (shop / "toy.inter").write_text("\n".join(lines) + "\n")
    colours = ("red", "blue", "green")
    titles = [f"i{item}\t{colours[item % 3]} {item}" for item in range(30)]
    (shop / "toy.item").write_text("item_id:token\ttitle:token_seq\n" + "\n".join(titles) + "\n")
    small = {"epochs": 1, "text_encoder": "tfidf", "show_progress": False}
    args, _ = arguments(tmp_path / "data", tmp_path / "out", models=["SRIM", "ContentKNN"])
    with caplog.at_level("INFO"):
        assert compare_command(args, {**small, "data_path": str(tmp_path / "data")}) == 0
    rows, _ = read_rows(tmp_path / "out")
    assert [len(row.records) for row in rows] == [1, 1]
    assert "2 runs, 0 of them done before" in caplog.text and "to go, about" in caplog.text
    encoded = caplog.text.index("toy.text.itememb")
    assert encoded < caplog.text.index("2 runs, 0 of them")
    for log in (tmp_path / "out" / "logs").iterdir():
        assert "encoding its items once" not in log.read_text(encoding="utf-8")


def test_a_data_set_that_is_not_there_is_found_before_any_run(data, tmp_path):
    args, overrides = arguments(data, tmp_path / "out", dataset="nowhere", models=["SASRec"])
    with pytest.raises(DataError, match=r"nowhere\.inter: no such file"):
        compare_command(args, overrides)
    assert not (tmp_path / "out").exists()


def test_runs_end_with_a_comparison_that_is_killed_and_the_next_goes_on(data, tmp_path):
    """SIGKILL leaves no orphan that would keep its run's folder locked."""
    command = [
        sys.executable, "-m", "recbole_mm", "compare", "--models=SASRec", "--seeds=1",
        "--dataset=toy", f"--data_path={data}", f"--output={tmp_path}", "--epochs=2000",
        "--stopping_step=2000", "--n_layers=1", "--hidden_size=8", "--inner_size=8",
        "--floor=false", "--use_gpu=false",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    orphans: list[psutil.Process] = []
    try:
        patience = time.monotonic() + 600
        while not list(tmp_path.glob("runs/*/last.safetensors")):
            assert process.poll() is None and time.monotonic() < patience
            time.sleep(0.1)
        orphans = psutil.Process(process.pid).children(recursive=True)
        assert orphans
        process.kill()
        process.wait()
        assert not psutil.wait_procs(orphans, timeout=600)[1]
    finally:
        for one in [one for one in orphans if one.is_running()]:
            one.kill()
        process.kill()
    log = next(tmp_path.glob("logs/*")).read_text(encoding="utf-8")
    assert log.endswith("the process that started this run is gone\n")
    (folder,) = tmp_path.glob("runs/*")
    with FileLock(folder / ".lock", timeout=0):
        epoch = load_checkpoint(folder / "last.safetensors")["epoch"]
    more = ["run", f"--resume={folder}", f"--epochs={epoch + 2}"]
    done = subprocess.run([*command[:3], *more], env=environment, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
