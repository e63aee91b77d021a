"""Cutting interaction tables into sessions, k-core filtering and a stable order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def stable_order(*keys: NDArray) -> IntArray:
    """Return the row order by ``keys``, the first one leading; equal rows keep file order.

    Parameters
    ----------
    *keys
        Arrays of equal length ``(n,)``, most important first.
    """
    return np.lexsort(keys[::-1]).astype(np.int64)


def cut_by_gap(users: NDArray, times: NDArray, gap_seconds: float) -> IntArray:
    """Count the sittings of each user: a pause longer than ``gap_seconds`` opens a new one.

    Parameters
    ----------
    users
        User codes, shape ``(n,)``; any order.
    times
        Seconds, shape ``(n,)``; any order, equal times belong together.
    gap_seconds
        Longest pause inside one sitting, seconds. A pause of exactly this length stays inside.

    Returns
    -------
    IntArray
        For each input row the number of its sitting inside its user, from 0, shape ``(n,)``.
    """
    order = stable_order(users, times)
    sorted_users, sorted_times = users[order], times[order]
    new_user = np.ones(len(order), dtype=bool)
    new_user[1:] = sorted_users[1:] != sorted_users[:-1]
    pause = np.zeros(len(order), dtype=bool)
    pause[1:] = sorted_times[1:] - sorted_times[:-1] > gap_seconds
    running = np.cumsum(new_user | pause)
    first_of_user = np.maximum.accumulate(np.where(new_user, running, 0))
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = running - first_of_user
    return numbers


@dataclass(frozen=True)
class CoreReport:
    """What a k-core filter dropped.

    ``rounds`` counts the passes that dropped something.
    """

    sessions: int
    items: int
    rows: int
    rounds: int


def k_core(
    sessions: IntArray, items: IntArray, min_session: int, min_item: int
) -> tuple[NDArray[np.bool_], CoreReport]:
    """Keep the largest set of rows with long enough sessions and frequent enough items.

    Dropping a rare item shortens sessions and dropping a short session makes items rarer, so
    both rules are applied again until nothing changes.

    Parameters
    ----------
    sessions, items
        Codes from 0, shape ``(n,)``.
    min_session
        Fewest rows of a session.
    min_item
        Fewest rows of an item.

    Returns
    -------
    tuple
        A mask of the kept rows, shape ``(n,)``, and the counts of what went.
    """
    keep = np.ones(len(sessions), dtype=bool)
    rounds = 0
    while True:
        session_rows = np.bincount(sessions[keep], minlength=_width(sessions))
        item_rows = np.bincount(items[keep], minlength=_width(items))
        good = keep & (session_rows[sessions] >= min_session) & (item_rows[items] >= min_item)
        if np.array_equal(good, keep):
            break
        keep, rounds = good, rounds + 1
    report = CoreReport(
        sessions=_distinct(sessions) - _distinct(sessions[keep]),
        items=_distinct(items) - _distinct(items[keep]),
        rows=int(len(keep) - keep.sum()),
        rounds=rounds,
    )
    return keep, report


def order_by_session(sessions: IntArray, times: NDArray) -> IntArray:
    """Order rows for an ``.inter`` file: sessions by start time, rows by time inside them.

    Ties are broken by the file order: of two sessions with the same start the one that appears
    first leads, and rows of a session with equal times keep their order.

    Parameters
    ----------
    sessions
        Codes from 0, shape ``(n,)``.
    times
        Numbers that grow with time, shape ``(n,)``.
    """
    if len(sessions) == 0:
        return np.zeros(0, dtype=np.int64)
    width = _width(sessions)
    start = np.full(width, np.inf)
    np.minimum.at(start, sessions, times)
    first_row = np.full(width, len(sessions), dtype=np.int64)
    np.minimum.at(first_row, sessions, np.arange(len(sessions)))
    return stable_order(start[sessions], first_row[sessions], times)


def _width(codes: IntArray) -> int:
    """Return the number of codes a table must hold."""
    return int(codes.max()) + 1 if len(codes) else 0


def _distinct(codes: IntArray) -> int:
    """Return how many different codes occur."""
    return len(np.unique(codes))
