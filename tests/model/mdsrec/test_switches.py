"""Every switch of MDSRec does something, and every preset trains."""

from __future__ import annotations

import pytest
import torch

from recbole_mm import yaml_files
from recbole_mm.model.mdsrec.model import MDSRec

N_ITEMS = 12
TRAIN = [[1, 2, 3], [3, 1, 4, 2], [2, 2, 4], [5, 3, 6, 1], [7, 5, 9, 1, 2], [8, 10], [10, 11, 9, 8]]
SURE = {
    "n_neighbors": 4, "kappa_modal": 2.0, "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0,
}  # fmt: skip

# Changes of one switch, with what has to stand beside them.
SCORES = [
    {"modalities": ["image"]},
    {"modalities": []},
    {"hidden_size": 16},
    {"inner_size": 20},
    {"n_layers": 1},
    {"n_heads": 4},
    {"alpha": [0.9, 0.1]},
    {"use_cooc_id": False},
    {"use_cooc_modal": False},
    {"kappa_id": 1.0},
    {"kappa_modal": 0.0},
    {"cooc_norm_id": "row"},
    {"cooc_norm_id": "sym"},
    {"cooc_norm_modal": "none"},
    {"cooc_norm_modal": "sym"},
    {"cooc_weight": "count"},
    {"cooc_window": 1},
    {"cooc_topk": 1},
    {"use_graph": False},
    {"n_neighbors": 2},
    {"n_neighbors": 0},
    {"use_ica": False},
    {"n_centers": 2},
    {"center_pool": "sum", "center_norm": False},
    {"center_norm": False},
    {"center_block": "bare"},
    {"center_ffn": "printed"},
    {"relation_tau": 3.0},
    {"score": "cosine"},
]
LOSSES = [
    {"hidden_dropout_prob": 0.3},
    {"attn_dropout_prob": 0.3},
    {"train_own_items": "mask"},
]
# Equal numbers by another way (test_nearest.py, test_files.py), a first weight (test_layers.py),
# and keys of the trainer.
ELSEWHERE = {"knn_backend", "graph_cache", "temperature", "learning_rate", "weight_decay"}


@pytest.fixture
def make(small, make_dataset):
    torch.manual_seed(11)
    features = {"text": 1 + torch.randn(N_ITEMS, 5), "image": 1 + torch.randn(N_ITEMS, 3)}
    data = make_dataset(TRAIN, N_ITEMS, features=features, missing=[6])

    def model(preset="sound", **changes):
        torch.manual_seed(3)
        made = MDSRec(small(preset, **{**SURE, **changes}), data)
        made.rows = data.inter_feat
        return made

    return model


def named(changes):
    return ",".join(f"{key}={value}" for key, value in changes.items())


def twins(make, changes):
    """Two models with the same weights, as far as these have the same names and shapes."""
    beside = {key: value for key, value in list(changes.items())[1:]}
    plain, other = make(**beside), make(**changes)
    weights = dict(plain.named_parameters())
    with torch.no_grad():
        for weight in weights.values():
            weight.normal_(std=0.3)
        plain.item_embedding.weight[0] = 0
        for name, weight in other.named_parameters():
            if name in weights and weights[name].shape == weight.shape:
                weight.copy_(weights[name])
    return plain, other


@pytest.mark.parametrize("changes", SCORES, ids=named)
def test_a_switch_changes_the_scores(make, changes):
    made = []
    for model in twins(make, changes):
        with torch.no_grad():
            made.append(model.eval().full_sort_predict(model.rows)[:, 1:])
    assert bool(made[1].isfinite().all())
    assert float((made[0] - made[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("changes", LOSSES, ids=named)
def test_a_switch_changes_the_loss(make, changes):
    made = []
    for model in twins(make, changes):
        torch.manual_seed(4)
        made.append(float(torch.stack(model.train().calculate_loss(model.rows)).sum().detach()))
    assert abs(made[0] - made[1]) > 1e-4


def test_every_key_is_tried():
    keys = set(yaml_files.load_yaml(yaml_files.path("model", "MDSRec.yaml")))
    tried = {next(iter(changes)) for changes in (*SCORES, *LOSSES)}
    assert keys == tried | ELSEWHERE


def presets():
    files = yaml_files.path("model", "MDSRec.yaml").parent.glob("MDSRec.*.yaml")
    return sorted(file.name.split(".")[1] for file in files)


CASES = [*((preset, {}) for preset in presets()), *(("sound", changes) for changes in SCORES)]


@pytest.mark.parametrize(("preset", "changes"), CASES, ids=str)
def test_every_parameter_is_trained(make, preset, changes):
    model = make(preset, **changes).train()
    loss = torch.stack(model.calculate_loss(model.rows)).sum()
    loss.backward()
    assert bool(loss.isfinite())
    for name, weight in model.named_parameters():
        assert weight.grad is not None and bool(weight.grad.isfinite().all()), name
        assert bool(weight.grad.any()), name
