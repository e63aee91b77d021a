"""Rules: counts of five sessions by hand, decays, unknown items, popularity in the session."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_mm.graph.distance import directed_cooccurrence, distance_cooccurrence, heaviest
from recbole_mm.model.counting.rules import rule_counts

# The five sessions of conftest.py: [1 2 3], [1 3], [2 1 2], [4 2 1], [3 4]; item 5 is in none.
COUNTS = {
    "markov": {1: {2: 2, 3: 1}, 2: {1: 2, 3: 1}, 3: {4: 1}, 4: {2: 1}},
    "sequential": {1: {2: 2, 3: 1.5}, 2: {1: 2, 3: 1}, 3: {4: 1}, 4: {2: 1, 1: 0.5}},
    "association": {
        1: {2: 4, 3: 2, 4: 1}, 2: {1: 4, 3: 1, 4: 1}, 3: {1: 2, 2: 1, 4: 1}, 4: {1: 1, 2: 1, 3: 1},
    },
    "cooccurrence": {
        1: {2: 4, 3: 1.5, 4: 0.5}, 2: {1: 4, 3: 1, 4: 1}, 3: {1: 1.5, 2: 1, 4: 1},
        4: {1: 0.5, 2: 1, 3: 1},
    },
}  # fmt: skip


def by_hand(rule: str, normalise: bool = True) -> np.ndarray:
    table = np.zeros((6, 6))
    for item, partners in COUNTS[rule].items():
        for other, count in partners.items():
            table[item, other] = count / (sum(partners.values()) if normalise else 1)
    return table


@pytest.mark.parametrize("rule", COUNTS)
def test_counts_by_hand(make, rule):
    counts = make("SessionRules", rule=rule).counts[rule]
    np.testing.assert_allclose(counts.toarray(), by_hand(rule), rtol=1e-6)


def test_directed_counts_are_one_half_of_the_symmetric_ones(make_dataset):
    random = np.random.default_rng(1)
    lists = [list(random.integers(1, 9, random.integers(2, 8))) for _ in range(40)]
    sessions = make_dataset(lists, 9).train_sessions
    for how in ({"window": 3}, {"weight": "count"}):
        one = directed_cooccurrence(sessions, 9, **how)
        both = distance_cooccurrence(sessions, 9, **how)
        np.testing.assert_allclose((one + one.T).toarray(), both.toarray(), rtol=1e-5)


def test_a_window_of_one_sees_neighbours_only(make_dataset):
    sessions = make_dataset([[1, 2, 3]], 4).train_sessions
    counts = rule_counts(sessions, 4, "cooccurrence", window=1).toarray()
    np.testing.assert_allclose(counts[1], [0, 0, 1, 0])


def test_the_heaviest_partners_stay(make_dataset):
    table = distance_cooccurrence(make_dataset([[1, 2, 3], [1, 3], [2, 4]], 5).train_sessions, 5)
    kept = heaviest(table, 1).toarray()
    # 1 and 3: 1.5; 2: ties of 1, 3 and 4 go to the lowest id.
    assert [int(row.argmax()) for row in kept[1:]] == [3, 1, 1, 2]
    assert (kept > 0).sum() == 4
    assert heaviest(table, 0) is table


@pytest.mark.parametrize("rule", COUNTS)
@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_scores_are_decayed_sums_of_rows(make, rows, rule, decay):
    model = make("SessionRules", rule=rule, decay=decay, own_last=False)
    scores = model.full_sort_predict(rows([1, 4, 2], [3]))
    table, a = by_hand(rule), math.exp(-1 / decay) if decay else 0.0
    first = table[2] + a * table[4] + a**2 * table[1]
    expected = np.stack([table[2] if rule == "markov" else first, table[3]])
    # Popularity, the last to decide: 4, 4, 3 and 2 clicks.
    expected += 1e-6 * np.array([0, 4, 4, 3, 2, 0]) / 4
    np.testing.assert_allclose(scores[:, 1:], expected[:, 1:], rtol=1e-5)
    assert bool((scores[:, 0] == -torch.inf).all())


def test_an_item_that_repeats_weighs_twice(make, rows):
    model = make("SessionRules", decay=2.0, own_last=False)
    table, a = by_hand("cooccurrence"), math.exp(-0.5)
    scores = model.full_sort_predict(rows([3, 1, 3])).numpy()[0, 1:]
    expected = (1 + a**2) * table[3] + a * table[1]
    np.testing.assert_allclose(scores, expected[1:], atol=2e-6)


def test_own_items_come_last_in_their_own_order(make, rows):
    plain = make("SessionRules", own_last=False).full_sort_predict(rows([1, 2]))[0]
    last = make("SessionRules", own_last=True).full_sort_predict(rows([1, 2]))[0]
    assert torch.equal(plain[3:], last[3:])
    assert float(last[1:3].max()) < float(last[3:].min())
    assert bool(plain[1] > plain[2]) == bool(last[1] > last[2])


@pytest.mark.parametrize("name", ["SPop", "SessionRules", "SessionKNN", "Counting"])
def test_unknown_items_only_leave_popularity(make, rows, name):
    model = make(name, titles=())
    scores = model.full_sort_predict(rows([5], [5, 5]))
    assert bool(scores[:, 1:].isfinite().all())
    one, two, three, four = scores.T[1:5]  # of 4, 4, 3 and 2 clicks
    assert torch.equal(one, two)
    assert bool(((two > three) & (three > four)).all())


def test_spop_counts_in_the_session_then_popularity(make, rows):
    scores = make("SPop").full_sort_predict(rows([4, 3, 4]))[0]
    assert scores[1:].argsort(descending=True, stable=True).tolist() == [3, 2, 0, 1, 4]
    assert float(scores[4]) == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("name", ["SPop", "SessionRules", "SessionKNN", "Counting"])
def test_a_session_of_one_item_and_predict(make, rows, name):
    model = make(name)
    batch = rows([3], [1, 2], target=[4, 3])
    table = model.full_sort_predict(batch)
    assert model.predict(batch).tolist() == [float(table[0, 4]), float(table[1, 3])]


@pytest.mark.parametrize("name", ["SPop", "SessionRules", "SessionKNN", "Counting"])
def test_a_catalogue_of_one_item(make, rows, name):
    model = make(name, [[1, 1]], 2, titles=())
    scores = model.full_sort_predict(rows([1]))
    assert scores[0, 0] == -torch.inf
    assert bool(scores[0, 1].isfinite())


def test_counts_do_not_know_the_test_sessions(make_dataset, settings):
    from recbole_mm import registry

    built = [
        registry.resolve("SessionRules").load()(
            settings("SessionRules", rule=None),
            make_dataset([[1, 2, 3], [2, 3]], 5, test=test),
        )
        for test in ([[1, 4, 2], [4, 3]], [[3, 4, 4], [2, 1]])
    ]
    for rule, counts in built[0].counts.items():
        other = built[1].counts[rule]
        assert (counts.data.tobytes(), counts.indices.tobytes()) == (
            other.data.tobytes(), other.indices.tobytes(),
        )  # fmt: skip
