from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from recbole_mm.evaluation.ranking import metrics_from_ranks
from recbole_mm.evaluation.slices import (
    group_metrics,
    history_groups,
    popularity_groups,
    slice_metrics,
    target_groups,
)
from recbole_mm.run.prepared import load_dataset


def rows(n=200, items=30, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 3, items)
    found = SimpleNamespace(
        target=rng.integers(1, items, n), length=rng.integers(1, 12, n), session=np.arange(n)
    )
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


def test_history_groups_by_hand():
    lengths = np.array([1, 2, 4, 5, 6, 20, 21])
    ends = [[5], [20, 4, 20], []]
    found = [
        {name: np.flatnonzero(mask).tolist() for name, mask in history_groups(lengths, e).items()}
        for e in ends
    ]
    assert found == [
        {"1-5": [0, 1, 2, 3], "6+": [4, 5, 6]},
        {"1-4": [0, 1, 2], "5-20": [3, 4, 5], "21+": [6]},
        {"1+": [0, 1, 2, 3, 4, 5, 6]},
    ]


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
    assert list(divisions) == ["target", "popularity", "history"]
    for groups in divisions.values():
        assert sum(group["n"] for group in groups.values()) == len(ranks)
        for name, value in whole.items():
            weighted = sum(g["n"] * g[name] for g in groups.values() if g["n"]) / len(ranks)
            assert weighted == pytest.approx(value, abs=1e-12)


def test_an_empty_group_has_its_size_only():
    groups = {"none": np.array([False, False]), "all": np.array([True, True])}
    found = group_metrics(np.array([1, 4]), groups, [2], ["Hit"])
    assert found == {"none": {"n": 0}, "all": {"n": 2, "hit@2": 0.5}}


def test_popularity_groups_by_hand():
    counts = np.array([0, 1, 30, 31, 60, 61, 90, 91, 5000])
    found = {
        name: np.flatnonzero(mask).tolist() for name, mask in popularity_groups(counts).items()
    }
    assert found == {"0": [0], "1-30": [1, 2], "31-60": [3, 4], "61-90": [5, 6], ">90": [7, 8]}
    one = {name: int(mask.sum()) for name, mask in popularity_groups(counts, [60, 1, 60]).items()}
    assert one == {"0": 1, "1": 1, "2-60": 3, ">60": 4}
    assert {n: int(m.sum()) for n, m in popularity_groups(counts, []).items()} == {"0": 1, ">0": 8}


def test_popularity_uses_the_bounds_it_is_given():
    ranks, dataset = rows()
    found = slice_metrics(ranks, dataset, [10], ["Hit"], popularity=[1])["popularity"]
    counts = dataset.train_counts[dataset.rows("test").target]
    assert [found[name]["n"] for name in ("0", "1", ">1")] == [
        (counts == 0).sum(), (counts == 1).sum(), (counts == 2).sum(),
    ]  # fmt: skip
    assert found["1"]["hit@10"] == np.mean(ranks[counts == 1] <= 10)


def test_history_uses_the_bounds_it_is_given():
    ranks, dataset = rows()
    found = slice_metrics(ranks, dataset, [10], ["Hit"], history=[5])["history"]
    short = dataset.rows("test").length <= 5
    assert {name: g["n"] for name, g in found.items()} == {"1-5": short.sum(), "6+": (~short).sum()}
    assert found["1-5"]["hit@10"] == np.mean(ranks[short] <= 10)


def test_sessions_are_counted_where_they_have_several_rows():
    ranks, dataset = rows(n=6)
    assert all(
        "sessions" not in g for g in slice_metrics(ranks, dataset, [1], ["Hit"])["history"].values()
    )
    found = dataset.rows("test")
    found.session, found.length = np.array([1, 1, 2, 2, 2, 3]), np.array([1, 2, 1, 2, 2, 1])
    groups = slice_metrics(ranks, dataset, [1], ["Hit"])["history"]
    assert {name: (g["n"], g["sessions"]) for name, g in groups.items()} == {
        "1": (3, 3), "2": (3, 2), "3-5": (0, 0), "6+": (0, 0),
    }  # fmt: skip


def test_training_clicks_count_once_not_once_per_prefix(tmp_path):
    """The session a, b, c has three clicks and, cut into prefixes, rows that hold a twice."""
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for number in range(10):
        for step, item in enumerate("abc"):
            lines.append(f"s{number}\t{item}\t{1_600_000_000 + number * 1000 + step}")
    (tmp_path / "Abc").mkdir()
    (tmp_path / "Abc" / "Abc.inter").write_text("\n".join(lines) + "\n")
    dataset = load_dataset("Pop", "Abc", (), {"data_path": str(tmp_path)})
    assert dataset.counts["train_rows"] == 14
    assert dataset.train_counts.tolist() == [0, 7, 7, 7]
