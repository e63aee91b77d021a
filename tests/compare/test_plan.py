from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

import recbole_mm
from recbole_mm import yaml_files
from recbole_mm.compare.jobs import Job, run_jobs
from recbole_mm.compare.plan import Spec, as_argument, compare, compare_command, parse_row
from recbole_mm.compare.results import read_rows
from recbole_mm.compare.tables import write_report
from recbole_mm.errors import ConfigError

ROOT = Path(recbole_mm.__file__).parents[1]
SMALL = {"n_layers": 1, "hidden_size": 8, "inner_size": 8, "epochs": 2, "show_progress": False}


def test_rows_are_read():
    assert parse_row("SASRec") == Spec("SASRec", "SASRec", ())
    assert parse_row("SRIM:topk=[5,10],n_layers=2") == Spec(
        "SRIM:topk=[5,10],n_layers=2", "SRIM", (("topk", "[5,10]"), ("n_layers", "2"))
    )
    assert parse_row("no text=SRIM:x=a=b") == Spec("no text", "SRIM", (("x", "a=b"),))
    assert parse_row("wide=SRIM") == Spec("wide", "SRIM", ())


@pytest.mark.parametrize("text", ["", ":a=1", "x=", "=SRIM", "SRIM:", "SRIM:a", "SRIM:=1"])
def test_unreadable_rows(text):
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_row(text)


def test_keys_of_the_comparison_are_refused():
    with pytest.raises(ConfigError, match="sets seed"):
        parse_row("SRIM:seed=3")


@pytest.mark.parametrize(
    "value", ["text", "1", "true", 1, 1.5, 1e-5, True, None, [1, 2], {"a": 1}, "a b", "", "~", "[1"]
)
def test_values_survive_the_command_line(value):
    assert yaml_files.parse_value(as_argument(value)) == value


def refused(match, models=("SASRec",), seeds=(1, 2), **options):
    with pytest.raises(ConfigError, match=match):
        compare("toy", models, seeds, **options)


def test_wrong_requests_are_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("no rows", models=[])
    refused("named twice: SASRec", models=["SASRec", "SASRec"])
    refused("seeds must be different", seeds=[1, 1])
    refused("between 1 and the 2 seeds", seeds_for={"SASRec": 3})
    refused("SRIM, which is no row", seeds_for={"SRIM": 1})
    refused("baseline 'Pop' is no row", baseline="Pop")
    refused("row SASRek.*SASRec", models=["SASRek"])
    refused("row SASRec:n_heds=2.*n_heads", models=["SASRec:n_heds=2"])
    refused("epochs", overrides={"epochs": "many"})
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for session in range(90):
        for step in range(2 + session % 4):
            seconds = 1_600_000_000 + 1000 * session + 60 * step
            lines.append(f"s{session}\ti{(session + step * (1 + session % 3)) % 25}\t{seconds}")
    (folder / "toy").mkdir()
    (folder / "toy" / "toy.inter").write_text("\n".join(lines) + "\n")
    return folder


def arguments(data, output, **changes):
    found = {
        "dataset": "toy",
        # The last row asks for a column that the data do not have.
        "models": ["SASRec", "narrow=SASRec:hidden_size=4", "bad=SASRec:TIME_FIELD=when"],
        "seeds": [1, 2],
        "seeds_for": {"SASRec": 1, "narrow": 2, "bad": 1},
        "output": str(output),
        "config_files": [],
        "plugins": [],
        "jobs": 2,
        "baseline": None,
        "table_only": False,
    }
    return Namespace(**{**found, **changes}), {**SMALL, "data_path": str(data)}


def test_a_real_comparison_is_run_kept_resumed_and_written_again(data, tmp_path, capsys):
    args, overrides = arguments(data, tmp_path)
    assert compare_command(args, overrides) == 1  # a run has failed
    rows, baseline = read_rows(tmp_path)
    assert baseline == "SASRec"
    found = [(row.label, [a.seed for a in row.attempts], len(row.records)) for row in rows]
    assert found == [("SASRec", [1], 1), ("narrow", [1, 2], 2), ("bad", [1], 0)]
    assert [row.records[0]["config"]["hidden_size"] for row in rows[:2]] == [8, 4]
    error = rows[2].attempts[0].error
    assert error.startswith("error: ") and "when" in error
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "## Paired comparison" in text and "| narrow | 2 |" in text
    assert f"| bad | 1 | {error} |" in text
    assert text in capsys.readouterr().out

    # An interrupted run has a last checkpoint and no result: it is resumed. The others are kept.
    expected = rows[0].records[0]
    folder = next(tmp_path.glob("runs/SASRec-*"))
    (folder / "result.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/narrow-*/result.json")}
    assert compare_command(args, overrides) == 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept and len(kept) == 2
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
    assert compare_command(args, {}) == 1
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
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    log = next(tmp_path.glob("logs/*.log")).read_text(encoding="utf-8")
    assert "--resume=" in log
    assert write_report(tmp_path).exists()


def test_a_killed_run_says_so(tmp_path, monkeypatch):
    job = Job("x", 1, ("--model=none",), tmp_path / "run", tmp_path / "x.log")

    class Killed(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__(
                [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], **options
            )

    monkeypatch.setattr("recbole_mm.compare.jobs.subprocess.Popen", Killed)
    run_jobs([job])
    assert "killed by SIGKILL" in job.log.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="jobs must be 1 or more"):
        run_jobs([], 0)


def test_a_finished_job_has_nothing_left_to_do(tmp_path):
    job = Job("x", 1, ("--model=M", "--plugins=p"), tmp_path, tmp_path / "x.log")
    assert job.pending() == ["run", "--model=M", "--plugins=p", f"--run_folder={tmp_path}"]
    (tmp_path / "last.safetensors").touch()
    assert job.pending() == ["run", f"--resume={tmp_path}", "--plugins=p"]
    (tmp_path / "result.json").write_text(json.dumps({"status": "ok"}))
    assert job.pending() is None
