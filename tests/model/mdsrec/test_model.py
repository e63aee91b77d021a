"""MDSRec as a whole: hand numbers, RecBole's SASRec, an independent derivation, its guards."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from recbole.model.sequential_recommender.sasrec import SASRec
from scipy.special import erf

from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.mdsrec import graphs, streams
from recbole_mm.model.mdsrec import model as mdsrec
from recbole_mm.model.mdsrec.model import MDSRec
from recbole_mm.testing.training import LargestTensor

N_ITEMS = 9
SURE = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}


@pytest.fixture
def calm(monkeypatch):
    """No noise on the choice of centres."""
    monkeypatch.setattr(mdsrec, "logistic_noise", torch.zeros_like)


def scores(model, rows):
    model.eval()
    with torch.no_grad():
        return model.full_sort_predict(rows)


# Hand numbers: session vectors, centres and tables are given, the rest is computed.

W = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [2, -1]])
G_TEXT = torch.tensor([[0.0, 0], [3, -1], [2, 0], [1, 2], [2, 0]])
G_IMAGE = torch.tensor([[0.0, 0], [1, 1], [0, 2], [2, 0], [1, -1]])


@pytest.fixture
def given(small, make_dataset, monkeypatch):
    features = {"text": torch.randn(5, 2), "image": torch.randn(5, 2)}
    data = make_dataset([[1, 2, 3], [3, 1, 4, 2]], 5, features=features)
    sizes = {"hidden_size": 2, "n_heads": 1, "inner_size": 2, "n_centers": 2, "n_neighbors": 2}

    def make():
        model = MDSRec(small(alpha=[0.6, 0.4], **sizes), data)
        session = {
            "id": (torch.tensor([[1.0, 0]]), None),
            "text": (torch.tensor([[0.0, 1]]), torch.tensor([[[2.5, -0.5], [1.5, 1]]])),
            "image": (torch.tensor([[1.0, 1]]), torch.tensor([[[1.0, 0]]])),
        }
        tables = {"id": W, "text": G_TEXT, "image": G_IMAGE}
        monkeypatch.setattr(model, "sessions", lambda *args: session)
        monkeypatch.setattr(model, "_tables", lambda: dict(tables))
        return model, data.inter_feat[:1]

    return make


def with_target(rows, item):
    rows["item_id"][:] = item
    return rows


def test_scores_by_hand(given):
    model, rows = given()
    expected = torch.tensor([4.592549, 3.818911, 7.081089, 4.218911])
    found = scores(model, rows)[0]
    torch.testing.assert_close(found[1:], expected)
    assert found[0] == -math.inf
    assert (1 + found[1:].argsort(descending=True)).tolist() == [3, 1, 4, 2]
    for item in range(1, 5):
        assert float(model.predict(with_target(rows, item))) == pytest.approx(
            float(expected[item - 1]), abs=1e-5
        )


def test_parts_of_the_score_by_hand(given):
    model, rows = given()
    parts = {name: part[0, 1:].tolist() for name, part in model.eval().score_parts(rows).items()}
    assert parts["id"] == pytest.approx([1.4, 1, 2.4, 1.8])
    assert parts["text"] == pytest.approx([3.320915, 3.364851, 5.135149, 3.364851], abs=1e-5)
    assert parts["image"] == pytest.approx([3, 2, 4, 1])
    assert list(parts) == ["id", "text", "image"]


@pytest.mark.usefixtures("calm")
def test_losses_by_hand(given):
    model, rows = given()
    parts = model.train().calculate_loss(with_target(rows, 3))
    assert model.loss_names == ("id", "text", "image")
    expected = (0.771629, 0.6 * 0.407814, 0.4 * 0.440190)
    assert [float(part) for part in parts] == pytest.approx(expected, abs=1e-5)
    assert float(sum(parts)) == pytest.approx(1.192393, abs=1e-5)


# RecBole's SASRec

STOCK = {
    "loss_type": "CE", "n_heads": 2, "n_layers": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
}  # fmt: skip


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_id_alone_is_sasrec(small, build, dataset, dropout):
    changes = {"hidden_dropout_prob": dropout, "attn_dropout_prob": dropout}
    model = build("id_only", use_cooc_id=False, **changes)
    stock = SASRec(small(**changes) | STOCK, dataset)
    copied = {
        name.replace("trm_encoder.", "encoders.id.").replace(
            "LayerNorm.", "norms.id.", 1 if name.startswith("LayerNorm") else 0
        ): weight
        for name, weight in stock.state_dict().items()
    }
    assert copied.keys() == model.state_dict().keys()
    model.load_state_dict(copied)
    rows = dataset.inter_feat
    expected = scores(stock, rows)
    torch.testing.assert_close(scores(model, rows)[:, 1:], expected[:, 1:], atol=1e-6, rtol=1e-5)
    assert model.score_parts(rows) == {}
    if dropout == 0.0:
        _same_gradients(model, stock, rows)


def _same_gradients(model, stock, rows):
    torch.stack(model.train().calculate_loss(rows)).sum().backward()
    logits = stock.train()(rows["item_id_list"], rows["item_length"])
    logits = logits @ stock.item_embedding.weight[1:].T
    torch.nn.functional.cross_entropy(logits, rows["item_id"] - 1).backward()
    for ours, theirs in (
        (model.item_embedding.weight, stock.item_embedding.weight),
        (model.encoders["id"].layer[0].feed_forward.dense_1.weight,
         stock.trm_encoder.layer[0].feed_forward.dense_1.weight),
        (model.position_embedding.weight, stock.position_embedding.weight),
    ):  # fmt: skip
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)


# An independent derivation in NumPy, session by session


def np_cooccurrence(lists, n_items):
    table = np.zeros((n_items, n_items))
    for one in lists:
        for q in range(len(one)):
            for p in range(q):
                if one[p] != one[q]:
                    table[one[p], one[q]] += 1 / (q - p)
                    table[one[q], one[p]] += 1 / (q - p)
    return table


def np_scaled(table, how):
    sums = np.where(table.sum(1) > 0, table.sum(1), 1)
    if how == "row":
        return table / sums[:, None]
    return table / np.sqrt(np.outer(sums, sums)) if how == "sym" else table


def np_neighbours(vectors, count):
    norms = np.linalg.norm(vectors, axis=1)
    found = {}
    for i in range(1, len(vectors)):
        others = [j for j in range(1, len(vectors)) if j != i and norms[i] * norms[j] > 0]
        likeness = {j: vectors[i] @ vectors[j] / norms[i] / norms[j] for j in others}
        found[i] = [i, *sorted(others, key=lambda j: (-round(likeness[j], 6), j))][:count]
    return found


def np_norm(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def np_map(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def np_layer(asking, session, weights, name, heads=2):
    attention, forward = f"{name}.multi_head_attention", f"{name}.feed_forward"
    query = np_map(asking, weights, f"{attention}.query")
    key = np_map(session, weights, f"{attention}.key")
    value = np_map(session, weights, f"{attention}.value")
    width, mixed = query.shape[1] // heads, []
    for start in range(0, query.shape[1], width):
        part = slice(start, start + width)
        logits = query[:, part] @ key[:, part].T / math.sqrt(width)
        share = np.exp(logits - logits.max(-1, keepdims=True))
        mixed.append(share / share.sum(-1, keepdims=True) @ value[:, part])
    hidden = np_map(np.concatenate(mixed, 1), weights, f"{attention}.dense") + asking
    hidden = np_norm(hidden, weights, f"{attention}.LayerNorm")
    inner = np_map(hidden, weights, f"{forward}.dense_1")
    inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
    out = np_map(inner, weights, f"{forward}.dense_2") + hidden
    return np_norm(out, weights, f"{forward}.LayerNorm")


def np_stream(name, table, centers, inputs, weights, config):
    places = weights["position_embedding.weight"][: len(inputs)]
    states = np_norm(table[inputs] + places, weights, f"norms.{name}")
    for layer in range(config["n_layers"]):
        part = f"encoders.{name}.layer.{layer}"
        if centers is not None:
            centers = np_layer(centers, states, weights, part)
        states = np.concatenate([
            np_layer(states[q : q + 1], states[: q + 1], weights, part) for q in range(len(states))
        ])  # fmt: skip
    return states[-1], centers


def np_groups(model, kind):
    """Group of each item; k-means itself is scikit-learn's."""
    return model.pools[kind].labels.numpy()


def np_model(model, data, config, rows):
    weights = {name: x.detach().double().numpy() for name, x in model.state_dict().items()}
    raw = weights["item_embedding.weight"]
    near = np_cooccurrence(data.train, N_ITEMS)
    injected = config["kappa_id"] * np_scaled(near, config["cooc_norm_id"]) @ raw + raw
    tables, first = {"id": injected}, {"id": None}
    for kind in model.kinds:
        features = data.item_features.table(kind).double().numpy()
        mixed = config["kappa_modal"] * np_scaled(near, config["cooc_norm_modal"]) @ features
        table = np.zeros_like(raw)
        for item, found in np_neighbours(mixed + features, config["n_neighbors"]).items():
            table[item] = sum(raw[j] for j in found)
        labels = np_groups(model, kind)
        pooled = [table[labels == c].mean(0) for c in range(labels.max() + 1)]
        tables[kind], first[kind] = table, np_norm(np.array(pooled), weights, f"norms.{kind}")
    made = np.zeros((len(rows), N_ITEMS))
    for row, inputs in enumerate(rows):
        ends = {
            name: np_stream(name, tables[name], first[name], inputs, weights, config)
            for name in tables
        }
        share = 1 / max(len(model.kinds), 1)
        fused = ends["id"][0] + sum(share * ends[kind][0] for kind in model.kinds)
        made[row] = raw @ fused
        for kind in model.kinds:
            session, centers = ends[kind]
            logits = centers @ session / config["relation_tau"]
            choice = np.exp(logits - logits.max())
            session = session + choice / choice.sum() @ centers
            made[row] += share * tables[kind] @ session
    return made


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"modalities": ["image"]},
        {"modalities": []},
        {"cooc_norm_id": "row", "cooc_norm_modal": "none", "kappa_id": 4.0, "kappa_modal": 1.0},
        {"cooc_norm_id": "sym", "cooc_norm_modal": "sym", "n_layers": 1},
        {"n_neighbors": 1, "relation_tau": 2.5},
    ],
)
def test_scores_as_derived_anew(build, dataset, small, changes):
    model = build(**changes)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.3)
        model.item_embedding.weight[0] = 0
    config = small(**changes)
    prefixes = [one[:cut] for one in dataset.train for cut in range(1, len(one))]
    expected = np_model(model, dataset, config, prefixes)
    made = scores(model, dataset.inter_feat).double().numpy()
    np.testing.assert_allclose(made[:, 1:], expected[:, 1:], atol=2e-4, rtol=2e-4)


# Guards


def test_items_without_features_have_themselves_and_no_group(build):
    model = build(use_cooc_modal=False)
    for kind in ("text", "image"):
        assert model.graphs[kind].neighbours[6].tolist() == [6, 0, 0]
        assert model.pools[kind].labels[[0, 6]].tolist() == [-1, -1]
        assert (model.pools[kind].labels[[1, 2, 3, 4, 5, 7, 8]] >= 0).all()
    # Injection gives the item the features of those it co-occurs with.
    assert (build().graphs["text"].neighbours[6] > 0).all()


def test_only_training_sessions_are_counted(build, make_dataset, dataset):
    other = make_dataset(dataset.train, N_ITEMS, [[1, 8], [8, 5, 5]])
    other.item_features = dataset.item_features
    left, right = dict(build().named_buffers()), dict(build(data=other).named_buffers())
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    # Item 8 is in test sessions only: nothing is injected, and yet it can be ranked.
    model = build()
    assert torch.equal(model.injection(model.item_embedding.weight)[8],
                       model.item_embedding.weight[8])  # fmt: skip
    assert bool(scores(model, dataset.inter_feat)[:, 8].isfinite().all())


def test_checkpoints_hold_neighbours_and_groups_and_no_pairs(build):
    names = set(build().state_dict())
    assert {"graphs.text.neighbours", "pools.image.labels"} <= names
    assert not any("injection" in name or "features" in name for name in names)
    kept = {name for name in build("no_mrgc").state_dict() if "features" in name}
    assert not kept


def test_groups_of_a_checkpoint_are_used(build, dataset):
    model, other = build(), build()
    other.pools["text"].labels.copy_(torch.tensor([-1, 0, 0, 0, 0, 0, -1, 1, 1]))
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(scores(model, dataset.inter_feat), scores(other, dataset.inter_feat))
    assert model.item_tables()["text centers"].shape == (2, 8)


@pytest.mark.usefixtures("calm")
def test_padding_takes_part_in_nothing(build, dataset):
    model = build(**SURE)
    assert not model.item_embedding.weight[0].any()
    rows = dataset.inter_feat
    torch.stack(model.train().calculate_loss(rows)).sum().backward()
    assert not model.item_embedding.weight.grad[0].any()
    losses, expected = model.calculate_loss(rows), scores(model, rows)
    with torch.no_grad():
        model.item_embedding.weight[0] = 5.0
    torch.testing.assert_close(model.train().calculate_loss(rows), losses)
    torch.testing.assert_close(scores(model, rows), expected)


def test_noise_in_training_only(build, dataset):
    model = build(hidden_dropout_prob=0.0, attn_dropout_prob=0.0)
    rows = dataset.inter_feat
    losses = [torch.stack(model.train().calculate_loss(rows)) for _ in range(2)]
    assert not torch.equal(*losses)
    assert torch.equal(scores(model, rows), scores(model, rows))
    torch.manual_seed(5)
    first = torch.stack(model.train().calculate_loss(rows))
    torch.manual_seed(5)
    assert torch.equal(first, torch.stack(model.train().calculate_loss(rows)))


def test_without_centres_their_settings_mean_nothing(build, dataset):
    plain = build("no_ica")
    other = build("no_ica", n_centers=2, relation_tau=9.0)
    assert torch.equal(scores(plain, dataset.inter_feat), scores(other, dataset.inter_feat))
    assert not plain.pools and not any("centers" in name for name in plain.item_tables())


@pytest.mark.usefixtures("calm")
def test_injection_of_the_batch_alone_trains_the_same(build, dataset, monkeypatch):
    made = []
    for cost in (0, 1e9):
        monkeypatch.setattr(graphs, "_LOOKUP_COST", cost)
        model = build(**SURE).train()
        torch.stack(model.calculate_loss(dataset.inter_feat)).sum().backward()
        made.append(model.item_embedding.weight.grad)
    torch.testing.assert_close(*made, atol=1e-5, rtol=1e-4)


def test_centres_stay_apart_only_with_residual_and_norm(build, make_dataset):
    torch.manual_seed(0)
    features = {"text": torch.randn(60, 16)}
    data = make_dataset([[k, k + 1, k + 2] for k in range(1, 58)], 60, features=features)
    rows = data.inter_feat
    large = {"hidden_size": 64, "inner_size": 64, "n_centers": 8, "n_neighbors": 5}
    likeness = {}
    for block in ("layer", "bare"):
        model = build(data=data, center_block=block, modalities=["text"], **large).eval()
        with torch.no_grad():
            found = model.sessions(*model.inputs(rows), model.item_tables())["text"][1]
        found = torch.nn.functional.normalize(found, dim=2)
        cosines = found @ found.transpose(1, 2)
        likeness[block] = float((cosines.sum((1, 2)) - 8).mean() / 56)
    assert likeness["layer"] < 0.9 and likeness["bare"] > 0.99


def test_modalities_that_are_not_named_are_those_that_were_loaded(build, dataset, make_dataset):
    text = {"text": torch.randn(N_ITEMS, 4)}
    assert build(data=make_dataset(dataset.train, N_ITEMS, features=text)).kinds == ("text",)
    assert build(data=make_dataset(dataset.train, N_ITEMS)).kinds == ()
    with pytest.raises(FeatureError, match="needs image features"):
        build("image", data=make_dataset(dataset.train, N_ITEMS, features=text))


def test_weights_must_fit_the_modalities_that_are_there(build, dataset, make_dataset):
    text = make_dataset(dataset.train, N_ITEMS, features={"text": torch.randn(N_ITEMS, 4)})
    with pytest.raises(ConfigError, match="one weight for each of text with sum 1"):
        build(data=text, alpha=[0.5, 0.5])


def test_no_square_of_items_is_made(small, make_dataset):
    n_items = 700
    torch.manual_seed(0)
    features = {"text": torch.randn(n_items, 8)}
    lists = [[k, k + 1, k + 3] for k in range(1, n_items - 3)]
    data = make_dataset(lists, n_items, features=features)
    with LargestTensor() as largest:
        model = MDSRec(small(), data)
        torch.stack(model.train().calculate_loss(data.inter_feat[:32])).sum().backward()
        scores(model, data.inter_feat[:32])
    assert largest.numel < n_items**2 / 2, largest.what


def test_the_centres_see_no_more_than_the_row(build, dataset, monkeypatch):
    model, seen = build(**SURE), []
    original = streams.keys_values

    def watched(layer, states):
        seen.append(states.shape)
        return original(layer, states)

    monkeypatch.setattr(streams, "keys_values", watched)
    rows = dataset.inter_feat[:1]
    model.train().calculate_loss(rows)
    # One row of one item, padded to six columns: keys and values of one position.
    assert set(seen) == {(1, 1, 8)} and len(seen) == 3 * 2
