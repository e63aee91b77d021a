"""Items that only have a feature row can be ranked, for every model alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_mm.config import MMConfig
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.itememb import write_itememb
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.errors import DataError
from recbole_mm.run import prepare, run

ITEMS = [f"i{k:02d}" for k in range(12)]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Write 60 sessions of 12 items, and features of these and of three more items."""
    folder = tmp_path / "shop"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for session in range(60):
        for place, item in enumerate(rng.choice(ITEMS, 4)):
            lines.append(f"s{session:02d}\t{item}\t{1.7e9 + 1000 * session + 7 * place}")
    (folder / "shop.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for modality, ids in (("text", [*ITEMS, "a_new", "z_new"]), ("image", ["i03", "m_new"])):
        vectors = rng.normal(size=(len(ids), 6))
        write_itememb(folder / f"shop.{modality}.itememb", modality, ids, vectors)
    (folder / "shop.item").write_text(
        "item_id:token\tclass:token\ni00\tx\na_new\ty\nnowhere\tz\n", encoding="utf-8"
    )
    return tmp_path


def config(shop: Path, model: str = "SASRec", **keys: Any) -> MMConfig:
    return MMConfig(model, "shop", (), {"data_path": str(shop), **keys})


def dataset(shop: Path, **keys: Any) -> SessionDataset:
    built = SessionDataset(config(shop, **keys))
    built.build()
    return built


def test_the_vocabulary_grows_by_all_feature_files_and_the_rows_stay(shop: Path) -> None:
    plain, cold = dataset(shop), dataset(shop, candidates="features")
    assert plain.item_num == 13
    tokens = list(cold.field2id_token["item_id"])
    assert tokens[1:] == ["a_new", *ITEMS, "m_new", "z_new"]
    assert cold.counts["items_without_interactions"] == 3
    assert cold.counts["items"] == 15
    assert cold.counts["items_unseen_in_training"] == 3
    for part in ("train", "valid", "test"):
        assert plain.tokens(plain.rows(part).target) == cold.tokens(cold.rows(part).target)
    assert cold.train_counts[[1, 14, 15]].tolist() == [0, 0, 0]
    assert plain.fingerprint() != cold.fingerprint()


@pytest.mark.parametrize(("candidates", "left_out"), [("interactions", 2), ("features", 1)])
def test_item_columns_of_such_items_are_kept(shop: Path, candidates: str, left_out: int) -> None:
    built = SessionDataset(
        config(shop, "SASRecF", selected_features=["class"], candidates=candidates)
    )
    built.build()
    assert built.counts["items_only_in_item_file"] == left_out


def test_every_model_ranks_the_same(shop: Path) -> None:
    settings = {"candidates": "features", "epochs": 1, "train_batch_size": 64, "topk": [15],
                "valid_metric": "NDCG@15"}  # fmt: skip
    ours = prepare(config(shop, "SRIM", **settings))
    stock = prepare(config(shop, "SASRec", **settings))
    assert ours.dataset.fingerprint() == stock.dataset.fingerprint()
    features = ours.dataset.item_features
    assert features is not None
    tokens = list(ours.dataset.field2id_token["item_id"])
    assert features.mask("text")[tokens.index("z_new")]
    assert not features.mask("text")[tokens.index("m_new")]


@pytest.mark.parametrize("model", ["SASRec", "SASRecF", "Pop", "SRIM"])
def test_runs_score_all_of_them(model: str, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    settings = {"data_path": str(shop), "candidates": "features", "epochs": 1, "topk": [1, 15]}
    extra = {"selected_features": ["class"]} if model == "SASRecF" else {}
    result = run(model, "shop", (), {**settings, "valid_metric": "NDCG@15", **extra})
    record = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
    assert record["test"]["hit@15"] == 1.0
    assert record["test"]["hit@1"] < 1.0
    assert record["counts"]["items"] == 15
    assert max(record["ranks"]["rank"]) <= 15


def test_the_feature_folder_hides_the_data_folder(shop: Path, tmp_path: Path) -> None:
    other = tmp_path / "features"
    write_itememb(other / "shop.text.itememb", "text", ["only"], np.ones((1, 2)))
    # Files of other data sets, and of nobody.
    write_itememb(other / "shop.v2.text.itememb", "text", ["foreign"], np.ones((1, 2)))
    (other / "shop.text.itememb.part").touch()
    found = FeatureFiles("shop", [other, shop / "shop"]).paths()
    assert found == {
        "text": other / "shop.text.itememb",
        "image": shop / "shop" / "shop.image.itememb",
    }
    cold = dataset(shop, candidates="features", feature_path=str(other))
    assert set(cold.field2id_token["item_id"]) - set(ITEMS) == {"[PAD]", "only", "m_new"}


def test_without_feature_files_the_command_is_named(shop: Path) -> None:
    for path in (shop / "shop").glob("*.itememb*"):
        path.unlink()
    assert dataset(shop).item_num == 13
    with pytest.raises(DataError, match="recbole-mm encode --dataset=shop"):
        dataset(shop, candidates="features")
