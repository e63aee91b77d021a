"""SRIM as a whole: its switches train, its state, its guards."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRESETS = ("sound", "paper", "official", "official_leaky")
SWITCHES = {
    "branches": ["both", "id", "content"],
    "content": ["features_tuned", "random"],
    "feature_norm": ["none", "unit"],
    "feature_pca": [2],
    "graph_diag": [True],
    "gcn": ["literal"],
    "n_layers": [0, 1, 4],
    "attention": ["lin", "none", "full"],
    "session_pool": ["mean"],
    "session_map": ["none"],
    "session_residual": [False],
    "main_loss": ["bce_softmax"],
    "align": ["paper"],
    "co": ["ratio"],
    "preset": ["paper", "official", "official_leaky"],
}
CASES = [(key, value) for key, values in SWITCHES.items() for value in values]


@pytest.mark.parametrize(("key", "value"), CASES)
def test_every_switch_trains_and_predicts(build, dataset, evaluate, key, value):
    model = build(**{key: value, "emb_dropout": 0.0, "att_dropout": 0.0})
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    totals = []
    for _ in range(20):
        loss = model.calculate_loss(dataset.inter_feat)
        assert len(loss) == len(model.loss_names)
        optimiser.zero_grad()
        sum(loss).backward()
        optimiser.step()
        totals.append(sum(loss).item())
    assert all(map(math.isfinite, totals))
    # Eq. 17 as printed is unbounded and jumps; all others must be learnt.
    assert value == "ratio" or totals[-1] < totals[0]
    scores = evaluate(model, dataset.held_out_rows())
    assert bool(scores[:, 1:].isfinite().all())
    if "id" in model.branches:
        assert not model.tables["id"].weight[0].any()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_all_losses_and_only_the_leaky_one_is_leaky(build, dataset, preset):
    model = build(preset)
    assert model.loss_names == ("main", "align", "joint", "co")
    assert model.leaky is (preset == "official_leaky")


def test_every_trained_parameter_gets_a_gradient(build, dataset):
    for changes in ({}, {"content": "features_tuned"}, {"gcn": "literal", "graph_diag": True}):
        model = build(**changes)
        sum(model.calculate_loss(dataset.inter_feat)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
            # A bias of the query moves softmax logits of one-item sessions by nothing, others do.
            assert float(parameter.grad.abs().max()) > 0, name
        assert not model.tables["id"].weight.grad[0].any()


@pytest.mark.parametrize("off", ["emb_dropout", "att_dropout"])
def test_each_dropout_acts_in_training_and_never_in_evaluation(build, dataset, parts, off):
    model = build(w_align=0, w_joint=0, w_co=0, **{off: 0.0})
    rows = dataset.inter_feat
    model.train()
    assert parts(model, rows, 0)["main"] != parts(model, rows, 1)["main"]
    model.eval()
    assert parts(model, rows, 0)["main"] == parts(model, rows, 1)["main"]


def test_new_weights_and_training_steps_reach_the_next_evaluation(build, dataset, evaluate):
    rows = dataset.held_out_rows()
    model, other = build(seed=1), build(seed=2)
    first, second = evaluate(model, rows), evaluate(other, rows)
    model.load_state_dict(other.state_dict())
    assert torch.equal(evaluate(model, rows), second) and not torch.equal(first, second)
    model.train()
    optimiser = torch.optim.Adam(model.parameters())
    sum(model.calculate_loss(dataset.inter_feat)).backward()
    optimiser.step()
    assert not torch.equal(evaluate(model, rows), second)


def test_the_state_holds_weights_only(build):
    assert set(build().state_dict()) == {
        "tables.id.weight",
        "tables.content.project.weight",
        "tables.content.missing",
        *(f"session_maps.{b}.{kind}" for b in ("id", "content") for kind in ("weight", "bias")),
        "encoders.id.attention.maps.query.weight",
        "encoders.id.attention.maps.query.bias",
        "encoders.content.attention.maps.query.weight",
        "encoders.content.attention.maps.query.bias",
        "terms.align.maps.id.weight",
        "terms.align.maps.content.weight",
    }


def test_equal_seeds_give_equal_steps(build, dataset):
    runs = []
    for _ in range(2):
        model = build()
        optimiser = torch.optim.Adam(model.parameters())
        for _ in range(3):
            optimiser.zero_grad()
            sum(model.calculate_loss(dataset.inter_feat)).backward()
            optimiser.step()
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_mixed_precision_reaches_the_softmax_alone(build, dataset, parts):
    model = build().eval()
    plain = parts(model, dataset.inter_feat)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = parts(model, dataset.inter_feat)
        scores = model.full_sort_predict(dataset.inter_feat)
    assert scores.dtype == torch.float32
    main, others = "main", [name for name in plain if name != "main"]
    assert not torch.equal(plain[main], mixed[main])
    torch.testing.assert_close(plain[main], mixed[main], rtol=0.01, atol=0.0)
    assert others and all(torch.equal(plain[name], mixed[name]) for name in others)


class NoLargeTensor(TorchDispatchMode):
    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, Tensor) and x.layout == torch.strided and x.numel() >= self.limit:
                raise AssertionError(f"{func} made a dense {tuple(x.shape)}")
        return result


@pytest.mark.parametrize("preset", ["sound", "paper", "official"])
def test_nothing_of_the_size_items_by_items_is_made(build, make_dataset, evaluate, preset):
    n_items = 2500
    rng = np.random.default_rng(0)
    train = [rng.integers(1, n_items, rng.integers(2, 7)).tolist() for _ in range(900)]
    data = make_dataset(train, n_items, features={"text": torch.randn(n_items, 8)})
    with NoLargeTensor(n_items * n_items):
        model = build(preset, data, embedding_size=8, co_samples=512, n_neighbors=10)
        rows = data.inter_feat[:64]
        sum(model.calculate_loss(rows)).backward()
        scores = evaluate(model, rows)
    assert scores.shape == (64, n_items)
    with pytest.raises(AssertionError), NoLargeTensor(n_items * n_items):
        model.graph.adjacency().counts.to_dense()
