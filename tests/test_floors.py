"""Short runs on Cellphones stay where they were: above Pop, not below by more than seeds differ.

The bounds stand in ``tests/floors.json``: mean and standard deviation of the test metric over
seeds. A change that moves numbers on purpose records them anew: ``python tests/test_floors.py``.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.run import run

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / "floors.json"
METRIC, EPOCHS, SEEDS = "ndcg@20", 3, (1, 2, 3)
MODELS = ("SASRec", "SRIM", "NFRec", "AlterRec", "MMSBR", "MDSRec", "Counting")
# Standard deviations below the mean at which a run turns red. Seeds that by chance lie close
# together must not make a bound that other processors cannot meet.
BELOW, LEAST = 3.0, 0.003


def copy_data(folder: Path) -> Path:
    """Copy the committed files, so that texts are encoded by counting words, without a model."""
    source, place = ROOT / "atomic_data" / "Cellphones", folder / "Cellphones"
    place.mkdir(parents=True)
    for name in ("Cellphones.inter", "Cellphones.item", "Cellphones.image.itememb", "dataset.json"):
        shutil.copy(source / name, place / name)
    return folder


def metric(model: str, seed: int, data: Path, folder: Path) -> float:
    settings = {"data_path": str(data), "run_folder": str(folder), "epochs": EPOCHS, "seed": seed,
                "text_encoder": "tfidf", "floor": False, "part_metrics": "none",
                "use_gpu": False}  # fmt: skip
    return run(model, "Cellphones", (), settings).test[METRIC]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def pop(data: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    return metric("Pop", 1, data, tmp_path_factory.mktemp("pop"))


@pytest.mark.parametrize("model", MODELS)
def test_a_short_run_stays_above_its_floor(
    model: str, data: Path, pop: float, tmp_path: Path
) -> None:
    recorded = json.loads(FILE.read_text("utf-8"))[model]
    found = metric(model, SEEDS[0], data, tmp_path)
    assert found >= recorded["mean"] - BELOW * max(recorded["sd"], LEAST)
    assert found > pop


def record() -> None:
    """Write the bounds anew."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        data = copy_data(Path(folder, "data"))
        for model in MODELS:
            values = [metric(model, seed, data, Path(folder, model, str(seed))) for seed in SEEDS]
            found[model] = {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
            print(model, found[model], file=sys.stderr)
    FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    record()
