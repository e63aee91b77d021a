"""SRIM as a whole: an independent derivation of its scores, its guards, its switches."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model import layers, losses
from recbole_mm.model.srim.model import SRIM

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
    def make(preset="sound", data=None, seed=3, **changes):
        torch.manual_seed(seed)
        return SRIM(settings(preset=preset, **{**SMALL, **changes}), data or dataset)

    return make


def evaluate(model, rows):
    model.eval()
    with torch.no_grad():
        return model.full_sort_predict(rows)


# An independent derivation of the scores, item by item and head by head, in NumPy


def np_graph(lists, count, diagonal):
    counts = np.zeros((N_ITEMS, N_ITEMS))
    for held in lists:
        if count == "set":
            held = sorted(set(held))
        for a in held:
            for b in held:
                counts[a, b] += a != b
        if diagonal:
            for a in held:
                counts[a, a] += held.count(a) if count == "mult" else 1
    share = np.zeros_like(counts)
    for a in range(N_ITEMS):
        if counts[a].sum() > 0:
            share[a] = counts[a] / counts[a].sum()
    return share


def np_features(data, config):
    parts, absent = [], []
    seen = sorted({item for one in data.train for item in one})
    for name in config["modalities"]:
        table = data.item_features.table(name).double().numpy().copy()
        present = data.item_features.mask(name).numpy()
        if config["feature_norm"] == "center":
            table -= np.mean([table[i] for i in seen if present[i]], axis=0)
        if config["feature_norm"] != "none":
            table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        table[~present] = 0
        parts.append(table)
        absent.append((~present).astype(float))
    missing = np.stack(absent, axis=1)
    missing[0] = 0
    return np.concatenate(parts, axis=1), missing


def np_table(branch, weights, data, config, share):
    source = f"sources.{branch}."
    if f"{source}weight" in weights:
        table = weights[f"{source}weight"]
    else:
        features, absent = np_features(data, config)
        table = features @ weights[f"{source}project.weight"].T
        table = table + absent @ weights[f"{source}missing"]
    if config["graph_branches"] not in ("both", branch):
        return table
    for layer in range(config["n_layers"]):
        if config["gcn"] == "literal":
            table = share @ (table @ weights[f"layer_maps.{branch}.{layer}.weight"].T)
        else:
            table = table + share @ table
            table = table / 2 if config["gcn"] == "residual_norm" else table
    return table


def np_map(name, branch, vector, weights):
    key = f"attention.{branch}.maps.{name}."
    if f"{key}weight" not in weights:
        return vector
    return weights[f"{key}weight"] @ vector + weights.get(f"{key}bias", 0)


def np_session(branch, inputs, table, weights, config):
    vectors = [table[item] for item in inputs]
    outputs = vectors
    if config["attention"] != "none":
        size, width = config["embedding_size"], config["embedding_size"] // config["n_heads"]
        outputs = []
        for asking in vectors:
            query = np_map("query", branch, asking, weights)
            mixed = np.zeros(size)
            for start in range(0, size, width):
                part = slice(start, start + width)
                keys = [np_map("key", branch, v, weights)[part] for v in vectors]
                values = [np_map("value", branch, v, weights)[part] for v in vectors]
                logits = np.array([query[part] @ key for key in keys]) / math.sqrt(width)
                share = np.exp(logits) / np.exp(logits).sum()
                mixed[part] = sum(s * v for s, v in zip(share, values, strict=True))
            outputs.append(mixed)
    if config["session_pool"] == "mean":
        return np.mean(outputs, axis=0)
    residual = config["session_residual"] and config["attention"] != "none"
    return outputs[-1] + vectors[-1] if residual else outputs[-1]


def np_scores(model, data, config, rows):
    weights = {name: x.detach().double().numpy() for name, x in model.state_dict().items()}
    share = np_graph(data.train, config["graph_count"], config["graph_diag"])
    scores = np.zeros((len(rows), N_ITEMS))
    branches = ("id", "content") if config["branches"] == "both" else (config["branches"],)
    for number, branch in enumerate(branches):
        table = np_table(branch, weights, data, config, share)
        for row, inputs in enumerate(rows):
            query = np_session(branch, inputs, table, weights, config)
            if config["session_map"] == "linear":
                query = weights[f"session_maps.{branch}.weight"] @ query
                query = query + weights[f"session_maps.{branch}.bias"]
            for item in range(N_ITEMS):
                score = query @ table[item]
                if config["score"] == "cosine":
                    norm = np.linalg.norm(query) * np.linalg.norm(table[item])
                    score = score / norm if norm > 0 else 0
                scores[row, item] += math.exp(weights["log_scale"][number]) * score
    return scores


VARIANTS = [
    {},
    {"session_pool": "mean"},
    {"session_map": "none", "session_residual": False},
    {"attention": "lin"},
    {"attention": "none", "session_pool": "mean"},
    {"attention": "full", "att_bias": False},
    {"score": "cosine"},
    {"gcn": "residual_norm"},
    {"gcn": "literal", "graph_diag": True, "session_pool": "mean"},
    {"graph_count": "mult", "n_layers": 3},
    {"graph_branches": "id"},
    {"graph_branches": "content"},
    {"n_layers": 0},
    {"branches": "id"},
    {"branches": "content"},
    {"content": "random"},
    {"content": "features_tuned", "feature_norm": "unit"},
    {"modalities": ["text", "image"], "feature_norm": "none"},
    {"graph_loo": True},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_scores_equal_an_independent_derivation(build, settings, dataset, changes):
    model = build(**changes)
    with torch.no_grad():
        model.log_scale.add_(torch.arange(len(model.branches)) * 0.3)
    ours = evaluate(model, dataset.held_out_rows())
    rows = [one[:cut] for one in TEST for cut in range(1, len(one))]
    theirs = np_scores(model, dataset, settings(**{**SMALL, **changes}), rows)
    np.testing.assert_allclose(ours[:, 1:].numpy(), theirs[:, 1:], rtol=2e-4, atol=2e-5)
    assert bool((ours[:, 0] == -math.inf).all())


def test_frozen_features_are_propagated_beforehand(build):
    model = build()
    assert model.propagated == {"id"}
    assert build(content="features_tuned").propagated == {"id", "content"}


# Losses


def parts(model, rows, seed=0):
    torch.manual_seed(seed)
    return dict(zip(model.loss_names, model.calculate_loss(rows), strict=True))


def test_main_loss_leaves_padding_out(build, dataset):
    model = build(w_align=0, w_joint=0, w_co=0)
    rows = dataset.inter_feat
    scores = evaluate(model, rows)
    expected = losses.softmax_ce(scores, rows["item_id"]).mean()
    assert model.loss_names == ("main",)
    torch.testing.assert_close(parts(model, rows)["main"], expected)


def sessions_of(model, rows):
    model.eval()
    tables = model.item_tables()
    return tables, model._encode(*model.inputs(rows), tables)


@pytest.mark.parametrize("form", ["paper", "code", "code_slots", "infonce"])
def test_alignment_compares_the_stated_pairs(build, dataset, form):
    model = build(align=form, w_align=1.0, emb_dropout=0.0, att_dropout=0.0)
    rows = dataset.inter_feat
    _, sessions = sessions_of(model, rows)
    (p_id, q_id), (p_content, q_content) = sessions["id"], sessions["content"]
    maps = model.align.maps

    def like(left, x, right, y):
        return torch.cosine_similarity(maps[left](x), maps[right](y), dim=1)

    if form == "infonce":
        expected = losses.align_infonce(maps["3"](q_id), maps["4"](q_content), rows["item_id"], 0.1)
    elif form == "paper":
        b, c = like("1", p_id, "2", q_id), like("5", p_content, "6", q_content)
        a = like("3", p_id, "4", p_content)
        e_b, e_c, e_a = b.exp(), c.exp(), a.exp()
        expected = (
            (1 + e_a / (1 + e_b)).log()
            + (1 + e_a / (1 + e_c)).log()
            + (1 + (e_b + e_c) / (1 + e_a)).log()
        )
    else:
        order = (q_id, p_id, q_content, p_content)
        s1, s2, s3, s4 = order if form == "code" else (q_id, q_content, p_id, p_content)
        b, a1 = like("1", s1, "2", s2).exp(), like("3", s1, "4", s3).exp()
        c, a2 = like("4", s3, "5", s4).exp(), like("7", s3, "8", s1).exp()
        expected = (
            ((1 + a1 + b) / (1 + b)).log()
            + ((1 + a2 + c) / (1 + c)).log()
            + ((1 + b + c) / (1 + a1)).log()
        )
    assert (maps["3"].bias is None) == (form in ("paper", "infonce"))
    torch.testing.assert_close(parts(model, rows)["align"], expected.mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"joint_session": "post"},
        {"joint_label_shift": -1},
        {"joint_sign": -1},
        {"flag_rule": "any"},
        {"reduction": "sum"},
    ],
    ids=str,
)
def test_joint_inference_by_definition(build, dataset, changes):
    model = build(w_joint=0.5, **changes)
    rows = dataset.inter_feat
    tables, sessions = sessions_of(model, rows)
    use_any = changes.get("flag_rule") == "any"
    total = []
    for row in range(len(rows)):
        inputs = [i for i in rows["item_id_list"][row].tolist() if i]
        target, own = int(rows["item_id"][row]), int(rows["session_id"][row]) - 1
        others = TRAIN if use_any else TRAIN[:own] + TRAIN[own + 1 :]
        flag = any(
            target in one and item in one for one in others for item in inputs if item != target
        )
        label = target + changes.get("joint_label_shift", 0)
        likes = []
        for branch in ("id", "content"):
            session = sessions[branch]
            vector = session.after if changes.get("joint_session") == "post" else session.before
            likes.append(torch.cosine_similarity(vector[row], tables[branch][label], dim=0).item())
        j_id = math.log(math.exp(likes[0]) + math.exp(likes[1])) - likes[0]
        j_content = math.log(math.exp(likes[0]) + math.exp(likes[1])) - likes[1]
        value = j_id + j_content / 2 if flag else j_content + j_id / 2
        total.append(changes.get("joint_sign", 1) * value)
    expected = 0.5 * (sum(total) if "reduction" in changes else np.mean(total))
    assert parts(model, rows)["joint"].item() == pytest.approx(expected, rel=1e-4)


def test_flags_by_lists(build, dataset):
    model = build(flag_rule="topl", n_neighbors=1)
    # One partner each, the most frequent one with the lowest id: 1-2, 3-1, 4-2, 5-1, 6-1, 7-5.
    item_seq = torch.tensor([[3, 0], [4, 7], [4, 0], [2, 5]])
    flags = model.joint.flag(item_seq, torch.tensor([1, 5, 1, 3]), torch.zeros(4).long())
    assert flags.tolist() == [True, True, False, False]


@pytest.mark.parametrize("form", ["infonce", "expratio", "ratio"])
@pytest.mark.parametrize("weight", ["count", "uniform"])
def test_cooccurrence_loss_by_definition(build, dataset, form, weight):
    model = build(co=form, co_pos_weight=weight, co_neg="fixed", co_anchors="all", w_co=2.0)
    rows = dataset.inter_feat
    table = sessions_of(model, rows)[0]["id"].detach().double().numpy()
    counts = np_counts = np.zeros((N_ITEMS, N_ITEMS))
    for one in TRAIN:
        for a in set(one):
            for b in set(one):
                np_counts[a, b] += a != b

    def cos(x, y):
        return x @ y / (np.linalg.norm(x) * np.linalg.norm(y))

    values = []
    for item in range(1, N_ITEMS):
        near = sorted(
            (k for k in range(1, N_ITEMS) if counts[item, k]), key=lambda k: (-counts[item, k], k)
        )
        far = [k for k in range(1, N_ITEMS) if not counts[item, k] and k != item]
        near, far = near[:3], far[:3]
        if not near:
            continue
        share = [counts[item, k] if weight == "count" else 1.0 for k in near]
        mean = sum(s * table[k] for s, k in zip(share, near, strict=True)) / sum(share)
        pos, neg = cos(table[item], mean), np.array([cos(table[item], table[k]) for k in far])
        values.append(
            {
                "infonce": math.log(math.exp(pos) + np.exp(neg).sum()) - pos,
                "expratio": -math.exp(pos) / np.exp(neg).sum(),
                "ratio": -pos / neg.sum(),
            }[form]
        )
    assert len(values) == 7
    assert parts(model, rows)["co"].item() == pytest.approx(2 * np.mean(values), rel=1e-4)


def test_cooccurrence_options_of_the_released_code(build, dataset):
    rows = dataset.inter_feat
    common = {"co_neg": "fixed", "co_anchors": "all"}
    natural = parts(build(**common).eval(), rows)["co"]
    decimal = parts(build(co_log10=True, **common).eval(), rows)["co"]
    torch.testing.assert_close(decimal, natural / math.log(10))
    # Item 8 has no partners: with "keep" it adds log(1 + sum e^neg) to the mean.
    kept = build(co_isolated="keep", **common).eval()
    lone = layers.unit(kept.item_tables()["id"])[[8, 1, 2, 3]]
    extra = torch.log1p((lone[1:] @ lone[0]).exp().sum())
    torch.testing.assert_close(parts(kept, rows)["co"], (7 * natural + extra) / 8)


def test_anchors(build):
    item_seq, target = torch.tensor([[1, 2, 0], [2, 8, 0]]), torch.tensor([3, 1])

    def anchors(**changes):
        torch.manual_seed(0)
        return build(**changes).contrast.anchors(item_seq, target).tolist()

    assert anchors(co_anchors="batch") == [1, 2, 3]
    assert anchors(co_anchors="batch", co_isolated="keep") == [1, 2, 3, 8]
    assert anchors(co_anchors="all") == [1, 2, 3, 4, 5, 6, 7]
    sampled = anchors(co_anchors="sample", co_samples=400)
    assert sampled[:3] == [1, 2, 3] and set(sampled) == set(range(1, 8))


def test_every_trained_parameter_gets_a_gradient(build, dataset):
    for changes in ({}, {"content": "features_tuned"}, {"gcn": "literal", "graph_diag": True}):
        model = build(logit_scale_learned=True, **changes)
        sum(model.calculate_loss(dataset.inter_feat)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
            # A bias of the query moves softmax logits of one-item sessions by nothing, others do.
            assert float(parameter.grad.abs().max()) > 0, name
        assert not model.sources["id"].weight.grad[0].any()


# Switches and presets


SWITCHES = {
    "branches": ["both", "id", "content"],
    "content": ["features_frozen", "features_tuned", "random"],
    "feature_norm": ["none", "unit", "center"],
    "feature_pca": [0, 2],
    "graph_branches": ["both", "id", "content", "none"],
    "graph_count": ["set", "mult"],
    "graph_diag": [False, True],
    "graph_loo": [False, True],
    "graph_source": ["train", "leaky_inputs", "leaky_all"],
    "gcn": ["residual", "residual_norm", "literal"],
    "n_layers": [0, 1, 4],
    "attention": ["direct", "lin", "none", "full"],
    "session_pool": ["last", "mean"],
    "session_map": ["linear", "none"],
    "session_residual": [True, False],
    "score": ["dot", "cosine"],
    "main_loss": ["ce", "bce_softmax"],
    "align": ["infonce", "paper", "code", "code_slots", "none"],
    "flag_rule": ["loo", "any", "topl"],
    "co": ["infonce", "expratio", "ratio", "none"],
    "co_neg": ["zero_random", "fixed"],
    "reduction": ["mean", "sum"],
}
CASES = [(key, value) for key, values in SWITCHES.items() for value in values]


@pytest.mark.parametrize(("key", "value"), CASES)
def test_every_switch_trains_and_predicts(build, dataset, key, value):
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
        assert not model.sources["id"].weight[0].any()


@pytest.mark.parametrize(
    ("preset", "names", "leaky"),
    [
        ("sound", ("main", "align", "joint", "co"), False),
        ("paper", ("main", "align", "joint", "co"), False),
        ("official", ("main", "align", "joint", "co"), False),
        ("official_leaky", ("main", "align", "joint", "co"), True),
    ],
)
def test_presets_train(settings, dataset, preset, names, leaky):
    model = SRIM(settings(preset=preset, embedding_size=8, n_heads=4), dataset)
    loss = sum(model.calculate_loss(dataset.inter_feat))
    loss.backward()
    assert bool(loss.isfinite()) and model.loss_names == names and model.leaky is leaky


def test_the_leaky_preset_differs_from_the_official_one_by_its_graph_only(settings):
    official, leaky = settings(preset="official"), settings(preset="official_leaky")
    assert {k for k in official if official[k] != leaky[k]} == {"graph_source"}


def test_without_both_branches_only_what_makes_sense_remains(build):
    assert build(branches="id").loss_names == ("main", "co")
    assert build(branches="content").loss_names == ("main",)
    assert build(w_co=0).loss_names == ("main", "align", "joint")
    assert build(align="none", co="none").loss_names == ("main", "joint")


def test_which_features_the_settings_read(settings):
    assert SRIM.modalities(settings()) == ("text",)
    assert SRIM.modalities(settings(modalities=["text", "image"])) == ("text", "image")
    assert SRIM.modalities(settings(branches="id")) == ()
    assert SRIM.modalities(settings(preset="official")) == ()


@pytest.mark.parametrize("changes", [{}, {"content": "random"}, {"gcn": "literal"}], ids=str)
def test_graph_loo_trains_on_the_graph_of_the_other_sessions(build, make_dataset, changes):
    common = {"w_align": 0, "w_joint": 0, "w_co": 0, "feature_norm": "none", **changes}
    features = {"text": torch.randn(N_ITEMS, 5)}
    whole = build(data=make_dataset(TRAIN, N_ITEMS, features=features), graph_loo=True, **common)
    # Without session 4 = [5, 3, 6, 1], whose rows are trained on.
    others = build(data=make_dataset(TRAIN[:3] + TRAIN[4:], N_ITEMS, features=features), **common)
    others.load_state_dict(whole.state_dict())
    rows = make_dataset(TRAIN, N_ITEMS).inter_feat
    rows = rows[rows["session_id"] == 4]
    left, right = parts(whole.eval(), rows)["main"], parts(others.eval(), rows)["main"]
    torch.testing.assert_close(left, right)
    assert not torch.equal(whole.full_sort_predict(rows), others.full_sort_predict(rows))


def test_the_first_scale(build):
    assert build().log_scale.exp().tolist() == pytest.approx([1, 1])
    assert build(gcn="residual_norm").log_scale.exp().tolist() == pytest.approx([16, 16])
    assert build(score="cosine").log_scale.exp().tolist() == pytest.approx([16, 16])
    scaled = build(logit_scale=2.5, logit_scale_learned=True).log_scale
    assert scaled.exp().tolist() == pytest.approx([2.5, 2.5]) and scaled.requires_grad


def test_halved_steps_with_the_scale_score_like_whole_steps(build, dataset):
    rows = dataset.held_out_rows()
    # A map's bias would not be halved with the vectors.
    changes = {"content": "random", "attention": "none", "session_map": "none"}
    whole, halved = build(**changes), build(gcn="residual_norm", **changes)
    whole.load_state_dict({**halved.state_dict(), "log_scale": torch.zeros(2)})
    # Items without neighbours alone differ: they are halved as well, but never doubled.
    torch.testing.assert_close(
        evaluate(whole, rows)[0, 1:8], evaluate(halved, rows)[0, 1:8], rtol=1e-4, atol=1e-5
    )


def test_dropout_in_the_first_epoch_only(build):
    model = build(dropout_first_epoch_only=True)

    def shares():
        return [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]

    model.start_epoch(0)
    assert shares() == [0.3, 0.2, 0.2]
    model.start_epoch(1)
    assert shares() == [0.0, 0.0, 0.0]
    model.start_epoch(0)
    assert shares() == [0.3, 0.2, 0.2]
    always = build()
    always.start_epoch(7)
    assert always.dropout.p == 0.3


def test_dropout_acts_in_training_and_never_in_evaluation(build, dataset):
    model = build(w_align=0, w_joint=0, w_co=0)
    rows = dataset.inter_feat
    model.train()
    assert parts(model, rows, 0)["main"] != parts(model, rows, 1)["main"]
    model.eval()
    assert parts(model, rows, 0)["main"] == parts(model, rows, 1)["main"]


def test_heads_that_do_not_divide_the_width_are_refused(build):
    with pytest.raises(ConfigError, match="n_heads=3 does not divide embedding_size=4"):
        build(n_heads=3)


def test_missing_features_are_an_error_only_where_they_are_used(build, make_dataset):
    bare = make_dataset(TRAIN, N_ITEMS)
    with pytest.raises(FeatureError, match="SRIM needs text features of Tiny"):
        build(data=bare)
    for changes in ({"branches": "id"}, {"content": "random"}):
        assert build(data=bare, **changes).leaky is False


# Honesty


def test_the_graph_knows_nothing_of_test_sessions(build, make_dataset, dataset):
    garbage = make_dataset(TRAIN, N_ITEMS, [[8, 8, 8], [1, 7]], dataset.item_features.tables, [6])
    honest, other = build(), build(data=garbage)
    # 3-4 and 4-8 occur in test sessions only.
    assert honest.graph.counts[4, 3] == 0 and honest.graph.counts[4, 8] == 0
    for (name, here), (_, there) in zip(honest.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(here, there), name
    assert torch.equal(
        honest.eval().item_tables()["candidates"], other.eval().item_tables()["candidates"]
    )


@pytest.mark.parametrize(("source", "target_edge"), [("leaky_inputs", 0), ("leaky_all", 1)])
def test_leaky_graphs_say_so(build, caplog, source, target_edge):
    with caplog.at_level(logging.WARNING):
        model = build(graph_source=source)
    assert model.leaky and "NOT those of an honest run" in caplog.text
    assert model.graph.counts[3, 4] == 1 and model.graph.counts[4, 8] == target_edge


def test_prediction_never_reads_the_target_nor_the_session_id(build, dataset):
    model, rows = build(), dataset.held_out_rows()
    scores = evaluate(model, rows)
    rows["item_id"] = torch.ones_like(rows["item_id"])
    rows["session_id"] = torch.ones_like(rows["session_id"])
    assert torch.equal(evaluate(model, rows), scores)
    del rows.interaction["item_id"], rows.interaction["session_id"]
    assert torch.equal(evaluate(model, rows), scores)


def test_padding_and_the_rest_of_the_batch_change_nothing(build, dataset):
    model, rows = build(session_pool="mean"), dataset.inter_feat
    together = evaluate(model, rows)
    for row in range(len(rows)):
        torch.testing.assert_close(evaluate(model, rows[row : row + 1]), together[row : row + 1])


def test_items_without_neighbours_or_features_have_finite_scores(build, dataset):
    for changes in (
        {},
        {"gcn": "literal"},
        {"score": "cosine"},
        {"gcn": "literal", "score": "cosine"},
    ):
        model = build(**changes)
        loss = sum(model.calculate_loss(dataset.held_out_rows()))
        loss.backward()
        scores = evaluate(model, dataset.held_out_rows())
        assert bool(loss.isfinite()) and bool(scores[:, 1:].isfinite().all())
        for parameter in model.parameters():
            assert parameter.grad is None or float(parameter.grad.abs().max()) < 1e3


def test_the_missing_vector_is_propagated_to_neighbours(build):
    model = build()
    before = model.eval().item_tables()["content"].detach().clone()
    with torch.no_grad():
        model.sources["content"].missing.add_(1.0)
    moved = (model.item_tables()["content"] - before).abs().sum(dim=1) > 1e-6
    # Item 6 lacks features. In one step it reaches 5, 3 and 1, in the second 2 and 7; item 4 is
    # three steps away and item 8 stands alone.
    assert moved.tolist() == [False, True, True, True, False, True, True, True, False]


# Cache, state, determinism


def test_new_weights_and_training_steps_reach_the_next_evaluation(build, dataset):
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
        "sources.id.weight",
        "sources.content.project.weight",
        "sources.content.missing",
        *(f"session_maps.{b}.{kind}" for b in ("id", "content") for kind in ("weight", "bias")),
        "attention.id.maps.query.weight",
        "attention.id.maps.query.bias",
        "attention.content.maps.query.weight",
        "attention.content.maps.query.bias",
        "align.maps.3.weight",
        "align.maps.4.weight",
        "log_scale",
    }


def test_features_survive_the_initialisation(build, dataset):
    model = build(content="features_tuned", feature_norm="none")
    assert torch.equal(model.sources["content"].features, dataset.item_features.table("text"))


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


def test_mixed_precision_leaves_the_model_in_float32(build, dataset):
    model = build().eval()
    plain = parts(model, dataset.inter_feat)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = parts(model, dataset.inter_feat)
        scores = model.full_sort_predict(dataset.inter_feat)
    assert scores.dtype == torch.float32
    assert all(torch.equal(plain[name], mixed[name]) for name in plain)


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
def test_nothing_of_the_size_items_by_items_is_made(settings, make_dataset, preset):
    n_items = 2500
    rng = np.random.default_rng(0)
    train = [rng.integers(1, n_items, rng.integers(2, 7)).tolist() for _ in range(900)]
    data = make_dataset(train, n_items, features={"text": torch.randn(n_items, 8)})
    with NoLargeTensor(n_items * n_items):
        model = SRIM(settings(preset=preset, embedding_size=8), data)
        rows = data.inter_feat[:64]
        sum(model.calculate_loss(rows)).backward()
        scores = evaluate(model, rows)
    assert scores.shape == (64, n_items)
    with pytest.raises(AssertionError), NoLargeTensor(n_items * n_items):
        model.graph.adjacency().counts.to_dense()
