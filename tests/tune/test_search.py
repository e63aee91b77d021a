"""Whole searches with real trainings: kept, gone on with, killed, side by side, never tested."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import recbole_mm
from recbole_mm import cli
from recbole_mm.errors import ConfigError, DataError, TrainingError
from recbole_mm.rows import as_argument
from recbole_mm.run.execute import run
from recbole_mm.tune import search
from recbole_mm.tune.search import tune
from recbole_mm.tune.trial import Trained

ROOT = Path(recbole_mm.__file__).parents[1]
SMALL = {"epochs": 2, "hidden_size": 8, "inner_size": 8, "n_heads": 2, "use_gpu": False,
         "train_batch_size": 32, "floor": False}  # fmt: skip


def keys(data: Path, **more: object) -> dict[str, Any]:
    return {**SMALL, "data_path": str(data), **more}


def trials(folder: Path) -> list[dict[str, str]]:
    """Return the lines of the table of trials, without the seconds."""
    with open(folder / "trials.csv", encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert all(float(line.pop("seconds")) > 0 for line in lines)
    return lines


def arguments(data: Path, output: Path, *more: str, **changes: object) -> list[str]:
    given = [f"--{key}={as_argument(value)}" for key, value in keys(data, **changes).items()]
    return ["tune", "--models=SASRec", "--dataset=toy", f"--output={output}", *given, *more]


def process(argv: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "recbole_mm", *argv],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_a_search_is_kept_gone_on_with_and_gives_settings_for_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    # A key that one model does not have is its row's.
    assert cli.main(["tune", "--models=SASRec Pop", *arguments(data, out)[2:]]) == 2
    assert "error: row Pop: " in capsys.readouterr().err and not out.exists()
    argv = ["tune", "--models=SASRec:hidden_size=8,inner_size=8,n_heads=2 Pop", "--dataset=toy",
            f"--data_path={data}", f"--output={out}", "--epochs=2", "--use_gpu=false",
            "--trials=3"]  # fmt: skip
    assert cli.main(argv) == 0
    told = capsys.readouterr().out
    found = trials(out)
    label = "SASRec:hidden_size=8,inner_size=8,n_heads=2"
    assert [(line["row"], line["trial"]) for line in found] == [
        (label, "0"), (label, "1"), (label, "2"), ("Pop", "0"),
    ]  # fmt: skip
    assert found[0]["learning_rate"] == "0.001"  # The defaults come first.
    assert f"| {label} | 3 |" in told and "Budget of every model: 3 trials, any time" in told
    assert not list(out.rglob("*.safetensors")) and not list(out.rglob("result.json"))

    # The same command makes nothing again; one of more trials goes on.
    before = (out / "trials.csv").read_bytes()
    assert cli.main(argv) == 0 and (out / "trials.csv").read_bytes() == before
    assert cli.main([*argv[:-1], "--trials=4"]) == 0
    assert trials(out)[:3] == found[:3] and len(trials(out)) == 5

    # The best settings are those of a trial, and a run with them validates the same.
    best = max(trials(out)[:4], key=lambda line: float(line["value"]))
    file = next(out.glob("SASRec_hidden_size*.yaml"))
    stored = yaml.safe_load(file.read_text("utf-8"))
    assert stored["hidden_size"] == 8 and stored["model"] == "SASRec"
    assert stored["learning_rate"] == float(best["learning_rate"])
    result = run("SASRec", "toy", [file], {"data_path": str(data), "epochs": 2, "use_gpu": False,
                                           "run_folder": str(tmp_path / "run")})  # fmt: skip
    assert result.valid["ndcg@20"] == float(best["value"])

    # Another budget of epochs is another search.
    assert cli.main([*argv, "--eval_batch_size=7"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "eval_batch_size was not there, now 7" in error


def test_the_same_seed_tries_the_same_and_another_does_not(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        tune("toy", ["SASRec"], trials=2, output=tmp_path / name, overrides=keys(data, seed=seed))
    assert trials(tmp_path / "a") == trials(tmp_path / "b")
    rates = [trials(tmp_path / name)[1]["learning_rate"] for name in "ac"]
    assert rates[0] != rates[1]


def test_nothing_of_the_test_part_is_computed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole_mm.run import prepared

    class Untouched:
        """Stands for the loader of the test part."""

        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"a trial asked the test part for its {name}")

    real = prepared.loaders
    monkeypatch.setattr(prepared, "loaders", lambda *given: (*real(*given)[:2], Untouched()))
    tune("toy", ["SASRec"], trials=1, output=tmp_path, overrides=keys(data))
    assert trials(tmp_path)[0]["state"] == "done"
    assert "test" not in (tmp_path / "studies" / "SASRec" / "journal.log").read_text("utf-8")


def test_time_that_is_up_ends_the_trial_and_the_search(data: Path, tmp_path: Path) -> None:
    tune("toy", ["SASRec"], trials=5, seconds=1e-6, output=tmp_path, overrides=keys(data))
    (line,) = trials(tmp_path)
    assert (line["state"], line["epochs"]) == ("time up", "1") and float(line["value"]) >= 0
    assert "5 trials, 1e-06 seconds" in (tmp_path / "table.md").read_text("utf-8")


def test_a_trial_that_lies_below_the_median_is_pruned(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four good trials, then a bad one: it ends at the first epoch at which it may."""

    def trained(config: Any, folder: Path, watch: Any) -> Any:
        number = int(folder.name)
        score = 0.5 if number < 4 else 0.1
        for epoch in range(1, 9):
            watch(epoch, score, float(epoch))
        return Trained(value=score, best_epoch=1, epochs=8, seconds=8.0)

    monkeypatch.setattr(search, "train", trained)
    tune("toy", ["SASRec"], trials=5, output=tmp_path, overrides=keys(data))
    found = trials(tmp_path)
    assert [line["state"] for line in found] == ["done"] * 4 + ["pruned"]
    assert found[4]["epochs"] == "5"
    assert "| SASRec | 5 | 1 | 0 | 37.0 |" in (tmp_path / "table.md").read_text("utf-8")


def test_settings_that_cannot_be_trained_cost_one_trial(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = search.train

    def trained(config: Any, folder: Path, watch: Any) -> Any:
        if folder.name == "0001":
            raise TrainingError("the loss is not finite")
        return real(config, folder, watch)

    monkeypatch.setattr(search, "train", trained)
    tune("toy", ["SASRec"], trials=3, output=tmp_path, overrides=keys(data))
    with open(tmp_path / "trials.csv", encoding="utf-8", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [line["state"] for line in found] == ["done", "failed", "done"]
    assert found[1]["error"] == "the loss is not finite"


def test_what_is_wrong_with_the_data_ends_the_search(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.inter: no such file"):
        tune("nowhere", ["SASRec"], output=tmp_path, overrides=keys(data))
    with pytest.raises(ConfigError, match="trials = 0"):
        tune("toy", ["SASRec"], trials=0, output=tmp_path, overrides=keys(data))
    assert not (tmp_path / "studies").exists()


def test_a_damaged_journal_is_named_and_a_half_line_mended(data: Path, tmp_path: Path) -> None:
    tune("toy", ["SASRec"], trials=1, output=tmp_path, overrides=keys(data))
    journal = tmp_path / "studies" / "SASRec" / "journal.log"
    good = journal.read_bytes()
    journal.write_bytes(good + b'{"op_code": 4, "wor')  # as a full disk leaves it
    tune("toy", ["SASRec"], trials=2, output=tmp_path, overrides=keys(data))
    assert len(trials(tmp_path)) == 2
    journal.write_bytes(b"no journal\n" + good)
    with pytest.raises(DataError, match=r"journal\.log is damaged"):
        tune("toy", ["SASRec"], trials=2, output=tmp_path, overrides=keys(data))


def test_a_killed_search_goes_on_to_the_same_trials(data: Path, tmp_path: Path) -> None:
    """SIGKILL while a trial trains: the same command resumes that trial, and loses none."""
    many = {"epochs": 30, "stopping_step": 30}
    overrides = keys(data, **many)
    tune("toy", ["SASRec"], trials=2, output=tmp_path / "whole", overrides=overrides)
    out = tmp_path / "killed"
    argv = arguments(data, out, "--trials=2", **many)
    victim = process(argv)
    checkpoint = out / "studies" / "SASRec" / "trials" / "0001" / "last.safetensors"
    while not checkpoint.is_file() and victim.poll() is None:
        time.sleep(0.002)
    victim.send_signal(signal.SIGKILL)
    told, _ = victim.communicate(timeout=600)
    assert victim.returncode == -signal.SIGKILL and checkpoint.is_file(), told
    again = process(argv)
    told, _ = again.communicate(timeout=600)
    assert again.returncode == 0, told
    assert trials(out) == trials(tmp_path / "whole")
    log = (checkpoint.parent / "run.log").read_text("utf-8")
    assert "resuming" in log


def test_two_processes_share_a_study(data: Path, tmp_path: Path) -> None:
    argv = arguments(data, tmp_path, "--trials=5")
    both = [process(argv) for _ in range(2)]
    for one in both:
        told, _ = one.communicate(timeout=600)
        assert one.returncode == 0, told
    tune("toy", ["SASRec"], trials=5, output=tmp_path, overrides=keys(data))
    found = trials(tmp_path)
    assert [line["trial"] for line in found] == list("01234")
    assert {line["state"] for line in found} <= {"done", "pruned"}
    assert len({line["learning_rate"] for line in found}) == 5


def test_asking_a_search_to_end_ends_it_cleanly(data: Path, tmp_path: Path) -> None:
    argv = arguments(data, tmp_path, epochs=100_000, stopping_step=100_000)
    victim = process(argv)
    folder = tmp_path / "studies" / "SASRec" / "trials" / "0000"
    while not (folder / "last.safetensors").is_file() and victim.poll() is None:
        time.sleep(0.01)
    victim.send_signal(signal.SIGTERM)
    told, _ = victim.communicate(timeout=600)
    assert victim.returncode == 130, told
    assert "the same command goes on" in told and "Traceback" not in told


def test_a_missing_extra_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setitem(sys.modules, "optuna.distributions", None)
    assert cli.main(arguments(data, tmp_path)) == 2
    assert "pip install 'recbole_mm[tune]'" in capsys.readouterr().err.splitlines()[-1]
