from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import Collector

from recbole_mm.errors import ConfigError
from recbole_mm.evaluation.ranking import (
    _counted_rows,
    _counted_table,
    from_ranks,
    gains,
    metrics_from_ranks,
    target_ranks,
)

METRICS = ["Hit", "MRR", "NDCG", "Recall", "Precision", "MAP"]
# RecBole 1.2.1 uses np.float, which numpy >= 1.24 lacks; its Config defines it.
np.float = float


def ranks_of(scores, items, dtype=torch.float32):
    ranks, equal = target_ranks(torch.tensor(scores, dtype=dtype), torch.tensor(items))
    return ranks.tolist(), equal.tolist()


def test_ranks_by_hand():
    inf = math.inf
    scores = [
        [-inf, 0.9, 0.5, 0.7, 0.1],  # no tie
        [-inf, 0.5, 0.5, 0.7, 0.1],  # tie of two behind one
        [-inf, 0.5, 0.5, 0.5, 0.5],  # all equal: middle of 1..4, rounded up
        [-inf, 0.5, 0.5, 0.5, 0.1],  # tie of three at the front
    ]
    assert ranks_of(scores, [3, 1, 2, 3]) == ([2, 3, 3, 2], [0, 1, 3, 2])


def test_padding_never_counts():
    inf = math.inf
    assert ranks_of([[9.0, 1.0, 2.0]], [1]) == ([2], [0])
    # A target that the model strikes out ties with the other struck-out items, not with padding.
    assert ranks_of([[-inf, -inf, 3.0, -inf]], [1]) == ([3], [1])
    assert ranks_of([[-inf, -inf, 3.0, 2.0]], [1]) == ([3], [0])


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_every_kind_of_number_is_counted_as_it_is(dtype):
    # 1 and 1 + 2**-30 are one number but in float64.
    scores = [[0.0, 1.0, 1.0 + 2.0**-30, 3.0], [0.0, 1.0, 2.0, 3.0]]
    expected = ([3, 3], [0, 0]) if dtype == torch.float64 else ([3, 3], [1, 0])
    assert ranks_of(scores, [1, 1], dtype) == expected


def test_all_rows_at_once_are_counted_as_row_by_row():
    """The way of other devices gives what the way of the CPU does."""
    scores = torch.randint(0, 6, (40, 30), generator=torch.Generator().manual_seed(1)).float()
    target = scores.gather(1, torch.randint(0, 30, (40, 1)))
    for one, other in zip(
        _counted_rows(scores, target), _counted_table(scores, target), strict=True
    ):
        assert one.tolist() == other.tolist()


def test_metrics_by_hand():
    found = metrics_from_ranks(np.array([1, 3, 11, 2]), [2, 10], METRICS)
    assert found == pytest.approx(
        {
            "hit@2": 2 / 4,
            "hit@10": 3 / 4,
            "mrr@2": (1 + 1 / 2) / 4,
            "mrr@10": (1 + 1 / 3 + 1 / 2) / 4,
            "ndcg@2": (1 + 1 / math.log2(3)) / 4,
            "ndcg@10": (1 + 1 / 2 + 1 / math.log2(3)) / 4,
            "recall@2": 2 / 4,
            "recall@10": 3 / 4,
            "precision@2": 1 / 4,
            "precision@10": 3 / 40,
            "map@2": (1 + 1 / 2) / 4,
            "map@10": (1 + 1 / 3 + 1 / 2) / 4,
        },
        abs=1e-15,
    )


def recbole_metrics(scores, targets, topk):
    config = {
        "metrics": METRICS,
        "topk": topk,
        "metric_decimal_place": 16,
        "eval_args": {"mode": {"valid": "full", "test": "full"}},
        "device": torch.device("cpu"),
    }
    collector = Collector(config)
    rows = torch.arange(len(scores))
    collector.eval_batch_collect(scores, None, rows, targets)
    return Evaluator(config).evaluate(collector.get_data_struct())


@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(12, 40))
def test_metrics_equal_recboles_without_ties(seed, n, items):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.stack([torch.randperm(items, generator=generator) for _ in range(n)]).float()
    scores[:, 0] = -torch.inf
    targets = torch.randint(1, items, (n,), generator=generator)
    ranks, equal = target_ranks(scores, targets)
    assert not equal.any()
    topk = [1, 5, 11]
    ours = metrics_from_ranks(ranks, topk, METRICS)
    theirs = recbole_metrics(scores, targets, topk)
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.integers(0, 100))
def test_ranks_equal_the_slow_definition(values, pick):
    scores = [-math.inf, *map(float, values)]
    target = 1 + pick % len(values)
    positions = sorted(range(1, len(scores)), key=lambda item: -scores[item])
    tied = [p + 1 for p, item in enumerate(positions) if scores[item] == scores[target]]
    assert ranks_of([scores], [target])[0] == [math.ceil(sum(tied) / len(tied))]


def test_constant_scores_give_the_value_of_chance():
    items = 101
    ranks, _ = target_ranks(torch.ones(5, items), torch.tensor([1, 9, 50, 77, 100]))
    assert set(ranks.tolist()) == {51}
    assert metrics_from_ranks(ranks, [20], ["Hit"]) == {"hit@20": 0.0}


def test_wrong_requests():
    assert from_ranks([*METRICS, "ItemCoverage"]) == METRICS
    with pytest.raises(ConfigError, match="unknown metric 'ItemCoverage'"):
        metrics_from_ranks(np.array([1]), [10], ["ItemCoverage"])
    with pytest.raises(ConfigError, match="from 1, got 0"):
        gains(np.array([1]), "hit", 0)


def test_no_rows_give_nan():
    assert math.isnan(metrics_from_ranks(np.array([]), [10], ["Hit"])["hit@10"])
