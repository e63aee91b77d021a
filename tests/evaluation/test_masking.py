"""Scores without the history's items: by hand, and against a slow loop over the candidates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import Collector

from recbole_mm.evaluation.masking import mask_history, strike_out, target_in_history
from recbole_mm.evaluation.ranking import target_ranks

INF, LEAST = math.inf, torch.finfo(torch.float32).min
KEYS = {"ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list"}
SCORES = torch.tensor([[-INF, 5.0, 4.0, 3.0, 2.0], [-INF, 1.0, 2.0, 3.0, 4.0]])
# Row 0: target 3 after 1, 2. Row 1: target 4 after 4, 1: it stands in its own history.
HISTORY = torch.tensor([[1, 2, 0], [4, 1, 0]])
TARGETS = torch.tensor([3, 4])
# RecBole 1.2.1 uses np.float, which numpy >= 1.24 lacks; its Config defines it.
np.float = float


def test_by_hand():
    before = SCORES.clone()
    found = strike_out(SCORES, HISTORY, TARGETS)
    assert found[0].tolist() == [-INF, -INF, -INF, 3.0, 2.0]
    # The target alone is last: item 1, struck out like it, is lifted above it.
    assert found[1].tolist() == [LEAST, LEAST, 2.0, 3.0, -INF]
    assert torch.equal(SCORES, before)
    ranks, equal = target_ranks(found, TARGETS)
    assert (ranks.tolist(), equal.tolist()) == ([1, 4], [0, 0])
    assert target_ranks(SCORES, TARGETS)[0].tolist() == [3, 1]


def test_the_key_decides():
    batch = {"item_id_list": HISTORY}
    assert mask_history(SCORES, batch, TARGETS, {**KEYS, "history": "keep"}) is SCORES
    found = mask_history(SCORES, batch, TARGETS, {**KEYS, "history": "mask"})
    assert torch.equal(found, strike_out(SCORES, HISTORY, TARGETS))


def test_padding_is_no_item_of_the_history():
    assert target_in_history(HISTORY, TARGETS).tolist() == [False, True]
    scores = torch.tensor([[9.0, 1.0, 2.0]])
    found = strike_out(scores, torch.tensor([[1, 0]]), torch.tensor([2]))
    assert found[0, 1:].tolist() == [-INF, 2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_scores_keep_their_type(dtype):
    found = strike_out(SCORES.to(dtype), HISTORY, TARGETS)
    assert found.dtype == dtype and target_ranks(found, TARGETS)[0].tolist() == [1, 4]


def slow_rank(scores, history, target):
    """Rank the target among the candidates that are left, one by one."""
    if target in history:
        return len(scores) - 1
    rivals = [s for item, s in enumerate(scores) if item and item != target and item not in history]
    equal = sum(s == scores[target] for s in rivals)
    return 1 + sum(s > scores[target] for s in rivals) + (equal + 1) // 2


@st.composite
def batches(draw):
    n_items, size = draw(st.integers(3, 9)), draw(st.integers(1, 4))
    some = st.integers(0, 4).map(float)
    scores = draw(st.lists(st.lists(some, min_size=n_items, max_size=n_items),
                           min_size=size, max_size=size))  # fmt: skip
    items = st.integers(1, n_items - 1)
    histories = [draw(st.lists(items, min_size=1, max_size=5)) for _ in scores]
    return scores, histories, [draw(items) for _ in scores]


@given(batches())
def test_ranks_equal_those_of_a_slow_loop(batch):
    scores, histories, targets = batch
    padded = torch.tensor([history + [0] * (5 - len(history)) for history in histories])
    items = torch.tensor(targets)
    ranks, _ = target_ranks(strike_out(torch.tensor(scores), padded, items), items)
    expected = [slow_rank(*row) for row in zip(scores, histories, targets, strict=True)]
    assert ranks.tolist() == expected


def test_recboles_metrics_miss_a_target_that_is_struck_out():
    """Also where the list is longer than the candidates left, and struck-out items fill it."""
    full = {"mode": {"valid": "full", "test": "full"}}
    config = {"metrics": ["Hit", "MRR"], "topk": [1, 3], "eval_args": full}
    config |= {"metric_decimal_place": 16, "device": "cpu"}
    collector, evaluator = Collector(config), Evaluator(config)
    found = strike_out(SCORES, torch.tensor([[1, 2, 0], [4, 1, 3]]), TARGETS)
    collector.eval_batch_collect(found, None, torch.arange(2), TARGETS)
    metrics = evaluator.evaluate(collector.get_data_struct())
    assert metrics == {"hit@1": 0.5, "hit@3": 0.5, "mrr@1": 0.5, "mrr@3": 0.5}
