"""A few sessions for SRIM, its models on them, and what tests ask of a model."""

from __future__ import annotations

import pytest
import torch

from recbole_mm import registry

N_ITEMS = 9
TRAIN = [[1, 2, 3], [1, 2], [2, 2, 4], [5, 3, 6, 1], [7, 5]]
TEST = [[3, 4, 8], [6, 2]]
SMALL = {"embedding_size": 4, "n_heads": 2, "n_layers": 2, "co_samples": 5, "n_neighbors": 3}


@pytest.fixture
def dataset(make_dataset):
    torch.manual_seed(11)
    # Item 8 occurs in no training session; item 6 has no features.
    features = {"text": torch.randn(N_ITEMS, 5), "image": torch.randn(N_ITEMS, 3)}
    return make_dataset(TRAIN, N_ITEMS, TEST, features, missing=[6])


@pytest.fixture
def build(settings, dataset):
    """Return a maker of the model of a preset."""

    def make(preset="sound", data=None, seed=3, **changes):
        torch.manual_seed(seed)
        model_class = registry.resolve("SRIM").load(preset)
        return model_class(settings("SRIM", preset, **{**SMALL, **changes}), data or dataset)

    return make


@pytest.fixture
def parts():
    """Return what gives the parts of a model's loss by name."""

    def losses(model, rows, seed=0):
        torch.manual_seed(seed)
        return dict(zip(model.loss_names, model.calculate_loss(rows), strict=True))

    return losses


@pytest.fixture
def encoded():
    """Return what gives a model's item tables and session vectors, without dropout."""

    def vectors(model, rows):
        model.eval()
        tables = model.item_tables()
        return tables, model._encoded(*model.inputs(rows), tables)

    return vectors
