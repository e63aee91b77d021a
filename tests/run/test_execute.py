"""Whole runs through the real entry: result, run folder, resume, failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from recbole_mm import cli
from recbole_mm.errors import CheckpointError, ConfigError, MMError
from recbole_mm.evaluation.ranking import metrics_from_ranks
from recbole_mm.run import format_result, run
from recbole_mm.trainer.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "data_path": str(ROOT / "atomic_data"), "train_batch_size": 512, "use_gpu": False,
    "hidden_size": 16, "inner_size": 16, "n_layers": 1,
}  # fmt: skip


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "recbole_mm", "run", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Any:
    here = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(here)
    try:
        settings = {**SMALL, "epochs": 2, "run_folder": str(here / "sasrec")}
        return run("SASRec", "Cellphones", (), settings)
    finally:
        os.chdir(before)


def test_the_record_on_disk_is_whole_and_unrounded(result: Any) -> None:
    record = json.loads((result.folder / "result.json").read_text())
    assert record == json.loads(json.dumps(result.record))
    assert record["status"] == "ok" and record["synthetic"] is True and record["leaky"] is False
    assert record["best_epoch"] <= record["epochs_run"] == 2
    assert len(record["ranks"]["rank"]) == record["counts"]["test_rows"] == 300
    recomputed = metrics_from_ranks(np.array(record["ranks"]["rank"]), [10, 20], ["Hit", "NDCG"])
    if not record["tied"]:
        assert recomputed["hit@20"] == pytest.approx(record["test"]["hit@20"], abs=1e-12)
        assert recomputed["ndcg@10"] == pytest.approx(record["test"]["ndcg@10"], abs=1e-12)
    names = {path.name for path in result.folder.iterdir() if path.name != ".lock"}
    assert names == {
        "config.yaml",
        "result.json",
        "run.log",
        "curves.csv",
        "curves.png",
        "report.html",
        "best.safetensors",
        "last.safetensors",
    }
    # RecBole would leave ./log and ./log_tensorboard in the current folder.
    assert [path.name for path in result.folder.parent.iterdir()] == ["sasrec"]


def test_the_shown_result_says_what_it_rests_on(result: Any) -> None:
    shown = format_result(result)
    assert shown.startswith("SASRec on Cellphones [SYNTHETIC]")
    assert "95 % interval" in shown and "300 test rows (5 with a target unseen" in shown
    assert str(result.folder) in shown


def test_the_written_configuration_gives_the_same_run(result: Any, tmp_path: Path) -> None:
    written = yaml.safe_load((result.folder / "config.yaml").read_text())
    again = run("SASRec", "Cellphones", [result.folder / "config.yaml"],
                {"run_folder": str(tmp_path / "again")})  # fmt: skip
    assert written["epochs"] == 2
    for key in ("test", "valid", "fingerprint", "ranks", "history"):
        assert again.record[key] == result.record[key]


def test_sessions_of_test_never_change_what_is_trained(tmp_path: Path) -> None:
    """Other test targets: the same losses, the same chosen epoch, other test metrics."""
    source = ROOT / "atomic_data" / "Cellphones" / "Cellphones.inter"
    lines = source.read_text().splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    last = {session: float(time_) for session, _, time_ in rows}
    held = set(sorted(last, key=last.__getitem__)[-250:])
    items = [item for session, item, _ in rows if session in held]
    shuffled = iter(np.random.default_rng(0).permutation(items))
    changed = [(s, next(shuffled) if s in held else i, t) for s, i, t in rows]
    folder = tmp_path / "Cellphones"
    folder.mkdir()
    body = "\n".join("\t".join(map(str, row)) for row in changed)
    (folder / "Cellphones.inter").write_text(f"{lines[0]}\n{body}\n")
    records = []
    for name, path in (("a", ROOT / "atomic_data"), ("b", tmp_path)):
        places = {"data_path": str(path), "run_folder": str(tmp_path / name)}
        records.append(run("SASRec", "Cellphones", (), {**SMALL, "epochs": 2, **places}).record)
    assert records[0]["history"] == records[1]["history"]
    assert records[0]["best_epoch"] == records[1]["best_epoch"]
    assert records[0]["ranks"]["rank"] != records[1]["ranks"]["rank"]
    assert records[0]["fingerprint"]["data"] != records[1]["fingerprint"]["data"]


def test_a_run_that_is_asked_to_end_goes_on_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at any moment and resumed = in one go, bit by bit; nobody else may write there."""
    monkeypatch.chdir(tmp_path)
    folder, straight = tmp_path / "stopped", tmp_path / "straight"
    keys = [f"--{key}={value}" for key, value in SMALL.items()]
    process = start("--model=SASRec", "--dataset=Cellphones", *keys, f"--run_folder={folder}",
                    "--epochs=9000", "--stopping_step=9000")  # fmt: skip
    deadline = time.monotonic() + 600
    while not (folder / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    with pytest.raises(CheckpointError, match="another process is running there"):
        run("", "", resume=folder)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130, errors
    assert f"--resume={folder}" in errors and "Traceback" not in errors
    total = errors.count(": training loss") + 2
    before = load_checkpoint(folder / "last.safetensors")["seconds"]["total"]
    assert before > 0
    # As that process computed: the last bit of a sum depends on the number of threads.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    resumed = run("", "", (), {"epochs": total}, resume=folder).record
    settings = {**SMALL, "epochs": total, "stopping_step": 9000, "run_folder": str(straight)}
    expected = run("SASRec", "Cellphones", (), settings).record
    torch.set_num_threads(threads)
    for key in ("test", "valid", "ranks", "history", "best_epoch"):
        assert resumed[key] == expected[key], key
    seconds = resumed["seconds"]
    assert seconds["total"] > before and seconds["total"] > seconds["train"] + seconds["eval"]
    curves = [(path / "curves.csv").read_text() for path in (folder, straight)]
    assert curves[0] == curves[1] and len(curves[0].splitlines()) == 1 + total


def test_resume_refuses_other_settings_and_empty_folders(result: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only epochs and stopping_step may"):
        run("", "", (), {"learning_rate": 0.5}, resume=result.folder)
    with pytest.raises(CheckpointError, match="nothing to resume"):
        run("", "", (), {}, resume=tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model: SRIM\ndataset: [", "not valid YAML"),
        (b"\xff\xfe\x00", "cannot read the configuration file"),
        (b"", "it names no model and data set"),
    ],
)
def test_a_damaged_configuration_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(MMError, match=words) as caught:
        run("", "", (), {}, resume=tmp_path)
    assert str(tmp_path / "config.yaml") in str(caught.value)


def test_a_loss_that_is_not_finite_ends_with_a_message_and_code_3(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = [f"--{key}={value}" for key, value in SMALL.items()]
    code = cli.main(["run", "--model=SASRec", "--dataset=Cellphones", *keys, "--epochs=5",
                     "--initializer_range=1e30", f"--run_folder={tmp_path / 'nan'}"])  # fmt: skip
    errors = capfd.readouterr().err
    assert code == 3, errors
    assert "error: the training loss" in errors and "learning rate 0.001" in errors
    assert not (tmp_path / "nan" / "result.json").exists()


def test_wrong_input_ends_with_one_line_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Bad").mkdir()
    (tmp_path / "Bad" / "Bad.inter").write_text("session_id:token\titem_id:token\n1\t2\n")
    assert cli.main(["run", "--model=SASRec", "--dataset=Bad", f"--data_path={tmp_path}"]) == 2
    errors = capfd.readouterr().err
    assert "error: " in errors and "column(s) timestamp not found" in errors


def test_a_cut_off_beyond_the_catalogue_is_refused(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    rows = [f"s{n}\ti{(n + k) % 6}\t{1.6e9 + 100 * n + k}" for n in range(40) for k in range(3)]
    header = "session_id:token\titem_id:token\ttimestamp:float"
    (tmp_path / "few" / "few.inter").write_text("\n".join([header, *rows]) + "\n")
    keys = {**SMALL, "data_path": str(tmp_path), "run_folder": str(tmp_path / "run")}
    with pytest.raises(ConfigError, match=r"first 20 items, but few has 6.*--topk=\[3\]"):
        run("SASRec", "few", (), keys)
