"""The toy runs of the trainer's tests."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import recbole_mm
from recbole_mm.files import BEST, LAST
from recbole_mm.trainer.checkpoint import load_checkpoint

SCRIPT = Path(__file__).with_name("toy_run.py")
ROOT = Path(recbole_mm.__file__).parents[1]


def _load():
    spec = importlib.util.spec_from_file_location("toy_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread():
    """Compute as the second processes do: the last bit of a sum depends on the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy():
    """The module of tests/trainer/toy_run.py."""
    return _load()


@pytest.fixture(scope="session")
def toy_data(toy, tmp_path_factory):
    """A folder that holds the data set ``toy``."""
    folder = tmp_path_factory.mktemp("data")
    toy.write_data(folder)
    return folder


@pytest.fixture
def build(toy, toy_data, tmp_path):
    """Build a trainer and its loaders: ``build("SASRec", epochs=3)``."""

    def make(model="SASRec", run_folder=None, **overrides):
        return toy.build(model, toy_data, run_folder or tmp_path / "run", **overrides)

    return make


@pytest.fixture(scope="session")
def start():
    """Start a script of this folder in a process of its own: ``start(SCRIPT, "SASRec", 3)``."""

    def popen(script, *arguments):
        return subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )

    return popen


@pytest.fixture(scope="session")
def finish():
    """Wait for such a process, which has to end well."""

    def wait(process):
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output

    return wait


def _differences(one, two, path=""):
    """Name every place where two nested states differ in a bit."""
    if isinstance(one, dict) and isinstance(two, dict) and list(one) == list(two):
        return [d for key in one for d in _differences(one[key], two[key], f"{path}/{key}")]
    if isinstance(one, (list, tuple)) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return [d for place, (a, b) in pairs for d in _differences(a, b, f"{path}/{place}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, two) else [path]
    if isinstance(one, np.ndarray):
        return [] if np.array_equal(one, two) else [path]
    return [] if one == two else [path]


@pytest.fixture(scope="session")
def differences():
    """Name every place where two nested states differ in a bit."""
    return _differences


@pytest.fixture(scope="session")
def states():
    """Return the two checkpoints of a run folder without the time they took."""

    def load(folder):
        found = [load_checkpoint(folder / name) for name in (BEST, LAST)]
        for state in found:
            del state["seconds"]
        return found

    return load
