"""Counts, lists, flags and propagation against numbers worked out by hand.

Sessions S1 = [1, 2, 3], S2 = [1, 2], S3 = [2, 2, 4]; items 1..5, item 5 never occurs.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_mm.data.sessions import Sessions
from recbole_mm.errors import ConfigError
from recbole_mm.graph import cooccurrence as graphs
from recbole_mm.graph.propagation import Adjacency, neighbour_mean, residual_propagate

TABLE = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [3, -1]])


def make_sessions(lists: list[list[int]], first_id: int = 1) -> Sessions:
    items = np.array([item for one in lists for item in one], dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in lists]))).astype(np.int64)
    ids = np.arange(first_id, first_id + len(lists), dtype=np.int64)
    return Sessions(ids, offsets, items, np.arange(len(items), dtype=np.float64))


SESSIONS = make_sessions([[1, 2, 3], [1, 2], [2, 2, 4]])


def random_sessions(n_sessions: int, n_items: int, seed: int = 0) -> Sessions:
    rng = np.random.default_rng(seed)
    return make_sessions(
        [list(rng.integers(1, n_items, rng.integers(1, 7))) for _ in range(n_sessions)]
    )


def slow_counts(sessions: Sessions, n_items: int, count: str, diagonal: bool) -> np.ndarray:
    """Count pair by pair, as the definition says."""
    dense = np.zeros((n_items, n_items))
    for start, stop in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True):
        held = list(sessions.items[start:stop])
        if count == "set":
            held = sorted(set(held))
        for a, left in enumerate(held):
            for b, right in enumerate(held):
                if left != right or (diagonal and (count == "mult" or a == b)):
                    dense[left, right] += 1
    return dense


def graph(count: str = "mult", diagonal: bool = False) -> graphs.ItemGraph:
    return graphs.ItemGraph(SESSIONS, 6, count, diagonal)


# Counts


@pytest.mark.parametrize(
    ("count", "diagonal", "pairs", "degree"),
    [
        ("mult", False, {(1, 2): 2, (1, 3): 1, (2, 3): 1, (2, 4): 2}, [0, 3, 5, 2, 2, 0]),
        ("set", False, {(1, 2): 2, (1, 3): 1, (2, 3): 1, (2, 4): 1}, [0, 3, 4, 2, 1, 0]),
        (
            "set",
            True,
            {(1, 1): 2, (2, 2): 3, (3, 3): 1, (4, 4): 1}
            | {(1, 2): 2, (1, 3): 1, (2, 3): 1, (2, 4): 1},
            [0, 5, 7, 3, 2, 0],
        ),
    ],
)
def test_counts_by_hand(count, diagonal, pairs, degree):
    expected = np.zeros((6, 6), dtype=np.float32)
    for (a, b), value in pairs.items():
        expected[a, b] = expected[b, a] = value

    counts = graphs.cooccurrence(SESSIONS, 6, count, diagonal)

    np.testing.assert_array_equal(counts.toarray(), expected)
    assert counts.dtype == np.float32 and counts.has_sorted_indices
    assert counts.nnz == np.count_nonzero(expected)
    assert graph(count, diagonal).degree.flatten().tolist() == degree


@pytest.mark.parametrize("count", ["set", "mult"])
@pytest.mark.parametrize("diagonal", [False, True])
def test_counts_equal_counting_pair_by_pair(count, diagonal):
    sessions = random_sessions(60, 25)
    counts = graphs.cooccurrence(sessions, 25, count, diagonal)
    np.testing.assert_array_equal(counts.toarray(), slow_counts(sessions, 25, count, diagonal))


def test_counts_do_not_touch_the_sessions_nor_depend_on_their_order():
    before = SESSIONS.items.copy(), SESSIONS.offsets.copy()
    shuffled = make_sessions([[4, 2, 2], [2, 1], [3, 1, 2]])
    for count in ("set", "mult"):
        here = graphs.cooccurrence(SESSIONS, 6, count)
        there = graphs.cooccurrence(shuffled, 6, count)
        assert (here != there).nnz == 0
    np.testing.assert_array_equal(SESSIONS.items, before[0])
    np.testing.assert_array_equal(SESSIONS.offsets, before[1])


def test_unknown_count_is_refused():
    with pytest.raises(ConfigError, match="'bag'.*'set' or 'mult'"):
        graphs.cooccurrence(SESSIONS, 6, "bag")


# Propagation


def test_row_normalised_graph():
    expected = [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 2 / 3, 1 / 3, 0, 0],
        [0, 0.4, 0, 0.2, 0.4, 0],
        [0, 0.5, 0.5, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    rows = neighbour_mean(torch.eye(6), graph().adjacency())
    torch.testing.assert_close(rows, torch.tensor(expected))


@pytest.mark.parametrize(
    ("count", "diagonal", "expected"),
    [
        ("mult", False, [(1 / 3, 1), (1.4, 0.2), (0.5, 0.5), (0, 1), (0, 0)]),
        ("set", False, [(1 / 3, 1), (1.25, 0.25), (0.5, 0.5), (0, 1), (0, 0)]),
        ("set", True, [(0.6, 0.6), (5 / 7, 4 / 7), (2 / 3, 2 / 3), (1, 0.5), (0, 0)]),
    ],
)
def test_neighbour_mean_by_hand(count, diagonal, expected):
    result = neighbour_mean(TABLE, graph(count, diagonal).adjacency())
    torch.testing.assert_close(result[1:], torch.tensor(expected))


RESIDUAL = {
    1: [(4 / 3, 1), (1.4, 1.2), (1.5, 1.5), (2, 1), (3, -1)],
    2: [(2.766667, 2.3), (3.033333, 2.3), (2.866667, 2.6), (3.4, 2.2), (3, -1)],
}


@pytest.mark.parametrize("n_layers", [1, 2])
def test_residual_propagation_by_hand(n_layers):
    adjacency = graph().adjacency()
    expected = torch.tensor(RESIDUAL[n_layers])
    plain = residual_propagate(TABLE, adjacency, n_layers)
    halved = residual_propagate(TABLE, adjacency, n_layers, keep=0.5, take=0.5)
    torch.testing.assert_close(plain[1:], expected)
    # Item 5 has no neighbours: its own half is all it keeps.
    torch.testing.assert_close(halved[1:], expected / 2**n_layers)


def test_literal_propagation_by_hand():
    weight = torch.tensor([[1.0, 1.0], [0.0, 2.0]])
    adjacency = graph().adjacency()
    once = neighbour_mean(TABLE @ weight, adjacency)
    twice = neighbour_mean(once @ weight, adjacency)
    first = [(1 / 3, 7 / 3), (1.4, 1.8), (0.5, 1.5), (0, 2), (0, 0)]
    second = [(1.1, 4.5), (0.233333, 4.3), (0.866667, 5), (1.4, 5), (0, 0)]
    torch.testing.assert_close(once[1:], torch.tensor(first))
    torch.testing.assert_close(twice[1:], torch.tensor(second))


def test_rows_of_the_propagation_sum_to_two_to_the_layers():
    ones = residual_propagate(torch.ones(6, 1), graph().adjacency(), 4)
    assert ones.flatten().tolist() == pytest.approx([1, 16, 16, 16, 16, 1], rel=1e-6)


def dense_step(counts: np.ndarray, keep: float, take: float) -> Tensor:
    degree = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, degree, out=np.zeros_like(counts), where=degree > 0)
    return torch.from_numpy(keep * np.eye(len(counts)) + take * share)


def as_double(adjacency: Adjacency) -> Adjacency:
    counts = adjacency.counts
    double = torch.sparse_csr_tensor(
        counts.crow_indices(),
        counts.col_indices(),
        counts.values().double(),
        size=counts.shape,
        check_invariants=True,
    )
    degree = counts.to_dense().double().sum(dim=1, keepdim=True)
    return Adjacency(double, torch.where(degree > 0, 1 / degree, 0.0))


@pytest.mark.parametrize("n_layers", [0, 1, 3])
@pytest.mark.parametrize(("keep", "take"), [(1.0, 1.0), (0.5, 0.5), (0.0, 1.0), (0.3, -0.7)])
def test_propagation_and_its_gradient_equal_dense_autograd(n_layers, keep, take):
    sessions = random_sessions(40, 30)
    item_graph = graphs.ItemGraph(sessions, 30)
    step = dense_step(slow_counts(sessions, 30, "set", False), keep, take)
    table = torch.randn(30, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(30, 5, dtype=torch.float64)

    ours = residual_propagate(table, as_double(item_graph.adjacency()), n_layers, keep, take)
    theirs = torch.linalg.matrix_power(step, n_layers) @ table

    torch.testing.assert_close(ours, theirs)
    (mine,) = torch.autograd.grad((ours * weight).sum(), table)
    (right,) = torch.autograd.grad((theirs * weight).sum(), table)
    torch.testing.assert_close(mine, right)


def test_propagation_passes_torchs_own_gradient_check():
    adjacency = as_double(graph().adjacency())
    table = TABLE.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: residual_propagate(x, adjacency, 3), (table,))


def test_propagation_saves_no_activation_for_backward():
    saved: list[Tensor] = []
    table = TABLE.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        residual_propagate(table, graph().adjacency(), 8)
    assert saved == []


def test_propagation_leaves_its_input_alone():
    table = TABLE.clone()
    residual_propagate(table, graph().adjacency(), 2)
    residual_propagate(table, graph().adjacency(), 2, keep=0.5, take=0.5)
    assert torch.equal(table, TABLE)


# Look-ups and flags


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
    counts = graphs.cooccurrence(random_sessions(80, 30), 30)
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
    pairs = graphs.ItemGraph(make_sessions([[1, 2, 3]]), 4).pairs()
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


class NoLargeTensor(TorchDispatchMode):
    """Fails as soon as a dense tensor of ``limit`` or more numbers comes out of an operation."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                self.seen = max(self.seen, tensor.numel())
                if tensor.numel() >= self.limit:
                    raise AssertionError(f"{func} made a dense {tuple(tensor.shape)}")
        return result


def test_nothing_of_the_size_items_by_items_is_made():
    n_items = 3000
    sessions = random_sessions(2000, n_items)
    with NoLargeTensor(n_items * n_items) as watch:
        item_graph = graphs.ItemGraph(sessions, n_items)
        table = torch.randn(n_items, 4, requires_grad=True)
        residual_propagate(table, item_graph.adjacency(), 3).sum().backward()
        graphs.sample_strangers(torch.arange(1, n_items), 10, item_graph.pairs())
        graphs.top_neighbours(item_graph.counts, 10)
    assert watch.seen >= 4 * n_items
    with pytest.raises(AssertionError, match="made a dense"), NoLargeTensor(n_items * n_items):
        item_graph.adjacency().counts.to_dense()


def test_the_graph_stays_out_of_the_state_dict():
    item_graph = graph()
    assert {name for name, _ in item_graph.named_buffers()} == {"crow", "col", "value", "degree"}
    assert item_graph.pairs() is item_graph.pairs()
    assert item_graph.state_dict() == {} and item_graph.own().state_dict() == {}
