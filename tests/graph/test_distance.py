"""Co-occurrence by distance, against numbers worked out by hand."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recbole_mm.data.sessions import Sessions, make_rows
from recbole_mm.graph import distance
from recbole_mm.graph.distance import distance_cooccurrence, heaviest, normalised, prune

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


def by_hand(lists, n_items, weight="inv_distance", window=0):
    """Pair by pair, as the definition says."""
    table = np.zeros((n_items, n_items))
    for one in lists:
        for p, q in combinations(range(len(one)), 2):
            if one[p] != one[q] and (not window or q - p <= window):
                value = 1 / (q - p) if weight == "inv_distance" else 1
                table[one[p], one[q]] += value
                table[one[q], one[p]] += value
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
    ("one", "expected"),
    [([1, 2, 1], {(1, 2): 2}), ([1, 2, 3, 1], {(1, 2): 1.5, (1, 3): 1.5, (2, 3): 1})],
)
def test_all_positions_of_a_repeated_item_count(one, expected):
    matrix = distance_cooccurrence(sessions([one]), 5)
    np.testing.assert_allclose(matrix.toarray(), dense(expected), rtol=1e-6)


def test_longer_sessions_would_give_other_numbers():
    # The same two shoppers with their validation and test items: what must never be seen.
    leaky = distance_cooccurrence(sessions([[1, 2, 3, 4, 2], [3, 1, 4, 2, 1, 3]]), 5)
    expected = {(1, 2): 2.75, (1, 3): 3, (1, 4): 11 / 6, (2, 3): 7 / 3, (2, 4): 2.5, (3, 4): 11 / 6}
    np.testing.assert_allclose(leaky.toarray(), dense(expected), rtol=1e-6)


lists_of_items = st.lists(
    st.lists(st.integers(1, 6), min_size=1, max_size=7), min_size=1, max_size=5
)


@given(lists_of_items, st.sampled_from(["inv_distance", "count"]), st.integers(0, 4))
def test_any_sessions_in_any_blocks(lists, weight, window):
    switches = {"weight": weight, "window": window}
    expected = by_hand(lists, 7, **switches)
    whole, distance._BLOCK_PAIRS = distance._BLOCK_PAIRS, 2
    try:
        cut = distance_cooccurrence(sessions(lists), 7, **switches)
    finally:
        distance._BLOCK_PAIRS = whole
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
    assert prune(matrix, top=0) is matrix


def test_the_heaviest_of_each_row_by_hand():
    rows = np.array([[0, 2, 5, 2], [0, 0, 0, 0], [1, 1, 1, 1], [3, 0, 0, 0]], dtype=float)
    two = [[0, 2, 5, 0], [0, 0, 0, 0], [1, 1, 0, 0], [3, 0, 0, 0]]
    one = [[0, 0, 5, 0], [0, 0, 0, 0], [1, 0, 0, 0], [3, 0, 0, 0]]
    for top, expected in ((1, one), (2, two), (3, [rows[0], rows[1], [1, 1, 1, 0], rows[3]])):
        np.testing.assert_array_equal(heaviest(sp.csr_matrix(rows), top).toarray(), expected)
    assert heaviest(sp.csr_matrix(rows), 0).nnz == 8
