"""LLM2SASRec and LLM2BERT4Rec: what the item vectors start as; all else is RecBole's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.utils import init_seed

from recbole_mm.config import MMConfig
from recbole_mm.model.peers.llm2 import start_from
from recbole_mm.model.spaces import Vectors
from recbole_mm.run.prepared import Prepared, prepare
from recbole_mm.testing.case import SMALL, UNDESCRIBED, write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_toy(root, SMALL, ["text", "image"])
    return root


def build(toy: Path, model: str, **keys: Any) -> Prepared:
    base = {"data_path": str(toy), "use_gpu": False, "run_folder": str(toy / "run"), "n_layers": 1}
    return prepare(MMConfig(model, SMALL.name, (), {**base, "hidden_size": 8, **keys}))


def test_start_from_by_hand() -> None:
    weight = torch.full((5, 3), 9.0)
    table = torch.tensor([[0.0, 0.0], [1.0, -2.0], [0.0, 0.0], [3.0, 0.5]])
    start_from(weight, Vectors(table, torch.tensor([False, True, False, True])), 0.1)
    expected = [[9, 9, 9], [0.1, -0.2, 9], [9, 9, 9], [0.3, 0.05, 9], [9, 9, 9]]
    torch.testing.assert_close(weight, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("model", ["LLM2SASRec", "LLM2BERT4Rec"])
@pytest.mark.parametrize("modality", ["text", "image"])
def test_item_vectors_start_as_principal_components(toy: Path, model: str, modality: str) -> None:
    made = build(toy, model, modality=modality)
    dataset = made.train.dataset
    table = dataset.item_features.table(modality).double().numpy()
    present = dataset.item_features.mask(modality).numpy()
    seen = present & (dataset.train_counts > 0)
    centred = table - table[seen].mean(axis=0)
    basis = np.linalg.svd(centred[seen])[2][:8].T
    expected = centred @ basis
    expected *= 0.02 / np.sqrt(np.square(expected[seen]).mean())
    found = made.model.item_embedding.weight.detach().numpy()[: len(table)]
    # A component's sign is free.
    signs = np.sign((found[present] * expected[present]).sum(axis=0))
    np.testing.assert_allclose(found[present], (expected * signs)[present], rtol=1e-3, atol=1e-6)
    assert np.square(found[seen]).mean() == pytest.approx(0.02**2, rel=1e-4)


@pytest.mark.parametrize("model", ["LLM2SASRec", "LLM2BERT4Rec"])
def test_all_else_is_the_stock_model(toy: Path, model: str) -> None:
    made = build(toy, model)
    stock_class = next(c for c in type(made.model).__mro__ if c.__module__.startswith("recbole."))
    assert f"LLM2{stock_class.__name__}" == model
    init_seed(made.config["seed"], True)
    stock = stock_class(made.config, made.train.dataset)
    ours, theirs = made.model.state_dict(), stock.state_dict()
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == [
        "item_embedding.weight"
    ]
    changed = (ours["item_embedding.weight"] != theirs["item_embedding.weight"]).any(dim=1)
    bare = [0, *range(1, 1 + SMALL.n_items, UNDESCRIBED), *range(1 + SMALL.n_items, len(changed))]
    assert (~changed).nonzero().flatten().tolist() == bare


def test_components_do_not_read_validation_and_test_sessions(toy: Path) -> None:
    """As if a third of the items stood in no training session: their texts must not count."""
    made = build(toy, "LLM2SASRec")
    dataset = made.train.dataset
    assert list(dataset.fits) == ["start from text"]
    dataset.train_counts[::3] = 0
    dataset.fits.clear()
    type(made.model)(made.config, dataset)
    kept, features = dataset.fits["start from text"], dataset.item_features
    seen = torch.from_numpy(dataset.train_counts > 0) & features.mask("text")
    assert 1 < int(seen.sum()) < int(features.mask("text").sum())
    np.testing.assert_allclose(kept["mean"], features.table("text")[seen].mean(dim=0), atol=1e-6)
