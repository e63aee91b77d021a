"""SessionKNN against straightforward loops over sessions and items."""

from __future__ import annotations

import math

import numpy as np
import pytest

N_ITEMS = 15


def random_lists(count, seed, longest=7):
    random = np.random.default_rng(seed)
    return [random.integers(1, N_ITEMS, random.integers(1, longest)).tolist() for _ in range(count)]


LISTS = random_lists(60, seed=4)
HISTORIES = random_lists(12, seed=5)


def history_weights(history, setting):
    """Weight of each item by its last position."""
    found = {}
    for position, item in enumerate(history):
        age = len(history) - 1 - position
        found[item] = {
            "same": 1.0,
            "linear": 1 - age / len(history),
            "decay": math.exp(-age / setting["decay"]),
        }[setting["weighting"]]
    return found


def slow_scores(history, setting):
    weights = history_weights(history, setting)
    length = math.sqrt(sum(weight**2 for weight in weights.values()))
    touched = [n for n, session in enumerate(LISTS) if set(session) & set(history)]
    touched = touched[-(setting["sample_size"] or len(LISTS)) :]
    similar = []
    for n in touched:
        held = set(LISTS[n])
        cosine = sum(weights[item] for item in held & set(history))
        cosine /= length * math.sqrt(len(held))
        if setting["recency"]:
            cosine *= math.exp(-(len(LISTS) - 1 - n) / len(LISTS) / setting["recency"])
        similar.append((cosine, n))
    scores = np.zeros(N_ITEMS)
    for cosine, n in sorted(similar, key=lambda pair: (-pair[0], -pair[1]))[: setting["k"]]:
        for item in set(LISTS[n]):
            scores[item] += cosine * vote(history, LISTS[n], item, setting)
    return scores


def last_place(session, item):
    return max(place for place, held in enumerate(session) if held == item)


def vote(history, session, item, setting):
    worth = 1.0
    if setting["neighbour_decay"]:
        newest = next(one for one in reversed(history) if one in session)
        apart = abs(last_place(session, item) - last_place(session, newest))
        worth *= math.exp(-apart / setting["neighbour_decay"])
    if setting["idf"]:
        worth *= math.log(len(LISTS) / sum(item in one for one in LISTS))
    return worth


@pytest.mark.parametrize("preset", ["sound", "sknn", "vsknn", "stan"])
@pytest.mark.parametrize("sizes", [{}, {"k": 7, "sample_size": 20}])
def test_a_loop_over_sessions_gives_the_same(make, rows, settings, preset, sizes):
    setting = {**settings("SessionKNN", preset), **sizes, "own_last": False}
    model = make("SessionKNN", LISTS, N_ITEMS, preset=preset, **sizes, own_last=False)
    found = model.full_sort_predict(rows(*HISTORIES, width=7)).numpy()[:, 1:]
    expected = np.stack([slow_scores(history, setting) for history in HISTORIES])
    popular = np.bincount(np.concatenate(LISTS), minlength=N_ITEMS)
    expected += 1e-6 * popular / popular.max()
    np.testing.assert_allclose(found, expected[:, 1:], rtol=1e-4, atol=1e-7)


def test_many_histories_are_scored_in_portions(make, rows, monkeypatch):
    model = make("SessionKNN", LISTS, N_ITEMS)
    whole = model.full_sort_predict(rows(*HISTORIES, width=7))
    monkeypatch.setattr("recbole_mm.model.counting.neighbours._ROWS", 5)
    assert model.full_sort_predict(rows(*HISTORIES, width=7)).equal(whole)
