"""Counts, lists, flags and propagation against numbers worked out by hand.

Sessions S1 = [1, 2, 3], S2 = [1, 2], S3 = [2, 2, 4]; items 1..5, item 5 never occurs.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_mm.errors import ConfigError
from recbole_mm.graph import cooccurrence as graphs
from recbole_mm.graph import pairs
from recbole_mm.graph.propagation import (
    Adjacency,
    csr_matrix,
    inverse_degree,
    neighbour_mean,
    residual_propagate,
)

from .conftest import SESSIONS, graph, make_sessions, random_sessions, slow_counts

TABLE = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [3, -1]])


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
        pairs.sample_strangers(torch.arange(1, n_items), 10, item_graph.pairs())
        pairs.top_neighbours(item_graph.counts, 10)
    assert watch.seen >= 4 * n_items
    with pytest.raises(AssertionError, match="made a dense"), NoLargeTensor(n_items * n_items):
        item_graph.adjacency().counts.to_dense()


def test_the_graph_stays_out_of_the_state_dict():
    item_graph = graph()
    assert {name for name, _ in item_graph.named_buffers()} == {"crow", "col", "value", "degree"}
    assert item_graph.pairs() is item_graph.pairs()
    assert item_graph.state_dict() == {} and item_graph.own().state_dict() == {}


def test_the_pieces_of_an_adjacency_by_hand():
    degree = torch.tensor([[0.0], [1.0], [4.0]])
    torch.testing.assert_close(inverse_degree(degree), torch.tensor([[0.0], [1.0], [0.25]]))
    matrix = csr_matrix(torch.tensor([0, 0, 2, 3]), torch.tensor([0, 2, 1]), torch.ones(3))
    dense = torch.tensor([[0.0, 0, 0], [1, 0, 1], [0, 1, 0]])
    assert torch.equal(matrix.to_dense(), dense)
