"""A small MDSRec on a small data set."""

from __future__ import annotations

import pytest
import torch

from recbole_mm.model.mdsrec.model import MDSRec

N_ITEMS = 9
TRAIN = [[1, 2, 3], [3, 1, 4, 2], [2, 2, 4], [5, 3, 6, 1], [7, 5]]
TEST = [[3, 4, 8], [6, 2]]
SMALL = {"hidden_size": 8, "inner_size": 12, "n_neighbors": 3, "n_centers": 3}


@pytest.fixture
def dataset(make_dataset):
    torch.manual_seed(11)
    # Item 8 occurs in no training session; item 6 has no features.
    features = {"text": torch.randn(N_ITEMS, 5), "image": torch.randn(N_ITEMS, 3)}
    return make_dataset(TRAIN, N_ITEMS, TEST, features, missing=[6])


@pytest.fixture
def small(settings):
    """Settings of a small model, and the seed of the run."""

    def make(preset="sound", **changes):
        return settings("MDSRec", preset, **{**SMALL, **changes}) | {"seed": 1}

    return make


@pytest.fixture
def build(small, dataset):
    def make(preset="sound", data=None, seed=3, **changes):
        torch.manual_seed(seed)
        return MDSRec(small(preset, **changes), data or dataset)

    return make
