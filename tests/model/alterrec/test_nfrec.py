"""NFRec: numbers by hand, an independent NumPy version, the exact split of the score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_mm.errors import FeatureError
from recbole_mm.model.alterrec.nfrec import NFRec

N_ITEMS, WIDTH, D_TEXT = 13, 6, 5
SMALL = {"hidden_size": WIDTH, "inner_size": 8, "n_layers": 1}


@pytest.fixture
def dataset(make_dataset):
    generator = torch.Generator().manual_seed(1)
    features = {"text": torch.randn(N_ITEMS, D_TEXT, generator=generator)}
    lists = [[1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 12, 1, 2], [3, 3, 9, 12]]
    return make_dataset(lists, N_ITEMS, features=features, missing=[7])


@pytest.fixture
def build(settings, dataset):
    def make(preset="sound", seed=3, data=None, **changes):
        torch.manual_seed(seed)
        return NFRec(settings("NFRec", preset, **{**SMALL, **changes}), data or dataset)

    return make


def numpy_items(model):
    """Item vectors of each component as written down in the module's equations."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}

    def norm(rows, name):
        mean, var = rows.mean(1, keepdims=True), rows.var(1, keepdims=True)
        scale, shift = weights[f"items.{name}.norm.weight"], weights[f"items.{name}.norm.bias"]
        return (rows - mean) / np.sqrt(var + 1e-5) * scale + shift

    found = {}
    if "id" in model.components:
        found["id"] = norm(weights["items.id.table.weight"], "id")
    if "text" in model.components:
        matrix, bias = weights["items.text.project.weight"], weights["items.text.project.bias"]
        features = model.items["text"].features.numpy()
        found["text"] = norm(np.maximum(features @ matrix.T + bias, 0), "text")
    for rows in found.values():
        rows[0] = 0
    return found


def numpy_scores(items, batch):
    """``(B, N - 1)``: the mean of the session's vectors times every item."""
    sessions = zip(batch["item_id_list"].numpy(), batch["item_length"].numpy(), strict=True)
    query = np.stack([items[row[:n]].mean(axis=0) for row, n in sessions])
    return query @ items[1:].T


def hand_model(build):
    """Item vectors e1 = (1, 0), e2 = (0, 1), e3 = (1, 1), the others zero; not normalised."""
    model = build("id", hidden_size=2)
    model.items["id"].norm = torch.nn.Identity()
    with torch.no_grad():
        model.items["id"].table.weight.zero_()
        model.items["id"].table.weight[1:4] = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    return model


def hand_row(target=1):
    return Interaction(
        {
            "session_id": torch.tensor([1]),
            "item_id_list": torch.tensor([[1, 3, 0, 0]]),
            "item_length": torch.tensor([2]),
            "item_id": torch.tensor([target]),
        }
    )


def test_scores_and_loss_by_hand(build):
    model = hand_model(build)
    scores = model.full_sort_predict(hand_row())
    assert scores[0, 1:4].tolist() == [1.0, 0.5, 1.5] and scores[0, 0] == -math.inf
    total = math.log(math.exp(1.0) + math.exp(0.5) + math.exp(1.5) + 9)
    assert model.calculate_loss(hand_row(3)).item() == pytest.approx(total - 1.5, abs=1e-6)
    assert model.predict(hand_row(3)).item() == 1.5


def test_items_are_normalised_by_hand(build):
    model = build("id", hidden_size=4)
    model.items["id"].norm.reset_parameters()
    with torch.no_grad():
        model.items["id"].table.weight[5] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    vector = model.item_tables()["candidates"][5].tolist()
    assert vector == pytest.approx([-1.3416355, -0.4472118, 0.4472118, 1.3416355], abs=1e-6)


@pytest.mark.parametrize("preset", ["sound", "concat", "id", "text"])
def test_equal_to_numpy(build, dataset, preset):
    model, batch = build(preset).eval(), dataset.inter_feat
    parts = list(numpy_items(model).values())
    items = np.concatenate(parts, axis=1) if preset == "concat" else sum(parts)
    expected = numpy_scores(items, batch)
    found = model.full_sort_predict(batch)[:, 1:].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    target = batch["item_id"].numpy() - 1
    losses = np.log(np.exp(expected).sum(axis=1)) - expected[np.arange(len(target)), target]
    assert model.calculate_loss(batch).item() == pytest.approx(losses.mean(), abs=1e-5)


@pytest.mark.parametrize("encoder", ["mean", "transformer"])
def test_joined_scores_split_exactly(build, dataset, encoder):
    model = build("concat", session_encoder=encoder).eval()
    parts = model.score_parts(dataset.inter_feat)
    assert list(parts) == ["id", "text"]
    whole = model.full_sort_predict(dataset.inter_feat)
    assert all(bool((part[:, 0] == -math.inf).all()) for part in parts.values())
    torch.testing.assert_close((parts["id"] + parts["text"])[:, 1:], whole[:, 1:])
    items = numpy_items(model)
    if encoder == "mean":
        for name, part in parts.items():
            expected = numpy_scores(items[name], dataset.inter_feat)
            np.testing.assert_allclose(part[:, 1:].numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["id", "text"])
def test_a_part_is_the_single_component_with_the_same_weights(build, dataset, name):
    model = build("concat").eval()
    twin = build(name, seed=99).eval()
    weights = {k: v for k, v in model.state_dict().items() if f"items.{name}." in k}
    twin.load_state_dict(weights)
    part = model.score_parts(dataset.inter_feat)[name]
    torch.testing.assert_close(part, twin.full_sort_predict(dataset.inter_feat))


def test_parts_do_not_read_each_other(build, dataset):
    model = build("concat").eval()
    before = model.score_parts(dataset.inter_feat)
    with torch.no_grad():
        model.items["text"].project.weight.add_(0.5)
    model.eval()  # drops the cached tables
    after = model.score_parts(dataset.inter_feat)
    assert torch.equal(before["id"], after["id"])
    assert not torch.allclose(before["text"][:, 1:], after["text"][:, 1:])


@pytest.mark.parametrize("preset", ["sound", "id", "text"])
def test_what_cannot_be_split_has_no_parts(build, dataset, preset):
    assert build(preset).eval().score_parts(dataset.inter_feat) == {}


def test_only_models_with_text_need_features(settings, make_dataset):
    bare = make_dataset([[1, 2, 3]], N_ITEMS)
    NFRec(settings("NFRec", "id", **SMALL), bare)
    with pytest.raises(FeatureError, match="needs text features"):
        NFRec(settings("NFRec", **SMALL), bare)


def test_features_stay_as_they_are_and_out_of_checkpoints(build, dataset):
    model = build("concat")
    table = dataset.item_features.tables["text"]
    assert torch.equal(model.items["text"].features, table)
    assert not any("features" in name for name in model.state_dict())
    assert not model.items["text"].features.requires_grad


@pytest.mark.parametrize("preset", ["sound", "concat", "id", "text"])
def test_training_starts_near_the_logarithm_of_the_number_of_items(settings, make_dataset, preset):
    generator = torch.Generator().manual_seed(2)
    features = {"text": torch.randn(501, 16, generator=generator) / 4}
    data = make_dataset([list(range(a, a + 5)) for a in range(1, 496, 5)], 501, features=features)
    torch.manual_seed(0)
    model = NFRec(settings("NFRec", preset), data).eval()
    loss = model.calculate_loss(data.inter_feat).item()
    assert loss == pytest.approx(math.log(500), abs=0.2)
    # LayerNorm's usual scale of 1 would start far above.
    for items in model.items.values():
        items.norm.reset_parameters()
    assert model.calculate_loss(data.inter_feat).item() > math.log(500) + 3


def test_a_session_does_not_depend_on_padding_or_the_future(build, dataset):
    model = build("concat", session_encoder="transformer").eval()
    batch = dataset.inter_feat
    longer = torch.cat([batch["item_id_list"], torch.zeros(len(batch), 2, dtype=torch.long)], 1)
    wide = Interaction({**batch.interaction, "item_id_list": longer})
    whole, one = model.full_sort_predict(batch), model.full_sort_predict(wide)
    torch.testing.assert_close(whole, one)


@pytest.mark.parametrize(
    "change",
    [
        {"fusion": "concat"}, {"components": "id"}, {"components": "text"}, {"hidden_size": 8},
        {"n_layers": 2}, {"n_heads": 3}, {"inner_size": 9}, {"hidden_dropout_prob": 0.4},
        {"attn_dropout_prob": 0.4}, {"session_encoder": "mean"},
    ],
    ids=lambda change: "=".join(map(str, *change.items())),
)  # fmt: skip
def test_every_key_has_an_effect(build, dataset, change):
    losses = []
    for keys in ({}, change):
        model = build(**{"session_encoder": "transformer", **keys})
        torch.manual_seed(4)
        losses.append(model.calculate_loss(dataset.inter_feat).item())
    assert losses[0] != losses[1]
