"""Co-occurrence by distance, injection and groups, against numbers worked out by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_mm.data.sessions import Sessions, make_rows
from recbole_mm.graph import distance as content_graphs
from recbole_mm.graph.distance import (
    cluster_items,
    distance_cooccurrence,
    injected,
    normalised,
    prune,
)

TRAIN = [[1, 2, 3], [3, 1, 4, 2]]
NEAR = {(1, 2): 1.5, (1, 3): 1.5, (1, 4): 1, (2, 3): 4 / 3, (2, 4): 1, (3, 4): 0.5}


def sessions(lists: list[list[int]]) -> Sessions:
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in lists]))).astype(np.int64)
    items = np.array([item for one in lists for item in one], dtype=np.int64)
    return Sessions(np.arange(len(lists)), offsets, items, np.arange(len(items), dtype=float))


def dense(weights: dict[tuple[int, int], float], n_items: int = 5) -> np.ndarray:
    table = np.zeros((n_items, n_items))
    for (left, right), weight in weights.items():
        table[left, right] = table[right, left] = weight
    return table


def by_hand(lists, n_items, weight="inv_distance", repeat="sum", window=0, directed=False):
    """Pair by pair, as the definition says."""
    table = np.zeros((n_items, n_items))
    for one in lists:
        pairs: dict[tuple[int, int], list[int]] = {}
        for p, q in combinations(range(len(one)), 2):
            key = (one[p], one[q]) if directed else tuple(sorted((one[p], one[q])))
            if one[p] != one[q] and (not window or q - p <= window):
                pairs.setdefault(key, []).append(q - p)
        for (left, right), distances in pairs.items():
            kept = [min(distances)] if repeat == "min" else distances
            value = sum(1 / d if weight == "inv_distance" else 1 for d in kept)
            table[left, right] += value
            table[right, left] += 0 if directed else value
    return table


def test_nearness_is_summed_over_pairs_of_positions():
    matrix = distance_cooccurrence(sessions(TRAIN), 5)
    assert matrix.dtype == np.float32 and matrix.has_sorted_indices
    np.testing.assert_allclose(matrix.toarray(), dense(NEAR), rtol=1e-6)
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums, [0, 4, 23 / 6, 10 / 3, 2.5], rtol=1e-6)


def test_it_is_what_prefix_rows_with_their_targets_give():
    rows = make_rows(sessions(TRAIN), "all_prefixes", 50)
    table = np.zeros((5, 5))
    for history, length, target in zip(rows.history, rows.length, rows.target, strict=True):
        for place, item in enumerate(history[:length]):
            if item != target:
                table[item, target] += 1 / (length - place)
                table[target, item] += 1 / (length - place)
    np.testing.assert_allclose(table, distance_cooccurrence(sessions(TRAIN), 5).toarray(), 1e-6)


def test_a_window_leaves_far_pairs_out():
    matrix = distance_cooccurrence(sessions(TRAIN), 5, window=2)
    np.testing.assert_allclose(matrix.toarray(), dense({**NEAR, (2, 3): 1}), rtol=1e-6)


def test_counts_instead_of_nearness():
    counts = {(1, 2): 2, (1, 3): 2, (1, 4): 1, (2, 3): 2, (2, 4): 1, (3, 4): 1}
    matrix = distance_cooccurrence(sessions(TRAIN), 5, weight="count")
    np.testing.assert_array_equal(matrix.toarray(), dense(counts))


@pytest.mark.parametrize(
    ("one", "repeat", "expected"),
    [
        ([1, 2, 1], "sum", {(1, 2): 2}),
        ([1, 2, 1], "min", {(1, 2): 1}),
        ([1, 2, 3, 1], "sum", {(1, 2): 1.5, (1, 3): 1.5, (2, 3): 1}),
        ([1, 2, 3, 1], "min", {(1, 2): 1, (1, 3): 1, (2, 3): 1}),
    ],
)
def test_repeated_items(one, repeat, expected):
    matrix = distance_cooccurrence(sessions([one]), 5, repeat=repeat)
    np.testing.assert_allclose(matrix.toarray(), dense(expected), rtol=1e-6)


def test_the_nearest_pair_is_chosen_session_by_session():
    matrix = distance_cooccurrence(sessions([[1, 3, 2], [1, 2]]), 5, repeat="min")
    assert matrix[1, 2] == pytest.approx(1.5)


def test_direction_keeps_what_follows():
    matrix = distance_cooccurrence(sessions([[1, 2, 3]]), 5, directed=True).toarray()
    expected = np.zeros((5, 5))
    expected[1, 2], expected[1, 3], expected[2, 3] = 1, 0.5, 1
    np.testing.assert_allclose(matrix, expected)


def test_longer_sessions_would_give_other_numbers():
    # The same two shoppers with their validation and test items: what must never be seen.
    leaky = distance_cooccurrence(sessions([[1, 2, 3, 4, 2], [3, 1, 4, 2, 1, 3]]), 5)
    expected = {(1, 2): 2.75, (1, 3): 3, (1, 4): 11 / 6, (2, 3): 7 / 3, (2, 4): 2.5, (3, 4): 11 / 6}
    np.testing.assert_allclose(leaky.toarray(), dense(expected), rtol=1e-6)


lists_of_items = st.lists(
    st.lists(st.integers(1, 6), min_size=1, max_size=7), min_size=1, max_size=5
)


@given(
    lists_of_items,
    st.sampled_from(["inv_distance", "count"]),
    st.sampled_from(["sum", "min"]),
    st.integers(0, 4),
    st.booleans(),
)
def test_any_sessions_in_any_blocks(lists, weight, repeat, window, directed):
    switches = {"weight": weight, "repeat": repeat, "window": window, "directed": directed}
    expected = by_hand(lists, 7, **switches)
    whole, content_graphs._BLOCK_PAIRS = content_graphs._BLOCK_PAIRS, 2
    try:
        cut = distance_cooccurrence(sessions(lists), 7, **switches)
    finally:
        content_graphs._BLOCK_PAIRS = whole
    np.testing.assert_allclose(cut.toarray(), expected, rtol=1e-6)
    again = distance_cooccurrence(sessions(lists), 7, **switches)
    np.testing.assert_allclose(again.toarray(), expected, rtol=1e-6)


def test_rows_and_both_sides_are_normalised():
    matrix = distance_cooccurrence(sessions(TRAIN), 5)
    row = normalised(matrix, "row").toarray()
    np.testing.assert_allclose(row[1], [0, 0, 0.375, 0.375, 0.25], atol=1e-6)
    np.testing.assert_allclose(row[2], [0, 0.391304, 0, 0.347826, 0.260870], atol=1e-6)
    np.testing.assert_allclose(row[3], [0, 0.45, 0.4, 0, 0.15], atol=1e-6)
    np.testing.assert_allclose(row[4], [0, 0.4, 0.4, 0.2, 0], atol=1e-6)
    both = {
        (1, 2): 0.383065, (1, 3): 0.410792, (1, 4): 0.316228,
        (2, 3): 0.373002, (2, 4): 0.323029, (3, 4): 0.173205,
    }  # fmt: skip
    np.testing.assert_allclose(normalised(matrix, "sym").toarray(), dense(both), atol=1e-6)
    assert normalised(matrix, "none") is matrix


def test_weights_below_one_are_normalised_too_and_empty_rows_stay_empty():
    matrix = distance_cooccurrence(sessions([[1, 4, 4, 2]]), 6, window=3)
    matrix = prune(matrix, min_weight=0.0)
    row = normalised(matrix, "row")
    sums = np.asarray(row.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums, [0, 1, 1, 0, 1, 0], atol=1e-6)
    lone = normalised(sp.csr_matrix(np.array([[0, 0.25], [0.25, 0]], np.float32)), "row")
    np.testing.assert_allclose(lone.toarray(), [[0, 1], [1, 0]])


def test_pruning_keeps_a_pair_that_is_strong_for_either_item():
    matrix = distance_cooccurrence(sessions(TRAIN), 5)
    # The heaviest pairs: 1-2 (of 1 and 2), 1-3 (of 3), 1-4 (of 4, the tie with 2-4 by id).
    kept = prune(matrix, top=1).toarray()
    np.testing.assert_allclose(kept, dense({(1, 2): 1.5, (1, 3): 1.5, (1, 4): 1}), rtol=1e-6)
    light = prune(matrix, min_weight=1.0)
    np.testing.assert_allclose(light.toarray(), dense({**NEAR, (3, 4): 0}), rtol=1e-6)
    assert light.nnz == 10 and prune(matrix).nnz == matrix.nnz


X = np.array([[0, 0], [2, 0], [1, 1], [0, 2], [2, 1]], np.float32)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [[2.7, 1.1], [2, 1.733333], [1.066667, 2.366667], [2.6, 1.4]]),
        ("row", [[2.175, 0.275], [1.260870, 1.191304], [0.32, 2.11], [2.24, 1.16]]),
    ],
)
def test_features_are_injected(how, expected):
    graph = normalised(distance_cooccurrence(sessions(TRAIN), 5), how)
    made = injected(X, graph, 0.2)
    np.testing.assert_allclose(made[1:], expected, atol=1e-6)
    assert made.dtype == np.float32 and not made[0].any()
    assert injected(X, graph, 0.0) is X


def test_an_item_without_features_gets_those_of_its_partners():
    lacking = X.copy()
    lacking[1] = 0
    graph = normalised(distance_cooccurrence(sessions(TRAIN), 5), "row")
    made = injected(lacking, graph, 0.2)
    np.testing.assert_allclose(made[1], 0.2 * (0.375 * X[2] + 0.375 * X[3] + 0.25 * X[4]), 1e-6)


def test_items_are_grouped_by_likeness():
    points = torch.tensor([[5.0, 5.0], [0, 0], [0, 1], [10, 10], [10, 11], [99, 99]])
    present = torch.tensor([False, True, True, True, True, False])
    labels = cluster_items(points, present, 2, seed=1)
    assert labels.dtype == np.int32 and labels[0] == labels[5] == -1
    assert labels[1] == labels[2] != labels[3] == labels[4]
    assert set(labels[1:5]) == {0, 1}
    np.testing.assert_array_equal(labels, cluster_items(points, present, 2, seed=1))


def test_items_can_be_grouped_by_direction():
    points = torch.tensor([[0.0, 0], [1, 0], [9, 0.1], [0, 1], [0.1, 9]])
    present = torch.tensor([False, True, True, True, True])
    near = cluster_items(points, present, 2, seed=1)
    like = cluster_items(points, present, 2, seed=1, on_sphere=True)
    assert like[1] == like[2] != like[3] == like[4]
    assert not (near[1] == near[2] and near[3] == near[4])


def test_no_group_is_empty_when_few_items_differ(caplog):
    points = torch.tensor([[1.0, 0]] * 4 + [[0.0, 1]] * 3)
    labels = cluster_items(points, torch.arange(7) > 0, 5, seed=0)
    assert set(labels[1:]) == {0, 1} and labels[0] == -1
    assert "2 groups instead of 5" in caplog.text
    assert (cluster_items(points, torch.zeros(7, dtype=torch.bool), 5, seed=0) == -1).all()
