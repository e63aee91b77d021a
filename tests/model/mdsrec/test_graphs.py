"""MDSRec's graphs as modules, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_mm.graph import distance as content_graphs
from recbole_mm.graph import nearest
from recbole_mm.graph.distance import distance_cooccurrence, normalised
from recbole_mm.model.mdsrec.graphs import CenterPool, ContentSource, Injection, NeighbourSum

TRAIN = [[1, 2, 3], [3, 1, 4, 2]]
W = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1], [2, -1]])
RAW = np.array([[0, 0], [1, 4], [2, 4], [3, 2], [4, 2]])


@pytest.fixture
def graph(make_dataset):
    return distance_cooccurrence(make_dataset(TRAIN, 5).train_sessions, 5)


INJECTED = {
    "none": [[57, 32], [77.333336, 6.333333], [41, 14.333333], [26, 23]],
    "row": [[15, 8], [20.173913, 2.391304], [13, 5], [11.6, 8.6]],
}


@pytest.mark.parametrize("norm", INJECTED)
@pytest.mark.parametrize("lazy", ["always", "never", "auto"])
def test_injection_by_hand(graph, norm, lazy):
    module = Injection(graph, norm, 16.0, lazy=lazy)
    expected = torch.tensor([[0.0, 0], *INJECTED[norm]])
    torch.testing.assert_close(module(W), expected)
    torch.testing.assert_close(module.of(W, torch.tensor([3, 1])), expected[[3, 1]])
    item_seq = torch.tensor([[1, 4, 1, 0], [2, 0, 0, 0]])
    torch.testing.assert_close(module.at(W, item_seq), expected[item_seq])


@pytest.mark.parametrize("norm", ["none", "row", "sym"])
@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("lazy", ["always", "never"])
def test_injection_and_its_gradient_are_those_of_a_dense_matrix(make_dataset, norm, directed, lazy):
    sessions = make_dataset(TRAIN, 5).train_sessions
    matrix = distance_cooccurrence(sessions, 5, directed=directed)
    table = W.double().float().requires_grad_()
    dense = torch.from_numpy(normalised(matrix, norm).toarray())
    module = Injection(matrix, norm, 3.0, directed=directed, lazy=lazy)
    item_seq = torch.tensor([[1, 4, 2], [2, 3, 0]])
    weight = torch.arange(12.0).view(2, 3, 2)
    (module.at(table, item_seq) * weight).sum().backward()
    made, table.grad = table.grad.clone(), None
    whole = 3.0 * dense @ table + table
    (whole[item_seq] * weight * (item_seq > 0).unsqueeze(2)).sum().backward()
    torch.testing.assert_close(made, table.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(module.eval()(table), whole, rtol=1e-5, atol=1e-5)


def test_rows_are_looked_up_where_that_is_cheaper(make_dataset):
    # Items 1 and 2 meet only each other; the others meet a great many.
    lists = [[1, 2], list(range(3, 40))]
    matrix = distance_cooccurrence(make_dataset(lists, 40).train_sessions, 40)
    module = Injection(matrix, "none", 1.0)
    assert module._pays(torch.tensor([1, 2]))
    assert not module._pays(torch.arange(3, 40))


def test_dropped_pairs_are_drawn_while_training_and_made_up_for(graph):
    module = Injection(graph, "none", 16.0, dropout=0.5)
    module.eval()
    torch.testing.assert_close(module(W), torch.tensor([[0.0, 0], *INJECTED["none"]]))
    module.train()
    torch.manual_seed(0)
    drawn = torch.stack([module(W) for _ in range(4000)])
    assert len({tuple(one.flatten().tolist()) for one in drawn}) > 100
    expected = torch.tensor([[0.0, 0], *INJECTED["none"]])
    torch.testing.assert_close(drawn.mean(dim=0), expected, rtol=0.05, atol=0.7)
    torch.manual_seed(0)
    torch.testing.assert_close(module(W), drawn[0])


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
    torch.testing.assert_close(NeighbourSum(RAW, "mean")(W), made.detach() / 2)


def test_hubs_weigh_less_in_the_symmetric_sum():
    # Item 2 is a neighbour of three items, 4 of three, 1 and 3 of one each.
    made = NeighbourSum(RAW, "sym")(W)
    expected = W[3] / 2**0.5 + W[2] / 6**0.5
    torch.testing.assert_close(made[3], expected)
    torch.testing.assert_close(made[1], W[1] / 2**0.5 + W[4] / 6**0.5)


def test_hops_and_lists_that_are_not_full():
    once = NeighbourSum(RAW)(W)
    torch.testing.assert_close(NeighbourSum(RAW, hops=2)(W), NeighbourSum(RAW)(once))
    short = RAW.copy()
    short[4, 1] = 0
    assert NeighbourSum(short, "mean")(W)[4].tolist() == [2, -1]
    dirty = W.clone()
    dirty[0] = 9.0
    torch.testing.assert_close(NeighbourSum(short)(dirty), NeighbourSum(short)(W))


def test_no_neighbours_leave_the_vectors_as_they_are():
    dirty = W.clone()
    dirty[0] = 9.0
    torch.testing.assert_close(NeighbourSum(RAW[:, :0])(dirty), W)


@pytest.mark.parametrize(
    ("how", "expected"), [("mean", [[2.5, -0.5], [1.5, 1]]), ("sum", [[5, -1], [3, 2]])]
)
def test_centres_are_pooled_by_hand(how, expected):
    table = NeighbourSum(RAW)(W)
    pool = CenterPool(np.array([-1, 0, 1, 1, 0]), how)
    torch.testing.assert_close(pool(table), torch.tensor(expected, dtype=torch.float32))
    lacking = CenterPool(np.array([-1, 0, 1, -1, 0]), how)
    assert lacking(table)[1].tolist() == [2, 0]


def test_what_is_kept_in_checkpoints(graph):
    assert not Injection(graph, "none", 16.0).state_dict()
    kept = {**NeighbourSum(RAW).state_dict(), **CenterPool(np.array([-1, 0, 1])).state_dict()}
    assert {name: value.dtype for name, value in kept.items()} == {
        "neighbours": torch.int32,
        "labels": torch.int32,
    }


FEATURES = torch.tensor([[0.0, 0], [2, 0], [1, 1], [0, 2], [2, 1]])
PRESENT = torch.tensor([False, True, True, True, True])
DEFAULTS = {
    "dataset": "toy", "seed": 1, "kappa_modal": 0.2, "feat_center": False, "graph_cache": True,
    "n_neighbors": 2, "knn_self": "count", "knn_backend": "auto", "n_centers": 2,
    "kmeans_input": "raw", "kmeans_normalize": False,
}  # fmt: skip


def source(folder, graph=None, features=FEATURES, **changes):
    config = {**DEFAULTS, "feature_path": str(folder), **changes}
    return ContentSource(config, "text", features, PRESENT, graph)


def test_neighbours_follow_the_injected_features(tmp_path, graph):
    assert source(tmp_path).neighbours()[1:].tolist() == RAW[1:].tolist()
    near = source(tmp_path, graph).neighbours()
    assert near[1:].tolist() == [[1, 4], [2, 4], [3, 2], [4, 1]]
    assert source(tmp_path, graph, kappa_modal=0.0).neighbours()[4].tolist() == [4, 2]
    assert source(tmp_path, n_neighbors=0).neighbours().shape == (5, 0)


def test_centring_takes_the_mean_of_the_items_with_features_off(tmp_path):
    lacking = FEATURES.clone()
    lacking[4] = 0
    present = torch.tensor([False, True, True, True, False])
    config = {**DEFAULTS, "feature_path": str(tmp_path), "feat_center": True}
    made = ContentSource(config, "text", lacking, present, None)
    np.testing.assert_allclose(made.vectors, [[0, 0], [1, -1], [0, 0], [-1, 1], [0, 0]])


def test_neighbours_are_found_on_the_disk_for_any_smaller_number(tmp_path, monkeypatch):
    source(tmp_path).neighbours()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == 1 and kept[0].startswith("toy.text.neighbours.")

    def never(*args, **keys):
        raise AssertionError("computed again")

    monkeypatch.setattr(nearest, "nearest_items", never)
    assert source(tmp_path).neighbours()[1:].tolist() == RAW[1:].tolist()
    assert source(tmp_path, n_neighbors=3, knn_self="extra").neighbours().shape == (5, 4)
    for changed in ({"features": FEATURES + 1}, {"graph_cache": False}):
        with pytest.raises(AssertionError, match="computed again"):
            source(tmp_path, **changed).neighbours()
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_another_graph_is_another_table(tmp_path, graph):
    source(tmp_path, graph).neighbours()
    source(tmp_path, normalised(graph, "row")).neighbours()
    source(tmp_path, graph, kappa_modal=0.3).neighbours()
    assert len(list(tmp_path.iterdir())) == 3


def test_groups_are_kept_by_seed_and_number(tmp_path, monkeypatch, graph):
    # 1 and 4 point one way, 2 and 3 the other.
    apart = torch.tensor([[0.0, 0], [2, 0], [0, 2], [0, 2.1], [2.1, 0]])
    labels = source(tmp_path, features=apart).groups()
    assert labels[0] == -1 and labels[1] == labels[4] != labels[2] == labels[3]
    monkeypatch.setattr(content_graphs, "cluster_items", lambda *args: np.array([len(args)]))
    np.testing.assert_array_equal(source(tmp_path, features=apart).groups(), labels)
    for changed in ({"seed": 2}, {"n_centers": 3}, {"kmeans_normalize": True}):
        assert len(source(tmp_path, features=apart, **changed).groups()) == 1
    injected = source(tmp_path, graph, features=apart, kmeans_input="injected")
    assert len(injected.groups()) == 1


def test_groups_leave_out_items_without_features(tmp_path, graph):
    lacking = FEATURES.clone()
    lacking[2] = 0
    present = torch.tensor([False, True, False, True, True])
    config = {**DEFAULTS, "feature_path": str(tmp_path)}
    assert ContentSource(config, "text", lacking, present, graph).groups()[2] == -1
    config["kmeans_input"] = "injected"
    # Injection gives it a vector, and so a group.
    assert ContentSource(config, "text", lacking, present, graph).groups()[2] >= 0
