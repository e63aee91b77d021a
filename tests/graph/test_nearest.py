"""Neighbours by cosine: numbers by hand, tiles, ties, gaps, and the approximate search."""

from __future__ import annotations

import builtins
import importlib

import numpy as np
import pytest
import torch

from recbole_mm.errors import ConfigError
from recbole_mm.graph import nearest
from recbole_mm.graph.nearest import nearest_items, neighbour_table, overlap

X = torch.tensor([[0.0, 0], [2, 0], [1, 1], [0, 2], [2, 1]])


def lists(vectors: torch.Tensor, count: int) -> list[list[int]]:
    others = nearest_items(vectors, count)
    return neighbour_table(others, count)[1:].tolist()


def by_hand(vectors: np.ndarray, count: int) -> np.ndarray:
    """Every cosine, sorted as a whole."""
    norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-30)
    unit = vectors / norms[:, None]
    found = np.zeros((len(vectors), count), np.int32)
    alive = [i for i in range(1, len(vectors)) if np.abs(vectors[i]).sum() > 0]
    for i in alive:
        ranked = sorted((-round(float(unit[i] @ unit[j]), 6), j) for j in alive if j != i)
        best = [j for _, j in ranked[:count]]
        found[i, : len(best)] = best
    return found


def test_neighbours_of_plain_features():
    assert lists(X, 2) == [[1, 4], [2, 4], [3, 2], [4, 2]]
    assert nearest_items(X, 1)[1:].tolist() == [[4], [4], [2], [2]]
    assert lists(X, 1) == [[1], [2], [3], [4]]


@pytest.mark.parametrize(
    ("injected", "expected"),
    [
        ([[2.7, 1.1], [2, 1.733333], [1.066667, 2.366667], [2.6, 1.4]],
         [[1, 4], [2, 4], [3, 2], [4, 1]]),
        ([[2.175, 0.275], [1.260870, 1.191304], [0.32, 2.11], [2.24, 1.16]],
         [[1, 4], [2, 4], [3, 2], [4, 2]]),
    ],
)  # fmt: skip
def test_neighbours_of_injected_features(injected, expected):
    assert lists(torch.tensor([[0.0, 0], *injected]), 2) == expected


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("none", [[1, 2], [2, 4], [3, 4], [4, 3]]), ("row", [[1, 2], [2, 1], [3, 2], [4, 1]])],
)
def test_strong_injection(norm, expected):
    near = {(1, 2): 1.5, (1, 3): 1.5, (1, 4): 1, (2, 3): 4 / 3, (2, 4): 1, (3, 4): 0.5}
    table = torch.zeros(5, 5)
    for (left, right), weight in near.items():
        table[left, right] = table[right, left] = weight
    if norm == "row":
        table = table / table.sum(dim=1, keepdim=True).clamp_min(1e-9)
    assert lists(2 * table @ X + X, 2) == expected


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 1000])
def test_tiles_of_any_size_give_the_same(monkeypatch, rows):
    vectors = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    vectors[[0, 9, 30]] = 0
    vectors[[11, 12, 40]] = vectors[3]
    monkeypatch.setattr(nearest, "_TILE_ROWS", rows)
    found = nearest_items(torch.from_numpy(vectors), 6)
    np.testing.assert_array_equal(found, by_hand(vectors, 6))
    small = nearest_items(torch.from_numpy(vectors), 2)
    np.testing.assert_array_equal(small, found[:, :2])


def test_no_tile_is_a_square_of_items(monkeypatch):
    seen: list[int] = []
    original = torch.Tensor.topk

    def watched(table: torch.Tensor, *args: object, **keys: object) -> object:
        seen.append(table.numel())
        return original(table, *args, **keys)

    monkeypatch.setattr(torch.Tensor, "topk", watched)
    nearest_items(torch.randn(101, 4), 3)
    assert max(seen) <= 101 * 26
    monkeypatch.setattr(nearest, "_TILE_BYTES", 4 * 101)
    seen.clear()
    nearest_items(torch.randn(101, 4), 3)
    assert set(seen) == {101}


def test_equal_vectors_are_taken_by_id_even_if_many():
    vectors = torch.ones(50, 3)
    vectors[0] = 0
    found = nearest_items(vectors, 4)
    assert found[1].tolist() == [2, 3, 4, 5] and found[3].tolist() == [1, 2, 4, 5]
    assert found[49].tolist() == [1, 2, 3, 4]


def test_items_without_vectors_have_no_neighbours_and_are_nobodys():
    vectors = X.clone()
    vectors[4] = 0
    found = nearest_items(vectors, 4)
    assert found[4].tolist() == [0, 0, 0, 0] and 4 not in found
    # Fewer items than neighbours asked for: filled up with 0.
    assert found[1].tolist() == [2, 3, 0, 0]
    table = neighbour_table(found, 3)
    assert table[4].tolist() == [4, 0, 0] and not table[0].any() and table.dtype == np.int32
    assert not nearest_items(torch.zeros(3, 2), 2).any()
    assert nearest_items(X, 0).shape == (5, 0)


def test_some_items_only():
    rows = torch.tensor([4, 1])
    np.testing.assert_array_equal(nearest_items(X, 2, rows), nearest_items(X, 2)[[4, 1]])


def test_overlap_of_lists():
    left = np.array([[1, 2], [3, 0], [0, 0], [5, 6]])
    right = np.array([[2, 7], [3, 0], [1, 2], [7, 8]])
    assert overlap(left, right) == pytest.approx((0.5 + 1 + 0) / 3)
    assert np.isnan(overlap(left[2:3], right[2:3]))


def test_the_approximate_search_finds_nearly_the_same(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(nearest, "_QUERIES", 700)
    random = np.random.default_rng(1)
    middle = random.standard_normal((40, 16))
    vectors = middle[random.integers(0, 40, 3000)] + 0.3 * random.standard_normal((3000, 16))
    table = torch.from_numpy(vectors.astype(np.float32))
    table[[0, 17]] = 0
    exact = nearest_items(table, 10, backend="exact")
    approximate = nearest_items(table, 10, backend="faiss")
    assert overlap(exact, approximate) > 0.95
    assert not approximate[17].any() and 17 not in approximate
    assert all(row not in found for row, found in enumerate(approximate) if row)
    # So few lists that all of them are looked at.
    small = nearest_items(table[:200], 4, backend="faiss")
    np.testing.assert_array_equal(small, nearest_items(table[:200], 4, backend="exact"))


def test_the_approximate_search_is_taken_for_large_catalogues(monkeypatch):
    pytest.importorskip("faiss")
    large = nearest.APPROXIMATE_FROM
    assert not nearest.uses_faiss("auto", large - 1) and nearest.uses_faiss("auto", large)
    assert not nearest.uses_faiss("exact", large) and nearest.uses_faiss("faiss", 10)


def test_a_missing_faiss_is_named(monkeypatch, caplog):
    def absent(name: str, *args: object) -> object:
        if name == "faiss":
            raise ImportError(name)
        return builtins.__import__(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=r"recbole_mm\[ann\].*--knn_backend=exact"):
        nearest_items(X, 2, backend="faiss")
    assert not nearest.uses_faiss("auto", nearest.APPROXIMATE_FROM)
    assert "recbole_mm[ann]" in caplog.text
