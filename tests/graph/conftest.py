"""Sessions to count, and the counts one pair at a time."""

from __future__ import annotations

import numpy as np

from recbole_mm.data.sessions import Sessions
from recbole_mm.graph import cooccurrence as graphs


def make_sessions(lists: list[list[int]], first_id: int = 1) -> Sessions:
    items = np.array([item for one in lists for item in one], dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in lists]))).astype(np.int64)
    ids = np.arange(first_id, first_id + len(lists), dtype=np.int64)
    return Sessions(ids, offsets, items, np.arange(len(items), dtype=np.float64))


SESSIONS = make_sessions([[1, 2, 3], [1, 2], [2, 2, 4]])


def random_sessions(n_sessions: int, n_items: int, seed: int = 0) -> Sessions:
    rng = np.random.default_rng(seed)
    return make_sessions(
        [list(rng.integers(1, n_items, rng.integers(1, 7))) for _ in range(n_sessions)]
    )


def slow_counts(sessions: Sessions, n_items: int, count: str, diagonal: bool) -> np.ndarray:
    """Count pair by pair, as the definition says."""
    dense = np.zeros((n_items, n_items))
    for start, stop in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True):
        held = list(sessions.items[start:stop])
        if count == "set":
            held = sorted(set(held))
        for a, left in enumerate(held):
            for b, right in enumerate(held):
                if left != right or (diagonal and (count == "mult" or a == b)):
                    dense[left, right] += 1
    return dense


def graph(count: str = "mult", diagonal: bool = False) -> graphs.ItemGraph:
    return graphs.ItemGraph(SESSIONS, 6, count, diagonal)


# Counts
