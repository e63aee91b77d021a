"""Partners and strangers: lists, look-ups, draws."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recbole_mm.graph import pairs as graphs
from recbole_mm.graph.cooccurrence import ItemGraph, cooccurrence

from .conftest import graph, make_sessions, random_sessions


def test_pair_counts_equal_the_matrix():
    matrix = sp.random(20, 30, density=0.2, format="csr", random_state=0)
    pairs = graphs.PairCounts(matrix)
    rows, columns = torch.meshgrid(torch.arange(20), torch.arange(30), indexing="ij")
    expected = torch.from_numpy(matrix.toarray().astype(np.float32))
    assert torch.equal(pairs(rows, columns), expected)
    assert torch.equal(pairs(torch.tensor([[3], [4]]), torch.arange(30)), expected[3:5])


def test_pair_counts_of_an_empty_matrix_are_zero():
    pairs = graphs.PairCounts(sp.csr_matrix((4, 4)))
    assert pairs(torch.arange(4), torch.arange(4)).tolist() == [0, 0, 0, 0]


def test_pair_counts_by_unsorted_row_ids():
    pairs = graphs.PairCounts(sp.csr_matrix([[1, 0], [0, 2]]), np.array([70, 7]))
    asked = pairs(torch.tensor([70, 70, 7, 7, 8]), torch.tensor([0, 1, 0, 1, 1]))
    assert asked.tolist() == [1, 0, 0, 2, 0]


@pytest.mark.parametrize("count", ["set", "mult"])
def test_flags_by_hand(count):
    item_graph = graph(count)
    item_seq = torch.tensor([[1, 2], [1, 0], [2, 2], [1, 0], [2, 0]])
    target = torch.tensor([3, 2, 4, 2, 2])
    session = torch.tensor([1, 2, 3, 1, 3])
    pairs, own = item_graph.pairs(), item_graph.own()
    literal = graphs.cooccurrence_flags(item_seq, target, pairs)
    loo = graphs.cooccurrence_flags(item_seq, target, pairs, session, own)
    assert literal.int().tolist() == [1, 1, 1, 1, 0]
    assert loo.int().tolist() == [0, 1, 0, 1, 0]


def test_flags_of_sessions_outside_the_graph():
    item_graph = graph()
    item_seq, target = torch.tensor([[3], [4], [5]]), torch.tensor([2, 1, 2])
    session = torch.tensor([77, 78, 79])
    flags = graphs.cooccurrence_flags(
        item_seq, target, item_graph.pairs(), session, item_graph.own()
    )
    assert flags.tolist() == [True, False, False]


def test_a_repeated_target_is_no_cooccurrence_even_with_the_diagonal():
    item_graph = graph("set", diagonal=True)
    flags = graphs.cooccurrence_flags(torch.tensor([[2, 0]]), torch.tensor([2]), item_graph.pairs())
    assert flags.tolist() == [False]


# Lists and strangers


def test_neighbour_lists_by_hand():
    ids, counts = graphs.top_neighbours(graph("mult").counts, 2)
    assert ids.tolist() == [[0, 0], [2, 3], [1, 4], [1, 2], [2, 0], [0, 0]]
    assert counts.tolist() == [[0, 0], [2, 1], [2, 2], [1, 1], [2, 0], [0, 0]]
    ids, counts = graphs.top_neighbours(graph("set").counts, 2)
    assert ids[2].tolist() == [1, 3] and counts[2].tolist() == [2, 1]
    assert ids[4].tolist() == [2, 0] and counts[4].tolist() == [1, 0]


def test_an_item_is_not_its_own_neighbour():
    with_diagonal = graphs.top_neighbours(graph("set", True).counts, 3)
    without = graphs.top_neighbours(graph("set", False).counts, 3)
    np.testing.assert_array_equal(with_diagonal[0], without[0])
    np.testing.assert_array_equal(with_diagonal[1], without[1])


def test_neighbour_lists_equal_sorting_each_row():
    counts = cooccurrence(random_sessions(80, 30), 30)
    ids, _ = graphs.top_neighbours(counts, 6)
    for row, dense in enumerate(counts.toarray()):
        best = sorted((c for c in range(30) if dense[c]), key=lambda c: (-dense[c], c))[:6]
        assert ids[row].tolist() == best + [0] * (6 - len(best))


def test_sampled_strangers_never_met_the_anchor():
    pairs = graph().pairs()
    anchors = torch.tensor([1, 2, 4, 5])
    ids, valid = graphs.sample_strangers(anchors, 200, pairs)
    drawn = [set(row[ok].tolist()) for row, ok in zip(ids, valid, strict=True)]
    assert drawn == [{4, 5}, {5}, {1, 3, 5}, {1, 2, 3, 4}]
    assert ids.shape == (4, 200)
    # Item 2 has one stranger in five items: 20 rounds miss it with probability 0.8^20 = 1.2 %.
    assert bool(valid[[0, 2, 3]].float().mean() > 0.99) and 0.9 < valid[1].float().mean() <= 1


def test_sampled_strangers_are_drawn_evenly():
    ids, _ = graphs.sample_strangers(torch.full((1,), 4), 30_000, graph().pairs())
    share = torch.bincount(ids.flatten(), minlength=6)[[1, 3, 5]] / 30_000
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), rtol=0.05, atol=0)


def test_an_anchor_without_strangers_gets_no_valid_one():
    pairs = ItemGraph(make_sessions([[1, 2, 3]]), 4).pairs()
    _, valid = graphs.sample_strangers(torch.tensor([2]), 5, pairs)
    assert valid.tolist() == [[False] * 5]


def test_sampling_follows_the_generator_and_the_global_seed():
    pairs, anchors = graph().pairs(), torch.tensor([1, 4])
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(graphs.sample_strangers(anchors, 20, pairs)[0])
        state = torch.Generator().manual_seed(7)
        draws.append(graphs.sample_strangers(anchors, 20, pairs, state)[0])
    assert torch.equal(draws[0], draws[2]) and torch.equal(draws[1], draws[3])
    assert not torch.equal(draws[0], draws[1])


# Memory and state
