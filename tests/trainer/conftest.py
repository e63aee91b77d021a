"""The toy runs of the trainer's tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("toy_run.py")


def _load():
    spec = importlib.util.spec_from_file_location("toy_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
