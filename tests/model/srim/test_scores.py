"""Scores of SRIM against an independent derivation, item by item and head by head, in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch


def np_graph(lists, n_items, count, diagonal):
    counts = np.zeros((n_items, n_items))
    for held in lists:
        if count == "set":
            held = sorted(set(held))
        for a in held:
            for b in held:
                counts[a, b] += a != b or diagonal
    share = np.zeros_like(counts)
    for a in range(n_items):
        if counts[a].sum() > 0:
            share[a] = counts[a] / counts[a].sum()
    return share


def np_features(data, config):
    parts, absent = [], []
    seen = sorted({item for one in data.train for item in one})
    for name in config.modalities:
        table = data.item_features.table(name).double().numpy().copy()
        present = data.item_features.mask(name).numpy()
        if config.feature_norm == "center":
            table -= np.mean([table[i] for i in seen if present[i]], axis=0)
        if config.feature_norm != "none":
            table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        table[~present] = 0
        parts.append(table)
        absent.append((~present).astype(float))
    missing = np.stack(absent, axis=1)
    missing[0] = 0
    return np.concatenate(parts, axis=1), missing


def np_table(branch, weights, data, config, share):
    source = f"tables.{branch}."
    if f"{source}weight" in weights:
        table = weights[f"{source}weight"]
    else:
        features, absent = np_features(data, config)
        table = features @ weights[f"{source}project.weight"].T
        table = table + absent @ weights[f"{source}missing"]
    for layer in range(config.n_layers):
        if config.gcn == "literal":
            table = share @ (table @ weights[f"gcn.{branch}.maps.{layer}.weight"].T)
        else:
            table = table + share @ table
    return table


def np_map(name, branch, vector, weights):
    key = f"encoders.{branch}.attention.maps.{name}."
    if f"{key}weight" not in weights:
        return vector
    return weights[f"{key}weight"] @ vector + weights.get(f"{key}bias", 0)


def np_attention(branch, vectors, weights, config):
    size, width = config.embedding_size, config.embedding_size // config.n_heads
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
    return outputs


def np_session(branch, inputs, table, weights, config):
    vectors = [table[item] for item in inputs]
    outputs = vectors
    if config.attention != "none":
        outputs = np_attention(branch, vectors, weights, config)
    if config.session_pool == "mean":
        return np.mean(outputs, axis=0)
    residual = config.session_residual and config.attention != "none"
    return outputs[-1] + vectors[-1] if residual else outputs[-1]


def np_scores(model, data, rows, count):
    weights = {name: x.detach().double().numpy() for name, x in model.state_dict().items()}
    config = model.settings
    share = np_graph(data.train, data.item_num, count, config.graph_diag)
    scores = np.zeros((len(rows), data.item_num))
    for branch in ("id", "content"):
        if config.branches not in ("both", branch):
            continue
        table = np_table(branch, weights, data, config, share)
        for row, inputs in enumerate(rows):
            query = np_session(branch, inputs, table, weights, config)
            if config.session_map == "linear":
                query = weights[f"session_maps.{branch}.weight"] @ query
                query = query + weights[f"session_maps.{branch}.bias"]
            scores[row] += table @ query
    return scores


VARIANTS = [
    {},
    {"session_pool": "mean"},
    {"session_map": "none", "session_residual": False},
    {"attention": "lin"},
    {"attention": "none", "session_pool": "mean"},
    {"attention": "none"},
    {"attention": "full", "att_bias": False},
    {"gcn": "literal", "graph_diag": True, "session_pool": "mean"},
    {"gcn": "literal"},
    {"graph_diag": True, "n_layers": 3},
    {"n_layers": 0},
    {"branches": "id"},
    {"branches": "content"},
    {"content": "random"},
    {"content": "features_tuned", "feature_norm": "unit"},
    {"modalities": ["text", "image"], "feature_norm": "none"},
    {"preset": "paper"},
    {"preset": "official", "n_layers": 3},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_scores_equal_an_independent_derivation(build, dataset, evaluate, changes):
    model = build(**changes)
    ours = evaluate(model, dataset.held_out_rows())
    rows = [one[:cut] for one in dataset.test for cut in range(1, len(one))]
    count = "mult" if changes.get("preset") == "official" else "set"
    theirs = np_scores(model, dataset, rows, count)
    np.testing.assert_allclose(ours[:, 1:].numpy(), theirs[:, 1:], rtol=2e-4, atol=2e-5)
    assert bool((ours[:, 0] == -math.inf).all())


def test_prediction_never_reads_the_target_nor_the_session_id(build, dataset, evaluate):
    model, rows = build(), dataset.held_out_rows()
    scores = evaluate(model, rows)
    rows["item_id"] = torch.ones_like(rows["item_id"])
    rows["session_id"] = torch.ones_like(rows["session_id"])
    assert torch.equal(evaluate(model, rows), scores)
    del rows.interaction["item_id"], rows.interaction["session_id"]
    assert torch.equal(evaluate(model, rows), scores)


def test_padding_and_the_rest_of_the_batch_change_nothing(build, dataset, evaluate):
    model, rows = build(session_pool="mean"), dataset.inter_feat
    together = evaluate(model, rows)
    for row in range(len(rows)):
        torch.testing.assert_close(evaluate(model, rows[row : row + 1]), together[row : row + 1])


def test_items_without_neighbours_or_features_have_finite_scores(build, dataset, evaluate):
    for changes in ({}, {"gcn": "literal"}, {"preset": "paper", "gcn": "literal"}):
        model = build(**changes)
        loss = sum(model.calculate_loss(dataset.held_out_rows()))
        loss.backward()
        scores = evaluate(model, dataset.held_out_rows())
        assert bool(loss.isfinite()) and bool(scores[:, 1:].isfinite().all())
        for parameter in model.parameters():
            assert parameter.grad is None or float(parameter.grad.abs().max()) < 1e3


def test_the_graph_knows_nothing_of_test_sessions(build, make_dataset, dataset):
    tables = dataset.item_features.tables
    garbage = make_dataset(dataset.train, dataset.item_num, [[8, 8, 8], [1, 7]], tables, [6])
    honest, other = build(), build(data=garbage)
    # 3-4 and 4-8 occur in test sessions only.
    assert honest.graph.counts[4, 3] == 0 and honest.graph.counts[4, 8] == 0
    for (name, here), (_, there) in zip(honest.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(here, there), name
    assert torch.equal(
        honest.eval().item_tables()["candidates"], other.eval().item_tables()["candidates"]
    )
