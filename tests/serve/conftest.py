"""Runs and packs of small models, trained once per test process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recbole_mm.run import run
from recbole_mm.serve.recommender import Recommender
from recbole_mm.testing.case import SMALL, write_toy

SIZES: dict[str, dict[str, Any]] = {
    "SRIM": {"embedding_size": 16, "co_samples": 64},
    "AlterRec": {"hidden_size": 16, "inner_size": 16, "n_layers": 1},
    "MDSRec": {
        "hidden_size": 16, "inner_size": 16, "n_layers": 1, "n_centers": 4, "n_neighbors": 4,
        "modalities": ["text", "image"],
    },
    "MMSBR": {
        "embedding_size": 16, "inner_size": 16, "n_heads": 2, "n_tokens": 2, "n_pivots": 2,
        "contrast_sample": 64, "use_text": True, "use_image": True, "category_field": "class",
    },
    "SASRec": {"hidden_size": 16, "inner_size": 16, "n_layers": 1},
    "SASRecF": {
        "hidden_size": 16, "inner_size": 16, "n_layers": 1, "selected_features": ["class"],
    },
    "FDSA": {
        "hidden_size": 16, "inner_size": 16, "n_layers": 1, "modalities": ["text", "image"],
        "selected_features": ["class"],
    },
    "LLM2BERT4Rec": {"hidden_size": 16, "inner_size": 16, "n_layers": 1},
    "DIMO": {"embedding_size": 16, "co_samples": 64, "modalities": ["text", "image"]},
    "CoHHN": {"embedding_size": 16, "category_field": "class"},
    "MISSRec": {"hidden_size": 16, "inner_size": 16},
    "UniSRec": {"hidden_size": 16, "inner_size": 16, "n_layers": 1, "n_experts": 2},
    "FPMC": {"embedding_size": 16},
    "Counting": {"modality": "text"},
    "ContentKNN": {"modality": "text"},
}  # fmt: skip
Runs = Callable[..., Path]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return what trains a model on a toy and gives its run folder."""
    data = tmp_path_factory.mktemp("data")
    write_toy(data, SMALL, ["text", "image"])
    made: dict[str, Path] = {}

    def train(model: str, **keys: Any) -> Path:
        name = "-".join([model, *map(str, keys.values())])
        if name not in made:
            folder = tmp_path_factory.mktemp("run") / name
            base = {
                "data_path": str(data), "run_folder": str(folder), "use_gpu": False, "epochs": 1,
                "train_batch_size": 64, "MAX_ITEM_LIST_LENGTH": 8, "floor": False,
                **({} if "preset" in keys else SIZES.get(model, {})), **keys,
            }  # fmt: skip
            before = Path.cwd()
            os.chdir(data)
            try:
                run(model, SMALL.name, (), base)
            finally:
                os.chdir(before)
            made[name] = folder
        return made[name]

    return train


@pytest.fixture(scope="session")
def packed(trained: Runs, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Return what trains a model and gives its pack."""
    made: dict[Path, Path] = {}

    def pack(model: str, **keys: Any) -> Path:
        folder = trained(model, **keys)
        if folder not in made:
            target = tmp_path_factory.mktemp("pack") / folder.name
            made[folder] = Recommender.load(folder).pack(target)
        return made[folder]

    return pack
