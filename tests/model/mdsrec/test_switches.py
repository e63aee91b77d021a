"""Every switch of MDSRec does something, and each preset is the variant it is called after."""

from __future__ import annotations

import pytest
import torch
import yaml

from recbole_mm import yaml_files
from recbole_mm.model.mdsrec.model import MDSRec

N_ITEMS = 12
TRAIN = [[1, 2, 3], [3, 1, 4, 2], [2, 2, 4], [5, 3, 6, 1], [7, 5, 9, 1, 2], [8, 10], [10, 11, 9, 8]]
SMALL = {
    "hidden_size": 8, "inner_size": 12, "n_neighbors": 4, "n_centers": 3, "kappa_modal": 2.0,
    "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0,
}  # fmt: skip

# Changes of one switch, with what has to stand beside them.
SCORES = [
    {"encoder_sharing": "modal"},
    {"encoder_sharing": "all"},
    {"share_position": False},
    {"bidirectional": True},
    {"input_layernorm": False},
    {"alpha": [0.9, 0.1]},
    {"modalities": ["image"]},
    {"modalities": []},
    {"n_layers": 1},
    {"n_heads": 4},
    {"hidden_size": 16},
    {"inner_size": 20},
    {"hidden_act": "relu"},
    {"layer_norm_eps": 0.5},
    {"initializer_range": 0.2},
    {"use_cooc_id": False},
    {"use_cooc_modal": False},
    {"kappa_id": 1.0},
    {"kappa_modal": 0.0},
    {"cooc_norm_id": "row"},
    {"cooc_norm_id": "sym"},
    {"cooc_norm_modal": "none"},
    {"cooc_norm_modal": "sym"},
    {"cooc_weight": "count"},
    {"cooc_directed": True},
    {"cooc_repeat": "min"},
    {"cooc_window": 1},
    {"cooc_topk": 1},
    {"cooc_min_weight": 0.9},
    {"use_graph": False},
    {"n_neighbors": 2},
    {"n_neighbors": 0},
    {"knn_self": "extra"},
    {"knn_self": "exclude"},
    {"graph_agg": "mean", "use_ica": False},
    {"graph_agg": "sym"},
    {"graph_hops": 2},
    {"graph_source": "injected"},
    {"id_target": "injected"},
    {"feat_center": True},
    {"use_ica": False},
    {"n_centers": 2},
    {"center_pool": "sum", "center_norm": False},
    {"center_norm": False},
    {"center_block": "bare"},
    {"center_share": "qkv"},
    {"center_ffn": "printed"},
    {"center_keys": "output"},
    {"kmeans_input": "injected"},
    {"kmeans_normalize": True},
    {"relation_noise_eval": True},
    {"relation_scale": "sqrt_d"},
    {"relation_tau": 3.0},
    {"relation_hard": True},
    {"modal_score": False},
]
LOSSES = [
    {"relation_noise": "gumbel"},
    {"relation_noise": "none"},
    {"cooc_dropout": 0.5},
    {"hidden_dropout_prob": 0.3},
    {"attn_dropout_prob": 0.3},
    {"modal_loss": False},
    {"loss_fused": 1.0},
]
# Equal numbers by another way, or seen elsewhere (test_mdsrec_graphs.py, test_nearest.py, trainer).
ELSEWHERE = {"lazy_injection", "knn_backend", "graph_cache", "learning_rate", "weight_decay"}


@pytest.fixture
def build(settings, make_dataset):
    torch.manual_seed(11)
    features = {"text": 1 + torch.randn(N_ITEMS, 5), "image": 1 + torch.randn(N_ITEMS, 3)}
    data = make_dataset(TRAIN, N_ITEMS, features=features, missing=[6])

    def make(preset="sound", **changes):
        torch.manual_seed(3)
        config = settings("MDSRec", preset, **{**SMALL, **changes}) | {"seed": 1}
        return MDSRec(config, data)

    return make, data.inter_feat


def named(changes):
    return ",".join(f"{key}={value}" for key, value in changes.items())


def twins(make, changes):
    """Two models with the same weights, as far as these have the same names and shapes."""
    beside = {key: value for key, value in list(changes.items())[1:]}
    plain, other = make(**beside), make(**changes)
    weights = dict(plain.named_parameters())
    if "initializer_range" not in changes:
        with torch.no_grad():
            for weight in weights.values():
                weight.normal_(std=0.3)
            plain.item_embedding.weight[0] = 0
            for name, weight in other.named_parameters():
                if name in weights and weights[name].shape == weight.shape:
                    weight.copy_(weights[name])
    return plain, other


@pytest.mark.parametrize("changes", SCORES, ids=named)
def test_a_switch_changes_the_scores(build, changes):
    make, rows = build
    plain, other = twins(make, changes)
    made = []
    for model in (plain.eval(), other.eval()):
        with torch.no_grad():
            made.append(model.full_sort_predict(rows)[:, 1:])
    assert bool(made[1].isfinite().all())
    assert float((made[0] - made[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("changes", LOSSES, ids=named)
def test_a_switch_changes_the_loss(build, changes):
    make, rows = build
    plain, other = twins(make, changes)
    made = []
    for model in (plain.train(), other.train()):
        torch.manual_seed(4)
        made.append(float(torch.stack(model.calculate_loss(rows)).sum().detach()))
    assert abs(made[0] - made[1]) > 1e-4


@pytest.mark.parametrize("changes", [*SCORES, *LOSSES], ids=named)
def test_every_parameter_is_trained(build, changes):
    make, rows = build
    model = make(**changes).train()
    torch.stack(model.calculate_loss(rows)).sum().backward()
    dead = [n for n, w in model.named_parameters() if w.grad is None or not bool(w.grad.any())]
    assert not dead


def test_every_key_is_tried():
    keys = set(yaml_files.load_yaml(yaml_files.path("model", "MDSRec.yaml")))
    tried = {next(iter(changes)) for changes in (*SCORES, *LOSSES)}
    assert keys == tried | ELSEWHERE


PRESETS = {
    "no_dis": {"cooc_weight": "count"},
    "no_cre": {"use_cooc_modal": False},
    "no_mrgc": {"use_graph": False},
    "no_ica": {"use_ica": False},
    "text": {"modalities": ["text"]},
    "image": {"modalities": ["image"]},
    "id_only": {"modalities": []},
    "paper": {
        "hidden_size": 300, "cooc_norm_modal": "none", "center_pool": "sum", "center_norm": False,
        "center_block": "bare", "center_ffn": "printed", "train_batch_size": 512,
        "stopping_step": 10,
    },
    **{
        name: {"n_neighbors": near, "n_centers": k, "train_batch_size": 512, "stopping_step": 10}
        for name, near, k in (
            ("scientific", 5, 16), ("pantry", 10, 16), ("baby", 10, 32), ("sports", 20, 32),
            ("clothing", 15, 64),
        )
    },
}  # fmt: skip


def test_presets_are_what_they_are_called_after():
    folder = yaml_files.path("model", "MDSRec.yaml").parent
    found = {
        file.name.split(".")[1]: yaml.safe_load(file.read_text("utf-8"))
        for file in folder.glob("MDSRec.*.yaml")
    }
    assert found == PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_train(build, preset):
    make, rows = build
    model = make(preset).train()
    loss = torch.stack(model.calculate_loss(rows)).sum()
    loss.backward()
    assert bool(loss.isfinite())
    assert bool(model.item_embedding.weight.grad.isfinite().all())
