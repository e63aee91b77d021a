from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from recbole_mm.evaluation.ranking import metrics_from_ranks
from recbole_mm.evaluation.slices import (
    group_metrics,
    history_groups,
    slice_metrics,
    target_groups,
)


def rows(n=200, items=30, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, items)
    found = SimpleNamespace(target=rng.integers(1, items, n), length=rng.integers(1, 12, n))
    dataset = SimpleNamespace(train_counts=counts, rows=lambda part: {"test": found}[part])
    return rng.integers(1, items, n), dataset


def test_groups_by_hand():
    lengths = np.array([1, 2, 3, 5, 6, 40])
    found = {name: mask.tolist() for name, mask in history_groups(lengths).items()}
    assert found == {
        "1": [True, False, False, False, False, False],
        "2": [False, True, False, False, False, False],
        "3-5": [False, False, True, True, False, False],
        "6+": [False, False, False, False, True, True],
    }
    cold = target_groups(np.array([0, 4, 1]))
    assert cold["cold"].tolist() == [True, False, False]
    assert cold["seen"].tolist() == [False, True, True]


def test_the_cold_group_is_the_targets_without_training_rows():
    ranks, dataset = rows()
    found = slice_metrics(ranks, dataset, [10], ["Hit", "MRR"])["target"]
    cold = dataset.train_counts[dataset.rows("test").target] == 0
    assert 0 < found["cold"]["n"] == cold.sum() < len(ranks)
    assert found["cold"]["hit@10"] == np.mean(ranks[cold] <= 10)
    assert found["seen"]["hit@10"] == np.mean(ranks[~cold] <= 10)


def test_the_weighted_mean_of_each_division_is_the_metric_of_all_rows():
    ranks, dataset = rows()
    whole = metrics_from_ranks(ranks, [5, 10], ["Hit", "MRR", "NDCG"])
    divisions = slice_metrics(ranks, dataset, [5, 10], ["Hit", "MRR", "NDCG"])
    assert list(divisions) == ["target", "history"]
    for groups in divisions.values():
        assert sum(group["n"] for group in groups.values()) == len(ranks)
        for name, value in whole.items():
            weighted = sum(g["n"] * g[name] for g in groups.values() if g["n"]) / len(ranks)
            assert weighted == pytest.approx(value, abs=1e-12)


def test_an_empty_group_has_its_size_only():
    groups = {"none": np.array([False, False]), "all": np.array([True, True])}
    found = group_metrics(np.array([1, 4]), groups, [2], ["Hit"])
    assert found == {"none": {"n": 0}, "all": {"n": 2, "hit@2": 0.5}}
