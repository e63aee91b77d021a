from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_mm.prepare.sessions import cut_by_gap, k_core, order_by_session, stable_order


def test_a_longer_pause_opens_a_sitting_and_an_equal_one_does_not():
    users = np.array([7, 7, 7, 7, 3, 3])
    times = np.array([0.0, 600.0, 1201.0, 1201.0, 50.0, 700.0])
    assert cut_by_gap(users, times, 600).tolist() == [0, 0, 1, 1, 0, 1]


def test_cutting_does_not_depend_on_row_order():
    generator = np.random.default_rng(0)
    users, times = generator.integers(0, 5, 200), generator.integers(0, 5000, 200).astype(float)
    order = generator.permutation(200)
    expected = cut_by_gap(users, times, 60)
    assert np.array_equal(cut_by_gap(users[order], times[order], 60), expected[order])
    assert expected.max() > 3


def test_cutting_nothing():
    assert cut_by_gap(np.zeros(0), np.zeros(0), 60).tolist() == []


def test_core_drops_in_rounds():
    # Item 2 is rare; without it session 1 is too short; without session 1 item 1 is rare; then
    # session 2 is too short. Session 0 stays.
    sessions = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    items = np.array([0, 3, 0, 3, 1, 2, 1, 0])
    keep, report = k_core(sessions, items, min_session=2, min_item=2)
    assert keep.tolist() == [True] * 4 + [False] * 4
    assert (report.sessions, report.items, report.rows, report.rounds) == (2, 2, 4, 4)


def _slow_core(sessions, items, min_session, min_item):
    rows = set(range(len(sessions)))
    while True:
        bad = {
            r
            for r in rows
            if sum(sessions[q] == sessions[r] for q in rows) < min_session
            or sum(items[q] == items[r] for q in rows) < min_item
        }
        if not bad:
            return [r in rows for r in range(len(sessions))]
        rows -= bad


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=25),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_core_equals_the_slow_one(rows, min_session, min_item):
    table = np.array(rows, dtype=np.int64).reshape(-1, 2)
    keep, _ = k_core(table[:, 0], table[:, 1], min_session, min_item)
    assert keep.tolist() == _slow_core(*table.T.tolist(), min_session, min_item)


def test_sessions_are_ordered_by_start_and_ties_by_file_order():
    sessions = np.array([2, 1, 2, 0, 1, 0, 2])
    times = np.array([5.0, 9.0, 3.0, 3.0, 1.0, 3.0, 5.0])
    # Starts: session 1 at 1, sessions 2 and 0 at 3, session 2 appears first.
    assert order_by_session(sessions, times).tolist() == [4, 1, 2, 0, 6, 3, 5]
    assert order_by_session(sessions[:0], times[:0]).tolist() == []


def test_stable_order_leads_with_the_first_key():
    assert stable_order(np.array([1, 0, 1, 0]), np.array([0, 5, 0, 4])).tolist() == [3, 1, 0, 2]
