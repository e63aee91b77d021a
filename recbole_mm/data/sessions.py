"""Sessions as arrays, their split, and the rows that models are trained and evaluated on.

Everything here is NumPy on internal ids and knows neither files nor RecBole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recbole_mm.errors import DataError


@dataclass(frozen=True)
class Sessions:
    """Sessions in compressed rows: session ``k`` holds ``items[offsets[k]:offsets[k + 1]]``.

    Attributes
    ----------
    session
        ``(S,)`` int64 internal session ids (the numbers of ``interaction[USER_ID_FIELD]``).
    offsets
        ``(S + 1,)`` int64.
    items
        ``(total,)`` int64 internal item ids, in time order inside a session; 0 never occurs.
    time
        ``(total,)`` float64 times of the interactions.
    """

    session: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    time: np.ndarray

    def __len__(self) -> int:
        return len(self.session)

    @property
    def last_time(self) -> np.ndarray:
        """The ``(S,)`` times of the sessions' last interactions."""
        return self.time[self.offsets[1:] - 1]

    def lengths(self) -> np.ndarray:
        """Return the ``(S,)`` numbers of items."""
        return np.diff(self.offsets)

    def matrix(self, n_items: int) -> sp.csr_matrix:
        """Return the ``(S, n_items)`` float32 matrix of how often a session holds an item."""
        ones = np.ones(len(self.items), np.float32)
        counts = sp.csr_matrix((ones, self.items, self.offsets), (len(self), n_items), copy=True)
        counts.sum_duplicates()
        return counts

    def repeating(self) -> np.ndarray:
        """Return which sessions ``(S,)`` hold an item twice."""
        owner = np.repeat(np.arange(len(self)), self.lengths())
        order = np.lexsort((self.items, owner))
        owner, items = owner[order], self.items[order]
        again = (owner[1:] == owner[:-1]) & (items[1:] == items[:-1])
        return np.bincount(owner[1:][again], minlength=len(self)) > 0

    def take(self, which: np.ndarray) -> Sessions:
        """Return the sessions at the positions ``which``, in that order."""
        return self.cut(which, self.lengths()[which])

    def cut(self, which: np.ndarray, lengths: np.ndarray) -> Sessions:
        """Return the first ``lengths[k]`` items of each session ``which[k]``."""
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        shift = np.repeat(self.offsets[:-1][which] - offsets[:-1], lengths)
        source = np.arange(offsets[-1]) + shift
        return Sessions(self.session[which], offsets, self.items[source], self.time[source])


def concatenate(parts: list[Sessions]) -> Sessions:
    """Return the sessions of all ``parts``, one after another."""
    lengths = np.concatenate([part.lengths() for part in parts])
    return Sessions(
        np.concatenate([part.session for part in parts]),
        np.concatenate(([0], np.cumsum(lengths))),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.time for part in parts]),
    )


@dataclass(frozen=True)
class Rows:
    """One prediction each: a history and the item that followed it.

    Attributes
    ----------
    session, target, length
        ``(n,)`` int64: internal session id, target item, number of history items kept.
    history
        ``(n, max_length)`` int64, the most recent items, padded with 0 on the right.
    truncated
        How many rows lost older items to ``max_length``.
    """

    session: np.ndarray
    target: np.ndarray
    length: np.ndarray
    history: np.ndarray
    truncated: int

    def __len__(self) -> int:
        return len(self.target)

    def target_in_history(self) -> np.ndarray:
        """Return the rows ``(n,)`` whose target stands in their history."""
        return (self.history == self.target[:, None]).any(axis=1)

    def take(self, keep: np.ndarray) -> Rows:
        """Return the rows where ``keep`` (bool or positions) says so."""
        kept = (self.session[keep], self.target[keep], self.length[keep], self.history[keep])
        return Rows(*kept, self.truncated)


def group_sessions(session: np.ndarray, item: np.ndarray, time: np.ndarray) -> Sessions:
    """Collect interactions into sessions.

    Inside a session items are ordered by time, and equal times keep the order of the input.
    Sessions are ordered by the time of their last interaction; equal times by their id.

    Parameters
    ----------
    session, item, time
        ``(n,)`` internal session ids, internal item ids, times (one unit for all).
    """
    order = np.lexsort((time, session))  # stable, so ties keep the input's order
    ids, first = np.unique(session[order], return_index=True)
    offsets = np.append(first, len(order)).astype(np.int64)
    grouped = Sessions(ids, offsets, item[order], time[order])
    return grouped.take(np.argsort(grouped.last_time, kind="stable"))


def make_rows(sessions: Sessions, targets: str, max_length: int) -> Rows:
    """Turn sessions into prediction rows.

    Parameters
    ----------
    sessions
        The sessions; those of one item give no row.
    targets
        ``last``: one row per session; ``all_prefixes``: one row per item but the first.
    max_length
        Longest history kept; older items are left out.
    """
    start, stop = sessions.offsets[:-1], sessions.offsets[1:]
    if targets == "last":
        owner = np.flatnonzero(stop - start > 1)
        position = stop[owner] - 1
    else:
        owner = np.repeat(np.arange(len(sessions)), np.maximum(stop - start - 1, 0))
        is_target = np.ones(len(sessions.items), bool)
        is_target[start[stop > start]] = False
        position = np.flatnonzero(is_target)
    full = position - start[owner]
    length = np.minimum(full, max_length)
    column = np.arange(max_length)
    inside = column < length[:, None]
    source = np.where(inside, (position - length)[:, None] + column, 0)
    history = np.where(inside, sessions.items[source], 0) if len(position) else source
    truncated = int((full > max_length).sum())
    return Rows(sessions.session[owner], sessions.items[position], length, history, truncated)


@dataclass(frozen=True)
class Split:
    """The three parts as sessions; the last item of a valid or test session is its target.

    ``whole`` says whether a session stands in one part only (false for leave-one-out, where the
    valid and test sessions continue training sessions).
    """

    train: Sessions
    valid: Sessions
    test: Sessions
    whole: bool

    def parts(self) -> dict[str, Sessions]:
        """Return the parts by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def split_whole(sessions: Sessions, ratio: list[float], order: np.ndarray) -> Split:
    """Give whole sessions to train, valid and test, in ``order``, in the proportions ``ratio``.

    Raises
    ------
    DataError
        If a part stays empty.
    """
    share = np.cumsum(np.asarray(ratio, float)) / np.sum(ratio)
    cut = np.rint(share * len(sessions)).astype(int)
    parts = np.split(order, cut[:2])
    for name, part in zip(("train", "valid", "test"), parts, strict=True):
        if len(part) == 0:
            raise DataError(
                f"The {name} part is empty: {len(sessions)} sessions of two or more items were "
                f"split {':'.join(map(str, ratio))}. Use more data or another split_ratio."
            )
    # Sorted positions keep the time order inside a part whatever the order of the draw.
    train, valid, test = (sessions.take(np.sort(part)) for part in parts)
    return Split(train, valid, test, whole=True)


def split_given(sessions: Sessions, part: np.ndarray) -> Split:
    """Give whole sessions to the parts that ``part`` ``(S,)`` names: train, valid or test.

    Raises
    ------
    DataError
        If a part stays empty.
    """
    names = ("train", "valid", "test")
    for name in names:
        if not (part == name).any():
            raise DataError(f"The given split leaves the {name} part without sessions.")
    train, valid, test = (sessions.take(np.flatnonzero(part == name)) for name in names)
    return Split(train, valid, test, whole=True)


def split_leave_one_out(sessions: Sessions) -> Split:
    """Hold out each session's last item for test and the one before for validation.

    As RecBole's ``LS: valid_and_test`` does: a session of two items stays in training, one of three
    gives a test row but no validation row.

    Raises
    ------
    DataError
        If no session is long enough.
    """
    lengths = sessions.lengths()
    everyone, longer, longest = (np.flatnonzero(lengths >= n) for n in (1, 3, 4))
    if len(longest) == 0:
        raise DataError("Leave-one-out needs sessions of four or more items, and there is none.")
    held_out = np.where(lengths >= 4, 2, np.where(lengths == 3, 1, 0))
    train = sessions.cut(everyone, (lengths - held_out)[everyone])
    valid = sessions.cut(longest, lengths[longest] - 1)
    return Split(train, valid, sessions.take(longer), whole=False)
