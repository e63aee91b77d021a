"""Pre-training on two data sets, and runs that start from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_mm import cli
from recbole_mm.config import MMConfig
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.itememb import itememb_path, read_itememb
from recbole_mm.encode.manifest import Manifest, manifest_path
from recbole_mm.errors import CheckpointError, ConfigError, FeatureError
from recbole_mm.files import BEST
from recbole_mm.run import run
from recbole_mm.run.prepared import load_dataset
from recbole_mm.run.pretrained import MIXED, MODALITY
from recbole_mm.run.pretraining import pretrain
from recbole_mm.testing.case import Toy, write_toy
from recbole_mm.trainer.checkpoint import load_checkpoint

KEYS: dict[str, Any] = {
    "use_gpu": False, "hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_experts": 2,
    "train_batch_size": 128, "MAX_ITEM_LIST_LENGTH": 8, "epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets in ``data``, and what was learned on both in ``learned``."""
    root = tmp_path_factory.mktemp("pretraining")
    for toy in (Toy("one"), Toy("two", n_items=40, n_sessions=120)):
        write_toy(root / "data", toy, ["text"])
    keys = {**KEYS, "data_path": str(root / "data")}
    pretrain(["one", "two"], root / "learned", (), keys)
    return root


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_checkpoint(folder / BEST)["model"]
    return found


def test_training_sessions_alone_are_mixed(place: Path) -> None:
    data = place / "learned" / "data" / MIXED
    rows = read_atomic(data / f"{MIXED}.inter", ["session_id", "item_id", "timestamp"])
    expected = []
    for name in ("one", "two"):
        dataset = load_dataset("UniSRec", name, (), {**KEYS, "data_path": str(place / "data")})
        train = dataset.train_sessions
        owner = dataset.session_tokens(np.repeat(train.session, train.lengths()))
        items = dataset.tokens(train.items)
        expected += [(f"{name}:{s}", f"{name}:{i}") for s, i in zip(owner, items, strict=True)]
        later = set(dataset.session_tokens(dataset.split.test.session))
        assert later and not {f"{name}:{one}" for one in later} & set(rows["session_id"])
    assert sorted(zip(rows["session_id"], rows["item_id"], strict=True)) == sorted(expected)


def test_vectors_are_those_that_each_data_set_reads(place: Path) -> None:
    mixed = read_itememb(
        itememb_path(place / "learned" / "data" / MIXED, MIXED, MODALITY), MODALITY
    )
    for name in ("one", "two"):
        raw = read_itememb(itememb_path(place / "data" / name, name, "text"), "text")
        at = {token: row for row, token in enumerate(mixed.ids)}
        shared = [n for n, token in enumerate(raw.ids) if f"{name}:{token}" in at]
        assert len(shared) > 20
        given = raw.vectors[shared].astype(np.float64)
        expected = given - given.mean(axis=0)
        expected /= np.sqrt(np.square(expected).sum(axis=1).mean())
        found = mixed.vectors[[at[f"{name}:{raw.ids[n]}"] for n in shared]]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_run_starts_from_what_was_learned(place: Path, tmp_path: Path, frozen: bool) -> None:
    keys = {**KEYS, "data_path": str(place / "data"), "pretrained": str(place / "learned"),
            "freeze_encoder": frozen, "floor": False}  # fmt: skip
    # So small a step leaves all weights within a hair of where they began.
    made = run("UniSRec", "one", (), {**keys, "run_folder": str(tmp_path), "learning_rate": 1e-9})
    assert 0 <= made.test["ndcg@20"] <= 1
    before, after = weights(place / "learned"), weights(tmp_path)
    assert set(after) - set(before) == {"item_embedding.weight"}
    for name, one in before.items():
        torch.testing.assert_close(after[name], one, rtol=0, atol=1e-6)
        if name.startswith(("encoder.", "position_embedding.")):
            same = torch.equal(after[name], one)
            assert same if frozen else True, name
    moved = [n for n in before if n.startswith("encoder.") and not torch.equal(after[n], before[n])]
    assert bool(moved) != frozen


def test_an_interrupted_run_goes_on_without_the_folder(place: Path, tmp_path: Path) -> None:
    learned = tmp_path / "learned"
    learned.mkdir()
    (learned / BEST).write_bytes((place / "learned" / BEST).read_bytes())
    keys = {**KEYS, "data_path": str(place / "data"), "pretrained": str(learned), "floor": False}
    whole = run("UniSRec", "one", (), {**keys, "epochs": 2, "run_folder": str(tmp_path / "a")})
    run("UniSRec", "one", (), {**keys, "epochs": 1, "run_folder": str(tmp_path / "b")})
    (learned / BEST).unlink()
    resumed = run("", "", (), {"epochs": 2}, resume=tmp_path / "b")
    assert resumed.test == whole.test and resumed.valid == whole.valid


def test_what_does_not_fit_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {**KEYS, "data_path": str(place / "data"), "run_folder": str(tmp_path / "run")}
    learned = {**keys, "pretrained": str(place / "learned")}
    with pytest.raises(CheckpointError, match=r"no best\.safetensors there. Expected the folder"):
        run("UniSRec", "one", (), {**keys, "pretrained": str(tmp_path)})
    with pytest.raises(CheckpointError, match="does not fit this model: .*adaptor"):
        run("UniSRec", "one", (), {**learned, "hidden_size": 16})
    with pytest.raises(ConfigError, match="pretrained is not accepted; with preset: pretrain"):
        MMConfig("UniSRec", "one", (), {**learned, "preset": "pretrain"})
    with pytest.raises(ConfigError, match="one or more names, each once"):
        pretrain(["one", "one"], tmp_path / "out", (), keys)
    path = itememb_path(place / "data" / "two", "two", "text")
    raw = read_itememb(path, "text")
    Manifest("two", "text", "imported", raw.sha256, raw.vectors.shape[1],
             encoder={"name": "another"}).save(manifest_path(path))  # fmt: skip
    try:
        with pytest.raises(FeatureError, match="do not lie in one space. Encode all by one"):
            pretrain(["one", "two"], tmp_path / "out", (), keys)
        with pytest.raises(CheckpointError, match="was pre-trained on vectors made by"):
            run("UniSRec", "two", (), learned)
    finally:
        manifest_path(path).unlink()
    assert not (tmp_path / "out").exists()
    command = ["pretrain", "--datasets=nowhere", f"--output={tmp_path / 'out'}"]
    capsys.readouterr()
    assert cli.main([*command, f"--data_path={place / 'data'}"]) == 2
    assert "nowhere.inter: no such file. Data sets in" in capsys.readouterr().err
