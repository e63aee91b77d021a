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
from recbole_mm.errors import ConfigError
from recbole_mm.evaluation.compare import Spec, as_argument, compare, compare_command, parse_row
from recbole_mm.evaluation.jobs import Job, run_jobs
from recbole_mm.evaluation.report import write_report
from recbole_mm.evaluation.results import read_rows

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
        "models": ["SASRec", "narrow=SASRec:hidden_size=4,learning_rate=0.01"],
        "seeds": [1, 2],
        "seeds_for": {"narrow": 1},
        "output": str(output),
        "config_files": [],
        "plugins": [],
        "jobs": 2,
        "baseline": None,
        "table_only": False,
    }
    return Namespace(**{**found, **changes}), {**SMALL, "data_path": str(data)}


def test_a_real_comparison_is_run_kept_and_written_again(data, tmp_path, capsys):
    args, overrides = arguments(data, tmp_path / "out")
    assert compare_command(args, overrides) == 0
    rows, baseline = read_rows(tmp_path / "out")
    assert [(row.label, [a.seed for a in row.attempts]) for row in rows] == [
        ("SASRec", [1, 2]),
        ("narrow", [1]),
    ]
    assert baseline == "SASRec"
    assert [len(row.records) for row in rows] == [2, 1]
    assert rows[1].records[0]["config"]["hidden_size"] == 4
    assert rows[0].records[0]["config"]["hidden_size"] == 8
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "## Paired comparison" in text and "| narrow |" in text
    assert text in capsys.readouterr().out

    # Given again, nothing is run: every file stays as it was.
    results = sorted((tmp_path / "out").glob("runs/*/result.json"))
    before = [path.stat().st_mtime_ns for path in results]
    assert compare_command(args, overrides) == 0
    assert [path.stat().st_mtime_ns for path in results] == before

    # The tables come from the results alone.
    for name in ("table.md", "table.csv"):
        (tmp_path / "out" / name).unlink()
    args, overrides = arguments(data, tmp_path / "out", table_only=True, models=[])
    assert compare_command(args, overrides) == 0
    assert (tmp_path / "out" / "table.md").read_text(encoding="utf-8") == text


def test_a_failing_and_an_interrupted_run(data, tmp_path):
    # The failing row asks for an optimiser's step that makes the weights overflow.
    args, overrides = arguments(
        data, tmp_path / "out", models=["SASRec", "bad=SASRec:learning_rate=1e30"], seeds=[1]
    )
    args.seeds_for = {}
    assert compare_command(args, overrides) == 1
    rows, _ = read_rows(tmp_path / "out")
    good, bad = rows
    assert good.records and not bad.records
    assert bad.attempts[0].error.startswith("error: the ") and "SASRec" in bad.attempts[0].error
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "## Failed runs" in table and "| bad | 1 | error: the " in table

    # An interrupted run has a last checkpoint and no result; it is resumed, not run anew.
    expected = good.records[0]
    folder = next((tmp_path / "out" / "runs").glob("SASRec-*"))
    (folder / "result.json").unlink()
    compare_command(args, overrides)
    log = next((tmp_path / "out" / "logs").glob("SASRec-*")).read_text(encoding="utf-8")
    assert f"run --resume={folder}" in log
    again = read_rows(tmp_path / "out")[0][0].records[0]
    for key in ("test", "valid", "ranks", "history", "fingerprint"):
        assert again[key] == expected[key]


def test_ctrl_c_interrupts_the_runs(data, tmp_path):
    """In a process of its own: the comparison is interrupted while a run trains."""
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
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
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

    monkeypatch.setattr("recbole_mm.evaluation.jobs.subprocess.Popen", Killed)
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
