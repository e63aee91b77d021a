"""MDSRec on files: training sessions only, the modalities that are there, what is kept on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_mm import run
from recbole_mm.config import MMConfig
from recbole_mm.errors import FeatureError
from recbole_mm.model.mdsrec import content
from recbole_mm.testing.case import Toy, write_toy
from recbole_mm.trainer.checkpoint import load_checkpoint

SMALL = {
    "hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_centers": 3, "n_neighbors": 4,
    "use_gpu": False, "encode_on_first_use": False,
}  # fmt: skip
TOY = Toy("toy", n_items=40, n_sessions=120)


def prepare(folder: Path, dataset: str = "toy", **keys: object) -> run.Prepared:
    keys = {**SMALL, "data_path": str(folder), "run_folder": str(folder / "run"), **keys}
    return run.prepare(MMConfig("MDSRec", dataset, (), keys))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_toy(tmp_path, TOY, ["text", "image"])
    return tmp_path


def write_shop(folder: Path, sessions: list[list[str]]) -> Path:
    rows = [
        f"s{k:02d}\t{item}\t{1_600_000_000 + 1000 * k + place}"
        for k, one in enumerate(sessions)
        for place, item in enumerate(one)
    ]
    (folder / "shop").mkdir(parents=True)
    head = "session_id:token\titem_id:token\ttimestamp:float\n"
    (folder / "shop" / "shop.inter").write_text(head + "\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("train_prefixes", [True, False])
def test_pairs_come_from_training_sessions_alone(tmp_path, train_prefixes):
    # Two shoppers whose last two items are held out, and others that share no item with them.
    sessions = [list("abcdb"), list("cadbac"), *([list("vwxyz")] * 3)]
    folder = write_shop(tmp_path, sessions)
    few = {"topk": [5], "valid_metric": "NDCG@5"}
    made = prepare(folder, "shop", split_by="leave_one_out", train_prefixes=train_prefixes, **few)
    ids = made.dataset.field2token_id["item_id"]
    injection = made.model.injection
    parts = (injection.value.numpy(), injection.col.numpy(), injection.crow.numpy())
    table = sp.csr_matrix(parts).toarray()
    expected = {"ab": 1.5, "ac": 1.5, "ad": 1, "bc": 4 / 3, "bd": 1, "cd": 0.5}
    for (left, right), weight in expected.items():
        assert float(table[ids[left], ids[right]]) == pytest.approx(weight)
        assert float(table[ids[right], ids[left]]) == pytest.approx(weight)
    assert float(table[ids["a"]].sum()) == pytest.approx(4)
    assert made.model.kinds == ()


def test_modalities_that_exist_are_used_and_named(folder, caplog):
    caplog.set_level("INFO")
    assert prepare(folder).model.kinds == ("text", "image")
    assert "MDSRec on toy: modalities used: text, image" in caplog.text
    (folder / "toy" / "toy.image.itememb").unlink()
    made = prepare(folder)
    assert made.model.kinds == ("text",) and made.model.alpha == {"id": 1.0, "text": 1.0}
    assert "modalities used: text (no vectors of image)" in caplog.text


def test_named_modalities_are_demanded(folder):
    assert prepare(folder, preset="image").model.kinds == ("image",)
    (folder / "toy" / "toy.image.itememb").unlink()
    with pytest.raises(FeatureError, match=r"toy.image.itememb: no such file"):
        prepare(folder, modalities=["text", "image"])
    # Text alone never asks for images.
    assert prepare(folder, preset="text").model.kinds == ("text",)


def test_neighbours_and_groups_are_computed_once(folder, monkeypatch):
    first = prepare(folder).model
    kept = {path.name.split(".")[2] for path in (folder / "toy").glob("toy.*.*.*.safetensors")}
    assert kept == {"neighbours", "groups"}

    def never(*args: object, **keys: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(content, "nearest_items", never)
    second = prepare(folder, n_neighbors=2).model
    for kind in ("text", "image"):
        assert torch.equal(second.graphs[kind].neighbours, first.graphs[kind].neighbours[:, :2])
    # Other sessions, other neighbours: what was kept does not serve.
    with pytest.raises(AssertionError, match="computed again"):
        prepare(folder, split_ratio=[5, 2, 3])


def test_what_was_kept_gives_the_same_model(folder):
    fresh = prepare(folder, graph_cache=False).model
    prepare(folder)
    again = prepare(folder).model
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_items_without_vectors_can_be_given_the_mean(folder):
    lacking = prepare(folder, use_cooc_modal=False)
    filled = prepare(folder, use_cooc_modal=False, missing_features="mean")
    bare = np.flatnonzero(~lacking.dataset.item_features.mask("text").numpy())[1:]
    assert len(bare)
    near = lacking.model.graphs["text"].neighbours
    assert (near[bare, 0] == torch.from_numpy(bare)).all() and not near[bare, 1:].any()
    assert (filled.model.graphs["text"].neighbours[bare] > 0).all()
    # In groups only items with a vector of their own take part.
    for made in (lacking, filled):
        assert (made.model.pools["text"].labels[bare] == -1).all()


def test_an_empty_list_is_the_id_alone(folder):
    made = prepare(folder, preset="id_only")
    assert made.model.kinds == () and made.dataset.item_features is None
    assert made.model.loss_names == ("id",)


def test_a_resumed_run_is_the_same_to_the_bit(folder, tmp_path):
    def train(name: str, epochs: int, resume: bool = False) -> dict[str, torch.Tensor]:
        place = tmp_path / name
        keys = {**SMALL, "data_path": str(folder), "run_folder": str(place)}
        keys |= {"part_metrics": "none", "epochs": epochs}
        if resume:
            run.run("", "", (), {"epochs": epochs}, resume=place)
        else:
            run.run("MDSRec", "toy", (), keys)
        return load_checkpoint(place / "last.safetensors")["model"]

    whole = train("whole", 2)
    train("parts", 1)
    parts = train("parts", 2, resume=True)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
