"""Sessions, rows and splits against hand-made answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_mm.data.sessions import (
    Sessions,
    group_sessions,
    make_rows,
    split_leave_one_out,
    split_whole,
)
from recbole_mm.errors import DataError


def as_lists(sessions: Sessions) -> list[list[int]]:
    return [part.tolist() for part in np.split(sessions.items, sessions.offsets[1:-1])]


def make(*sessions: list[int]) -> Sessions:
    owner = np.repeat(np.arange(1, len(sessions) + 1), [len(s) for s in sessions])
    items = np.concatenate([np.array(s, int) for s in sessions])
    return group_sessions(owner, items, np.arange(len(items), dtype=float))


def test_equal_times_keep_input_order_and_sessions_are_ordered_by_their_last_time() -> None:
    session = np.array([7, 5, 7, 5, 7])
    item = np.array([1, 2, 3, 4, 5])
    time = np.array([9.0, 1.0, 9.0, 2.0, 3.0])
    grouped = group_sessions(session, item, time)
    assert grouped.session.tolist() == [5, 7]
    assert as_lists(grouped) == [[2, 4], [5, 1, 3]]
    assert grouped.last_time.tolist() == [2.0, 9.0]


def test_prefix_rows_by_hand() -> None:
    rows = make_rows(make([1, 2, 3, 4], [5], [6, 7]), "all_prefixes", max_length=2)
    assert rows.session.tolist() == [1, 1, 1, 3]
    assert rows.target.tolist() == [2, 3, 4, 7]
    assert rows.history.tolist() == [[1, 0], [1, 2], [2, 3], [6, 0]]
    assert rows.length.tolist() == [1, 2, 2, 1]
    assert rows.truncated == 1


def test_last_rows_by_hand() -> None:
    rows = make_rows(make([1, 2, 3, 4], [5], [6, 7]), "last", max_length=3)
    assert rows.session.tolist() == [1, 3]
    assert rows.target.tolist() == [4, 7]
    assert rows.history.tolist() == [[1, 2, 3], [6, 0, 0]]


def test_repeats_by_hand() -> None:
    sessions = make([1, 2, 1], [2, 3], [4, 4], [1])
    assert sessions.repeating().tolist() == [True, False, True, False]
    assert sessions.take(np.array([1, 3])).repeating().tolist() == [False, False]


def test_targets_in_the_history_that_the_row_carries() -> None:
    sessions = make([1, 2, 1], [2, 3], [4, 4], [1, 2, 3, 1])
    assert make_rows(sessions, "last", 3).target_in_history().tolist() == [True, False, True, True]
    # The oldest item was cut off.
    assert make_rows(sessions, "last", 2).target_in_history().tolist() == [True, False, True, False]


def test_matrix_counts_repeats() -> None:
    counts = make([1, 2, 2], [2, 3]).matrix(4)
    assert counts.toarray().tolist() == [[0, 1, 2, 0], [0, 0, 1, 1]]


def test_leave_one_out_keeps_short_sessions_in_training() -> None:
    split = split_leave_one_out(make([1, 2, 3, 4, 5], [6, 7, 8], [9, 1], [2]))
    assert as_lists(split.train) == [[1, 2, 3], [6, 7], [9, 1], [2]]
    assert as_lists(split.valid) == [[1, 2, 3, 4]]
    assert as_lists(split.test) == [[1, 2, 3, 4, 5], [6, 7, 8]]


def test_split_by_time_is_ordered_and_in_proportion() -> None:
    sessions = make(*[[k, k + 1] for k in range(1, 11)])
    split = split_whole(sessions, [7, 2, 1], np.arange(10))
    assert [len(part) for part in split.parts().values()] == [7, 2, 1]
    assert split.train.last_time.max() <= split.valid.last_time.min()
    assert split.valid.last_time.max() <= split.test.last_time.min()


def test_an_empty_part_is_an_error() -> None:
    with pytest.raises(DataError, match="valid part is empty"):
        split_whole(make([1, 2], [3, 4]), [8, 1, 0.1], np.arange(2))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=12, max_size=30))
def test_no_target_stands_in_two_parts(lists: list[list[int]]) -> None:
    sessions = make(*lists)
    longer = sessions.take(np.flatnonzero(sessions.lengths() > 1))
    if len(longer) < 10:
        return
    split = split_whole(longer, [7, 2, 1], np.random.default_rng(0).permutation(len(longer)))
    owners = np.concatenate([part.session for part in split.parts().values()])
    assert sorted(owners) == sorted(longer.session)
    rows = make_rows(split.train, "all_prefixes", 4)
    assert len(rows) == (split.train.lengths() - 1).sum()
    by_session = dict(zip(longer.session.tolist(), as_lists(longer), strict=True))
    for owner, target, history, length in zip(
        rows.session, rows.target, rows.history, rows.length, strict=True
    ):
        whole = by_session[int(owner)]
        kept = history[:length].tolist()
        assert any(
            whole[at] == target and whole[max(0, at - 4) : at] == kept
            for at in range(1, len(whole))
        )
