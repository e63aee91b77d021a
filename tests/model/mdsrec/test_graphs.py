"""MDSRec's graphs as modules, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_mm.graph.distance import distance_cooccurrence, normalised
from recbole_mm.model.mdsrec import graphs
from recbole_mm.model.mdsrec.graphs import FeatureMap, Injection, NeighbourSum

TRAIN = [[1, 2, 3], [3, 1, 4, 2]]
W = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [2, -1]])
RAW = np.array([[0, 0], [1, 4], [2, 4], [3, 2], [4, 2]])


@pytest.fixture
def graph(make_dataset):
    return distance_cooccurrence(make_dataset(TRAIN, 5).train_sessions, 5)


@pytest.fixture(params=["rows of the batch", "all rows"])
def way(request, monkeypatch):
    """The way that injection at the positions of sessions takes."""
    monkeypatch.setattr(graphs, "_LOOKUP_COST", 0 if request.param == "rows of the batch" else 1e9)


INJECTED = {
    "none": [[57, 32], [77.333336, 6.333333], [41, 14.333333], [26, 23]],
    "row": [[15, 8], [20.173913, 2.391304], [13, 5], [11.6, 8.6]],
}


@pytest.mark.parametrize("norm", INJECTED)
@pytest.mark.usefixtures("way")
def test_injection_by_hand(graph, norm):
    module = Injection(graph, norm, 16.0)
    expected = torch.tensor([[0.0, 0], *INJECTED[norm]])
    torch.testing.assert_close(module(W), expected)
    torch.testing.assert_close(module.of(W, torch.tensor([3, 1])), expected[[3, 1]])
    item_seq = torch.tensor([[1, 4, 1, 0], [2, 0, 0, 0]])
    torch.testing.assert_close(module.at(W, item_seq), expected[item_seq])


@pytest.mark.parametrize("norm", ["none", "row", "sym"])
@pytest.mark.usefixtures("way")
def test_injection_and_its_gradient_are_those_of_a_dense_matrix(graph, norm):
    table = W.clone().requires_grad_()
    dense = torch.from_numpy(normalised(graph, norm).toarray())
    module = Injection(graph, norm, 3.0)
    item_seq = torch.tensor([[1, 4, 2], [2, 3, 0]])
    weight = torch.arange(12.0).view(2, 3, 2)
    (module.at(table, item_seq) * weight).sum().backward()
    made, table.grad = table.grad.clone(), None
    whole = 3.0 * dense @ table + table
    (whole[item_seq] * weight * (item_seq > 0).unsqueeze(2)).sum().backward()
    torch.testing.assert_close(made, table.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module(table), whole, rtol=1e-5, atol=1e-5)


def test_rows_are_looked_up_where_that_is_cheaper(make_dataset):
    # Items 1 and 2 meet only each other; the others meet a great many.
    lists = [[1, 2], list(range(3, 40))]
    matrix = distance_cooccurrence(make_dataset(lists, 40).train_sessions, 40)
    module = Injection(matrix, "none", 1.0)
    assert module._pays(torch.tensor([1, 2]))
    assert not module._pays(torch.arange(3, 40))


def test_an_item_without_partners_keeps_its_vector(make_dataset):
    matrix = distance_cooccurrence(make_dataset(TRAIN, 6).train_sessions, 6)
    table = torch.cat([W, torch.tensor([[3.0, 4.0]])])
    for norm in ("none", "row", "sym"):
        module = Injection(matrix, norm, 16.0)
        torch.testing.assert_close(module(table)[5], table[5])
        torch.testing.assert_close(module.of(table, torch.tensor([5]))[0], table[5])


def test_sum_over_neighbours_by_hand():
    table = W.clone().requires_grad_()
    made = NeighbourSum(RAW)(table)
    torch.testing.assert_close(made, torch.tensor([[0.0, 0], [3, -1], [2, 0], [1, 2], [2, 0]]))
    made[3].sum().backward()
    # Item 3 is the sum of 3 and 2; padding gets no gradient.
    assert table.grad.abs().sum(dim=1).tolist() == [0, 0, 2, 2, 0]


def test_lists_that_are_not_full():
    short = RAW.copy()
    short[4, 1] = 0
    assert NeighbourSum(short)(W)[4].tolist() == [2, -1]
    dirty = W.clone()
    dirty[0] = 9.0
    torch.testing.assert_close(NeighbourSum(short)(dirty), NeighbourSum(short)(W))


def test_no_neighbours_leave_the_vectors_as_they_are():
    dirty = W.clone()
    dirty[0] = 9.0
    torch.testing.assert_close(NeighbourSum(RAW[:, :0])(dirty), W)


def test_a_map_of_the_features_ignores_the_id():
    features = torch.tensor([[0.0, 0, 0], [1, 2, 3], [4, 5, 6]], dtype=torch.float64)
    module = FeatureMap(features, 2)
    with torch.no_grad():
        module.project.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
    for table in (W, W + 1):
        assert module(table).tolist() == [[0, 0], [1, 5], [4, 11]]


def test_what_is_kept_in_checkpoints(graph):
    assert not Injection(graph, "none", 16.0).state_dict()
    assert list(FeatureMap(W, 2).state_dict()) == ["project.weight"]
    kept = NeighbourSum(RAW).state_dict()
    assert {name: value.dtype for name, value in kept.items()} == {"neighbours": torch.int32}
