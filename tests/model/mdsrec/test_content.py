"""Neighbours and groups by content: injection by hand, what is kept, who takes part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_mm.graph.distance import distance_cooccurrence, normalised
from recbole_mm.model.mdsrec import content
from recbole_mm.model.mdsrec.content import Shelf, cluster_items, groups, injected, neighbours

TRAIN = [[1, 2, 3], [3, 1, 4, 2]]
X = np.array([[0, 0], [2, 0], [1, 1], [0, 2], [2, 1]], np.float32)
NOWHERE = Shelf(None, "")
# 1 and 4 point one way, 2 and 3 the other.
APART = torch.tensor([[0.0, 0], [2, 0], [0, 2], [0, 2.1], [2.1, 0]])
PRESENT = torch.tensor([False, True, True, True, True])


@pytest.fixture
def graph(make_dataset):
    return distance_cooccurrence(make_dataset(TRAIN, 5).train_sessions, 5)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [[2.7, 1.1], [2, 1.733333], [1.066667, 2.366667], [2.6, 1.4]]),
        ("row", [[2.175, 0.275], [1.260870, 1.191304], [0.32, 2.11], [2.24, 1.16]]),
    ],
)
def test_features_are_injected(graph, how, expected):
    made = injected(X, normalised(graph, how), 0.2)
    np.testing.assert_allclose(made[1:], expected, atol=1e-6)
    assert made.dtype == np.float32 and not made[0].any()
    assert injected(X, graph, 0.0) is X


def test_an_item_without_features_gets_those_of_its_partners(graph):
    lacking = X.copy()
    lacking[1] = 0
    made = injected(lacking, normalised(graph, "row"), 0.2)
    np.testing.assert_allclose(made[1], 0.2 * (0.375 * X[2] + 0.375 * X[3] + 0.25 * X[4]), 1e-6)


def test_neighbours_follow_the_injected_features(graph):
    assert neighbours(X, 2, "auto", NOWHERE).tolist() == [[0, 0], [1, 4], [2, 4], [3, 2], [4, 2]]
    near = neighbours(injected(X, graph, 0.2), 2, "auto", NOWHERE)
    assert near[1:].tolist() == [[1, 4], [2, 4], [3, 2], [4, 1]]
    assert neighbours(X, 1, "auto", NOWHERE).tolist() == [[0], [1], [2], [3], [4]]
    assert neighbours(X, 0, "auto", NOWHERE).shape == (5, 0)


def never(*args: object, **keys: object) -> None:
    raise AssertionError("computed again")


def test_neighbours_are_found_on_the_disk_for_any_other_number(tmp_path, monkeypatch):
    shelf = Shelf(tmp_path, "toy.text")
    first = neighbours(X, 2, "auto", shelf)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == 1 and kept[0].startswith("toy.text.neighbours.")
    monkeypatch.setattr(content, "nearest_items", never)
    np.testing.assert_array_equal(neighbours(X, 2, "auto", shelf), first)
    np.testing.assert_array_equal(neighbours(X, 4, "auto", shelf)[:, :2], first)
    for vectors, other in ((X + 1, shelf), (X, NOWHERE)):
        with pytest.raises(AssertionError, match="computed again"):
            neighbours(vectors, 2, "auto", other)
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_more_neighbours_than_were_kept_are_computed_anew(tmp_path, monkeypatch):
    shelf = Shelf(tmp_path, "toy.text")
    monkeypatch.setattr(content, "_KEPT", 1)
    assert neighbours(X, 2, "auto", shelf)[1].tolist() == [1, 4]
    assert neighbours(X, 3, "auto", shelf)[1].tolist() == [1, 4, 2]


def test_groups_are_kept_by_seed_and_number(tmp_path, monkeypatch):
    shelf = Shelf(tmp_path, "toy.text")
    labels = groups(APART, PRESENT, 2, 1, shelf)
    assert labels[0] == -1 and labels[1] == labels[4] != labels[2] == labels[3]
    monkeypatch.setattr(content, "cluster_items", never)
    np.testing.assert_array_equal(groups(APART, PRESENT, 2, 1, shelf), labels)
    for features, count, seed in ((APART, 2, 2), (APART, 3, 1), (APART + 1, 2, 1)):
        with pytest.raises(AssertionError, match="computed again"):
            groups(features, PRESENT, count, seed, shelf)


def test_items_are_grouped_by_likeness():
    points = torch.tensor([[5.0, 5.0], [0, 0], [0, 1], [10, 10], [10, 11], [99, 99]])
    present = torch.tensor([False, True, True, True, True, False])
    labels = cluster_items(points, present, 2, seed=1)
    assert labels.dtype == np.int32 and labels[0] == labels[5] == -1
    assert labels[1] == labels[2] != labels[3] == labels[4]
    assert set(labels[1:5]) == {0, 1}
    np.testing.assert_array_equal(labels, cluster_items(points, present, 2, seed=1))


def test_no_group_is_empty_when_few_items_differ(caplog):
    points = torch.tensor([[1.0, 0]] * 4 + [[0.0, 1]] * 3)
    labels = cluster_items(points, torch.arange(7) > 0, 5, seed=0)
    assert set(labels[1:]) == {0, 1} and labels[0] == -1
    assert "2 groups instead of 5" in caplog.text
    assert (cluster_items(points, torch.zeros(7, dtype=torch.bool), 5, seed=0) == -1).all()
