"""A split exported as benchmark files gives stock RecBole the same rows, candidates and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_mm.compat import lengths_of_cells
from recbole_mm.config import MMConfig
from recbole_mm.data.export import export_benchmark
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.errors import DataError
from recbole_mm.registry import resolve
from recbole_mm.trainer.base import trainer_class

SETTINGS: dict[str, Any] = {
    "hidden_size": 16, "n_layers": 1, "inner_size": 16, "epochs": 2, "train_batch_size": 64,
    "learning_rate": 0.02, "MAX_ITEM_LIST_LENGTH": 4, "seed": 7, "metric_decimal_place": 8,
    "topk": [5], "valid_metric": "NDCG@5", "metrics": ["Hit", "MRR", "NDCG"], "use_gpu": False,
}  # fmt: skip


def write_toy(folder: Path, token: str = "i{}") -> None:
    """Write sessions whose next item is often the following number, so that there is a signal."""
    rng = np.random.default_rng(0)
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for k in range(200):
        item = int(rng.integers(0, 50))
        for place in range(int(rng.integers(2, 8))):
            lines.append(f"s{k}\t{token.format(item)}\t{1_700_000_000 + 750 * k + place}")
            item = (item + 1) % 50 if rng.random() < 0.7 else int(rng.integers(0, 50))
    lines.append(f"alone\t{token.format('rare')}\t1700000000")  # a candidate that is in no row
    (folder / "toy").mkdir()
    (folder / "toy" / "toy.inter").write_text("\n".join(lines) + "\n")


def ours(folder: Path) -> tuple[SessionDataset, dict[str, float], dict[str, torch.Tensor]]:
    """Train with our data set and trainer; return data, test metrics and first weights."""
    settings = {**SETTINGS, "data_path": str(folder), "run_folder": str(folder / "run")}
    config = MMConfig("SASRec", "toy", (), settings)
    dataset = SessionDataset(config)
    train, valid, test = data_preparation(config, dataset)
    init_seed(7, True)
    model = SASRec(config, train.dataset)
    first = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer = trainer_class(resolve("SASRec"), SASRec)(config, model)
    init_seed(7, True)
    trainer.fit(train, valid)
    metrics = trainer.evaluate(test, load_best_model=False)
    assert metrics is not None
    return dataset, metrics, first


def stock(
    folder: Path, dataset: SessionDataset, first: dict[str, torch.Tensor]
) -> tuple[Any, dict[str, float]]:
    """Train with RecBole's own classes on the exported files, from the same first weights."""
    written = {k: v for k, v in SETTINGS.items() if k != "MAX_ITEM_LIST_LENGTH"}
    more = {**written, "data_path": str(folder), "checkpoint_dir": str(folder / "stock")}
    config = Config("SASRec", "toy", [str(folder / "toy" / "toy.yaml")], more)
    with lengths_of_cells():  # stock RecBole cannot read them with pandas 3
        other = create_dataset(config)
    train, valid, test = data_preparation(config, other)
    model = SASRec(config, train.dataset)
    # RecBole numbers items by first appearance, we by sorted token: carry the rows over.
    order = dataset.token2id("item_id", other.field2id_token["item_id"][1:])
    weights = dict(first)
    weights["item_embedding.weight"] = first["item_embedding.weight"][np.append(0, order)]
    model.load_state_dict(weights)
    trainer = Trainer(config, model)
    init_seed(7, True)
    trainer.fit(train, valid, saved=False)
    return other, trainer.evaluate(test, load_best_model=False)


def test_stock_recbole_gives_the_same_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["pytest"])
    monkeypatch.chdir(tmp_path)  # RecBole writes its logs into the current folder
    write_toy(tmp_path)
    dataset, expected, first = ours(tmp_path)
    exported = export_benchmark(dataset, tmp_path / "exported")
    other, metrics = stock(exported.parent, dataset, first)
    assert other.item_num == dataset.item_num
    assert metrics["hit@5"] > 0.3  # it learned something, so that equality means something
    for name, value in expected.items():
        assert round(value, 4) == round(float(metrics[name]), 4), name


def test_the_exported_yaml_is_plain_and_short(tmp_path: Path) -> None:
    write_toy(tmp_path)
    dataset = SessionDataset(MMConfig("Pop", "toy", (), {"data_path": str(tmp_path)}))
    dataset.build()
    folder = export_benchmark(dataset, tmp_path / "out")
    config = yaml.safe_load((folder / "toy.yaml").read_text())
    assert config["benchmark_filename"] == ["train", "valid", "test"]
    lines = (folder / "toy.test.inter").read_text().splitlines()
    assert lines[0] == "session_id:token\titem_id_list:token_seq\titem_id:token"
    assert len(lines) == 1 + len(dataset.rows("test"))


def test_stock_recbole_cannot_mask_the_history(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_toy(tmp_path)
    for history, warned in (("keep", False), ("mask", True)):
        keys = {"data_path": str(tmp_path), "history": history}
        dataset = SessionDataset(MMConfig("Pop", "toy", (), keys))
        dataset.build()
        caplog.clear()
        export_benchmark(dataset, tmp_path / history)
        assert ("history: mask cannot be exported" in caplog.text) == warned


def test_tokens_with_blanks_cannot_be_exported(tmp_path: Path) -> None:
    write_toy(tmp_path, token="item {}")
    dataset = SessionDataset(MMConfig("Pop", "toy", (), {"data_path": str(tmp_path)}))
    dataset.build()
    with pytest.raises(DataError, match="holds white space"):
        export_benchmark(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_items_held_out_stand_in_no_training_row(tmp_path, caplog):
    write_toy(tmp_path)
    settings = {**SETTINGS, "data_path": str(tmp_path), "cold_items": 0.3}
    dataset = SessionDataset(MMConfig("SASRec", "toy", (), settings))
    dataset.build()
    held = set(dataset.tokens(np.flatnonzero(dataset.held_out)))
    assert len(held) == round(0.3 * (dataset.item_num - 1))
    folder = export_benchmark(dataset, tmp_path / "out")
    assert f"the {len(held)} items held out stand in no training row" in caplog.text

    def tokens(part: str) -> set[str]:
        rows = (folder / f"toy.{part}.inter").read_text().splitlines()[1:]
        return {token for row in rows for cell in row.split("\t")[1:] for token in cell.split(" ")}

    assert not tokens("train") & held
    # They stay candidates and targets.
    assert tokens("valid") & held and tokens("test") & held
    listed = (folder / "toy.item").read_text().splitlines()[1:]
    assert held <= set(listed)
