"""Counted parts in whole runs: trained as without them, kept, read again, summed in a blend."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_mm.errors import CheckpointError, ConfigError
from recbole_mm.files import BEST, LAST
from recbole_mm.protocol import shared_protocol, stored_settings
from recbole_mm.run import RunResult, format_result, run
from recbole_mm.testing.case import Toy, write_toy
from recbole_mm.trainer.checkpoint import load_checkpoint

PARTS = ["transitions", "lexical", "own_items"]
SMALL = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1, "epochs": 2}
SRIM = {"embedding_size": 8, "co_samples": 16, "epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_toy(folder, Toy("toy", n_items=40, n_sessions=200), ["text"])
    # Words that several items share, for the lexical part.
    path = folder / "toy" / "toy.item"
    header, *lines = path.read_text("utf-8").splitlines()
    titled = [f"{line}\tlamp {n % 5} of series {n % 7}" for n, line in enumerate(lines)]
    path.write_text("\n".join([f"{header}\ttitle:token_seq", *titled]) + "\n", "utf-8")
    return folder


def start(data: Path, folder: Path, model: str = "SASRec", **keys: Any) -> RunResult:
    own = {"SASRec": SMALL, "SRIM": SRIM}.get(model, {})
    where = {"data_path": str(data), "run_folder": str(folder), "use_gpu": False, "floor": False}
    return run(model, "toy", (), {**own, **where, **keys})


@pytest.fixture(scope="module")
def ended(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    folder = tmp_path_factory.mktemp("ended")
    return {
        "plain": start(data, folder / "plain"),
        "parts": start(data, folder / "parts", score_parts=PARTS),
        "SRIM": start(data, folder / "SRIM", "SRIM", preset="hybrid"),
    }


def test_the_network_is_the_one_without_parts_bit_by_bit(ended: dict[str, RunResult]) -> None:
    plain, parts = ended["plain"], ended["parts"]
    one, other = (load_checkpoint(run.folder / BEST) for run in (plain, parts))
    assert one["model"].keys() == other["model"].keys()
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    assert plain.record["history"] == parts.record["history"]
    network = parts.record["parts"]["test"]["network"]
    same = {name: value for name, value in network.items() if name in plain.test}
    # z-scores in float32 keep the order but for what they round to one number.
    assert same == pytest.approx(plain.test, abs=1e-9)


def test_the_result_is_that_of_the_whole_score(ended: dict[str, RunResult]) -> None:
    record = ended["parts"].record
    for part in ("valid", "test"):
        whole = {name: value for name, value in record["parts"][part]["whole"].items()}
        assert whole.pop("ce") > 0
        assert record[part] == pytest.approx(whole, abs=1e-9)
    # Fitted there, so not below the network alone.
    assert record["valid"]["ndcg@20"] >= record["parts"]["valid"]["network"]["ndcg@20"] - 1e-9
    assert record["diagnostics"]["late/weight/network"] == 1.0
    assert "late/weight/transitions" in format_result(ended["parts"])


def test_the_weights_are_kept_with_the_best_network_alone(ended: dict[str, RunResult]) -> None:
    folder = ended["parts"].folder
    best, last = (load_checkpoint(folder / name)["other"]["late"] for name in (BEST, LAST))
    assert set(best["parts"]) == {"transitions", "lexical"} and last == {}


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(
    data: Path, ended: dict[str, RunResult], tmp_path: Path
) -> None:
    start(data, tmp_path / "run", score_parts=PARTS, epochs=1)
    resumed = run("", "", (), {"epochs": 2}, resume=tmp_path / "run")
    assert resumed.record["ranks"] == ended["parts"].record["ranks"]
    assert resumed.valid == ended["parts"].valid


def test_parts_of_the_model_stand_beside_the_counted_ones(ended: dict[str, RunResult]) -> None:
    names = list(ended["SRIM"].record["parts"]["test"])
    assert names[:2] == ["whole", "network"] and names[-2:] == ["id", "content"]


def test_own_items_are_no_choice_where_they_are_masked(data: Path, tmp_path: Path) -> None:
    record = start(data, tmp_path / "run", score_parts=PARTS, history="mask").record
    assert record["diagnostics"]["late/own_items_last"] == 1.0


def test_a_blend_is_a_result_like_any_other(ended: dict[str, RunResult], tmp_path: Path) -> None:
    folders = [str(ended[name].folder) for name in ("plain", "SRIM")]
    command = [sys.executable, "-m", "recbole_mm", "blend", f"--runs={' '.join(folders)}"]
    folder = tmp_path / "blend"
    done = subprocess.run(
        [*command, f"--run_folder={folder}"], capture_output=True, text=True, check=True
    )
    record = json.loads((folder / "result.json").read_text("utf-8"))
    assert record["model"] == "Blend" and "Blend (sound) on toy" in done.stdout
    assert record["fingerprint"]["data"] == ended["plain"].record["fingerprint"]["data"]
    parts = record["parts"]
    assert {"SASRec", "SRIM"} <= set(parts["valid"])
    best = max(values["ndcg@20"] for values in parts["valid"].values())
    assert record["valid"]["ndcg@20"] == pytest.approx(best, abs=1e-9)
    assert record["floor"]["model"] == "Counting"
    # The networks are those of the runs, without what was added to them.
    alone = ended["SRIM"].record["parts"]["test"]["network"]["ndcg@20"]
    assert parts["test"]["SRIM"]["ndcg@20"] == pytest.approx(alone, abs=1e-9)


def test_two_runs_of_one_model_are_told_apart(
    data: Path, ended: dict[str, RunResult], tmp_path: Path
) -> None:
    folders = [str(ended[name].folder) for name in ("plain", "plain")]
    record = start(data, tmp_path / "run", "Blend", runs=folders, score_parts=[]).record
    assert set(record["parts"]["test"]) >= {"whole", "SASRec"}
    assert {"late/weight/SASRec", "late/weight/SASRec 2"} <= set(record["diagnostics"])
    ranks = np.array(record["ranks"]["rank"])
    assert np.array_equal(ranks, np.array(ended["plain"].record["ranks"]["rank"]))


def test_what_does_not_fit_is_said(data: Path, ended: dict[str, RunResult], tmp_path: Path) -> None:
    plain = str(ended["plain"].folder)
    with pytest.raises(ConfigError, match="two or more run folders"):
        shared_protocol([plain])
    with pytest.raises(CheckpointError, match=r"Expected the folder of a finished run"):
        stored_settings(tmp_path)
    other = start(data, tmp_path / "masked", history="mask")
    with pytest.raises(ConfigError, match=r"history is 'keep' in .* and 'mask' in "):
        shared_protocol([plain, str(other.folder)])
    with pytest.raises(ConfigError, match=r"split_by is 'session_time' in the runs and "):
        start(data, tmp_path / "x", "Blend", runs=[plain, plain], split_by="session_random")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--model=SASRec", "--score_parts=transition"],
            "one of: 'transitions', 'lexical', 'own_items'",
        ),
        (["--model=Counting", "--score_parts=lexical"], "Counting counts already"),
        (["--model=Pop", "--score_parts=lexical"], "Pop does not read the session"),
    ],
)
def test_wrong_parts_are_one_line(arguments: list[str], said: str, data: Path) -> None:
    command = [sys.executable, "-m", "recbole_mm", "run", "--dataset=toy", f"--data_path={data}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
