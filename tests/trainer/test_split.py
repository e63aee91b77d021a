"""Training in several processes, started by a real torchrun on the CPU (gloo)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mm import collectives, processes
from recbole_mm.data.itememb import itememb_path, write_itememb
from recbole_mm.files import BEST, LAST
from recbole_mm.run.record import read_result
from recbole_mm.trainer.checkpoint import load_checkpoint

SCRIPT = Path(__file__).with_name("split_run.py")
ROOT = Path(__file__).parents[2]
SHARED = {
    "epochs": 3, "train_batch_size": 61, "eval_batch_size": 16, "topk": [2, 5],
    "valid_metric": "NDCG@5", "floor": False, "seed": 5,
}  # fmt: skip
SASREC = {
    "n_layers": 1, "hidden_size": 8, "inner_size": 8, "hidden_dropout_prob": 0.0,
    "attn_dropout_prob": 0.0,
}  # fmt: skip
# All four losses, one of which contrasts the rows of a batch with each other.
SRIM = {
    "embedding_size": 8, "n_layers": 1, "n_heads": 2, "emb_dropout": 0.0, "att_dropout": 0.0,
    "feature_pca": 0, "co_samples": 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(toy, tmp_path_factory) -> Path:
    """A small data set with text vectors."""
    folder = tmp_path_factory.mktemp("split")
    toy.write_data(folder)
    vectors = np.random.default_rng(1).standard_normal((20, 6)).astype(np.float32)
    tokens = [f"i{item}" for item in range(20)]
    write_itememb(itememb_path(folder / "toy", "toy", "text"), "text", tokens, vectors)
    return folder


def started(data: Path, jobs: list, processes_: int = 2) -> subprocess.Popen:
    """Start the jobs under torchrun, or in one process without it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes_}"]
    return subprocess.Popen(
        [sys.executable, *(launcher if processes_ > 1 else ()), str(SCRIPT), str(data),
         json.dumps(jobs)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def done(data: Path, jobs: list, processes_: int = 2) -> str:
    """Do the jobs, and return what was logged."""
    out, err = (running := started(data, jobs, processes_)).communicate(timeout=600)
    assert running.returncode == 0, out + err
    return err


def assert_equal_runs(one: Path, several: Path, apart: float = 1e-5) -> None:
    """Compare weights, losses, metrics and ranks of two runs."""
    for name in (BEST, LAST):
        first, second = (load_checkpoint(folder / name) for folder in (one, several))
        assert first["epoch"] == second["epoch"]
        assert first["model"].keys() == second["model"].keys()
        for key, weight in first["model"].items():
            torch.testing.assert_close(second["model"][key], weight, rtol=0, atol=apart)
        for before, after in zip(first["history"], second["history"], strict=True):
            assert after["loss"] == pytest.approx(before["loss"], rel=1e-5)
            assert after["valid"] == pytest.approx(before["valid"], abs=1e-6)
    records = read_result(one), read_result(several)
    for key in ("test", "valid"):
        assert records[1][key] == pytest.approx(records[0][key], abs=1e-6)
    assert records[0]["ranks"] == records[1]["ranks"]
    assert records[0]["fingerprint"] == records[1]["fingerprint"]


def test_two_processes_train_what_one_trains_and_go_on_with_one_anothers_runs(data, tmp_path):
    def job(model, keys, name, **more):
        return [model, {**SHARED, **keys, **more, "run_folder": str(tmp_path / name)}, None]

    more = {"epochs": 3}
    one = [job("SASRec", SASREC, "sasrec-1"), job("SRIM", SRIM, "srim-1")]
    one += [job("SASRec", SASREC, "from-1", epochs=1)]
    done(data, one, 1)
    several = [job("SASRec", SASREC, "sasrec-2"), job("SRIM", SRIM, "srim-2")]
    several += [job("SRIM", SRIM, "from-2", epochs=2), ["", more, str(tmp_path / "from-1")]]
    log = done(data, several, 2)
    done(data, [["", more, str(tmp_path / "from-2")]], 1)
    for first, second in (
        ("sasrec-1", "sasrec-2"), ("srim-1", "srim-2"), ("sasrec-1", "from-1"), ("srim-1", "from-2")
    ):  # fmt: skip
        assert_equal_runs(tmp_path / first, tmp_path / second)
    # One run folder, written by one process, and one log.
    files = [sorted(p.name for p in (tmp_path / f"srim-{n}").iterdir()) for n in (1, 2)]
    assert files[0] == files[1]
    assert log.count("training in 2 processes, 61 rows a step") == len(several)
    assert log.count("epoch 3: training") == 3
    # The contrast of the rows is not nothing.
    losses = load_checkpoint(tmp_path / "srim-2" / LAST)["history"][0]["loss"]
    assert losses["align"] > 0.01 and losses["co"] > 0.01


def test_a_killed_process_ends_all_with_one_message_and_the_run_can_be_resumed(data, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    keys = {**SHARED, **SASREC, "epochs": 500, "stopping_step": 999, "run_folder": str(folder)}
    running = started(data, [["Numbered", keys, None]])
    limit = time.monotonic() + 600
    while not (folder / LAST).exists() and running.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    assert running.poll() is None, running.communicate()
    os.kill(int((folder / "pid-1").read_text()), signal.SIGKILL)
    _, err = running.communicate(timeout=600)
    assert running.returncode != 0
    assert one_message(err) == 1, err
    assert not alive(int((folder / "pid-0").read_text()))
    epoch = load_checkpoint(folder / LAST)["epoch"]
    done(data, [["", {"epochs": epoch + 2}, str(folder)]], 1)
    assert load_checkpoint(folder / LAST)["epoch"] == epoch + 1


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def one_message(err: str) -> int:
    """Return how many messages stand there that are ours; the launcher's own report follows."""
    ours, _, _ = err.partition("torch/distributed/elastic")
    assert "Traceback" not in ours
    return sum(line.startswith(("error: ", "interrupted")) for line in err.splitlines())


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("OneBreaks", {}, "the training loss of OneBreaks is nan in epoch 1"),
        ("Normed", {}, "Normed cannot be trained in several processes: it takes means over"),
        ("RowsTogether", {}, "its loss looks across the rows of a batch (64 rows at once"),
        ("SASRec", {"learning_rat": 1}, "unknown key 'learning_rat'"),
    ],
)
def test_an_error_in_one_process_or_in_all_is_said_once(data, tmp_path, model, keys, message):
    (tmp_path / "run").mkdir()
    keys = {**SHARED, **SASREC, "train_batch_size": 128, **keys}
    running = started(data, [[model, {**keys, "run_folder": str(tmp_path / "run")}, None]])
    _, err = running.communicate(timeout=600)
    assert running.returncode != 0
    assert one_message(err) == 1, err
    assert message in err


def test_other_commands_are_refused_under_torchrun(monkeypatch, capsys):
    from recbole_mm import cli

    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "x")):
        monkeypatch.setenv(name, value)
    assert not processes.launched()
    monkeypatch.setenv("MASTER_PORT", "1")
    assert cli.main(["compare", "--dataset=x"]) == 2
    assert "compare works in one process" in capsys.readouterr().err


def test_one_process_is_left_as_it_is():
    rows = torch.arange(6.0).view(3, 2)
    assert not processes.launched() and processes.leads() and processes.may_speak()
    assert collectives.batch_rows(rows) is rows and collectives.own_rows(rows) is rows
    assert collectives.distinct(torch.tensor([3, 1, 3])).tolist() == [1, 3]
    assert collectives.summed([1.5, 2.0]) == [1.5, 2.0]
    assert collectives.of_the_first("x") == "x"


def test_the_rows_of_a_batch_are_shared_out_once_each():
    for rows in range(8):
        shares = [processes.Group(rank, 3, rows) for rank in range(3)]
        own = [list(range(rows))[share.own()] for share in shares]
        assert sorted(sum(own, [])) == list(range(rows))
        assert [len(part) for part in own] == [share.own_rows() for share in shares]
