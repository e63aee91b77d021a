"""SessionKNN: training sessions that are like the history vote for their items.

Symbols: ``S`` training sessions, ``B`` histories, ``P`` pairs of a history and a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from recbole.config import Config
from torch import Tensor

from recbole_mm.model.counting.base import CountingRecommender
from recbole_mm.model.counting.history import Doubles, Floats, History, Ints
from recbole_mm.model.counting.settings import Choice, Grid, SessionKNNSettings

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset
    from recbole_mm.data.sessions import Sessions

# Histories scored at once.
_ROWS = 256


class ItemSets(NamedTuple):
    """The different items of each session: ``items[offsets[k]:offsets[k + 1]]`` of session ``k``.

    ``place`` is where an item stands in its session the last time, from 0.
    """

    offsets: Ints
    items: Ints
    place: Ints


class Neighbours(NamedTuple):
    """Pairs of a history and a training session, with the session's weight; each ``(P,)``."""

    row: Ints
    session: Ints
    weight: Doubles


def item_sets(sessions: Sessions) -> ItemSets:
    """Return the different items of each session."""
    owner = np.repeat(np.arange(len(sessions)), sessions.lengths())
    place = np.arange(len(owner)) - sessions.offsets[owner]
    order = np.lexsort((place, sessions.items, owner))
    owner, items, place = owner[order], sessions.items[order], place[order]
    last = np.ones(len(owner), dtype=bool)
    last[:-1] = (owner[1:] != owner[:-1]) | (items[1:] != items[:-1])
    sizes = np.bincount(owner[last], minlength=len(sessions))
    return ItemSets(np.concatenate(([0], np.cumsum(sizes))), items[last], place[last])


class SessionKNN(CountingRecommender):
    """``score(j) = sum_n sim(h, n) v(n, j) [j in n]`` over the ``k`` most similar sessions ``n``.

    ``sim(h, n) = sum_{i in h and n} w_i / (|w| sqrt|n|) * exp(-a_n / recency)``: the cosine of item
    sets, those of the history weighted, times the session's recency. ``v(n, j) = exp(-d /
    neighbour_decay) idf_j`` with ``d`` the distance of ``j`` from the newest item that both share.
    SKNN: Jannach & Ludewig, RecSys 2017; VSKNN: Ludewig & Jannach, UMUAI 2018; STAN: Garg et al.,
    SIGIR 2019.
    """

    Settings: ClassVar[type[SessionKNNSettings]] = SessionKNNSettings
    settings: SessionKNNSettings

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        self.sets = ItemSets(
            **dataset.fitted("sessions", lambda: item_sets(dataset.train_sessions)._asdict())
        )
        sizes = np.diff(self.sets.offsets)
        self.n_sessions = len(sizes)
        data = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes).astype(np.float32)
        shape = (self.n_sessions, self.n_items)
        units = sp.csr_matrix((data, self.sets.items, self.sets.offsets), shape)
        self.by_item = units.T.tocsr()
        holders = np.bincount(self.sets.items, minlength=self.n_items)
        self.idf = np.log(self.n_sessions / np.maximum(holders, 1))

    def variants(self, history: History, grid: Grid) -> Iterator[tuple[Choice, Tensor]]:
        """Yield the votes; see the base class."""
        parts = [self._votes(part) for part in _portions(history)]
        scores = torch.from_numpy(np.concatenate(parts)).float()
        yield grid.first(), scores.to(self.device)

    def neighbours(self, history: History) -> Neighbours:
        """Return the ``k`` most similar sessions of each history, the newest of equal ones."""
        similar = (self._unit(history) @ self.by_item).tocsr()
        ends = similar.indptr
        found = [
            self._best(similar.indices[start:end], similar.data[start:end])
            for start, end in zip(ends[:-1], ends[1:], strict=True)
        ]
        row = np.repeat(np.arange(len(found)), [len(session) for session, _ in found])
        sessions, weights = zip(*found, strict=True)
        return Neighbours(row, np.concatenate(sessions), np.concatenate(weights))

    def _best(self, session: Ints, similar: Floats) -> tuple[Ints, Doubles]:
        """Return the neighbours of one history and their weights, given all that share an item.

        Partitions in place of sorting: a popular item is shared by half of all sessions.
        """
        if 0 < self.settings.sample_size < len(session):
            newest = np.argpartition(session, -self.settings.sample_size)
            newest = newest[-self.settings.sample_size :]
            session, similar = session[newest], similar[newest]
        weight = np.asarray(similar.astype(np.float64) * self._recency(session))
        if len(weight) <= self.settings.k:
            return session, weight
        edge = np.partition(weight, -self.settings.k)[-self.settings.k]
        above, equal = np.flatnonzero(weight > edge), np.flatnonzero(weight == edge)
        newer = equal[np.argsort(-session[equal])[: self.settings.k - len(above)]]
        best = np.concatenate((above, newer))
        return session[best], weight[best]

    def _unit(self, history: History) -> sp.csr_matrix:
        """Return the weighted item sets of the histories, rows of length 1, ``(B, N)``."""
        weights = {
            "same": np.ones(history.items.shape, np.float32),
            "linear": history.linear(),
            "decay": history.decayed(self.settings.decay),
        }[self.settings.weighting]
        weights = weights * history.latest()
        length = np.sqrt((weights**2).sum(axis=1, keepdims=True))
        return history.matrix(weights / np.maximum(length, 1e-12), history.latest())

    def _recency(self, session: Ints) -> Doubles:
        """Return the weights of training sessions by how many came after them."""
        if self.settings.recency is None:
            return np.ones(len(session))
        after = (self.n_sessions - 1 - session) / self.n_sessions
        return np.asarray(np.exp(-after / self.settings.recency))

    def _votes(self, history: History) -> Doubles:
        """Return the sums of the votes, float64 ``(B, N)``."""
        found = self.neighbours(history)
        first, sizes = self.sets.offsets[found.session], np.diff(self.sets.offsets)[found.session]
        starts = np.cumsum(sizes) - sizes
        entry = np.arange(sizes.sum()) + np.repeat(first - starts, sizes)
        cell = np.repeat(found.row, sizes) * self.n_items + self.sets.items[entry]
        votes = np.repeat(found.weight, sizes)
        if self.settings.neighbour_decay is not None:
            apart = self._apart(history, cell, self.sets.place[entry], starts, sizes)
            votes = votes * np.exp(-apart / self.settings.neighbour_decay)
        if self.settings.idf:
            votes = votes * self.idf[self.sets.items[entry]]
        n_cells = len(history.items) * self.n_items
        sums = np.bincount(cell, votes, minlength=n_cells)
        return sums.astype(np.float64).reshape(-1, self.n_items)

    def _apart(
        self,
        history: History,
        cell: Ints,
        place: Ints,
        starts: Ints,
        sizes: Ints,
    ) -> Ints:
        """Return how far each item of a neighbour stands from the newest that both share."""
        if not len(starts):
            return np.empty(0, dtype=np.int64)
        # Position in the history, from 1; 0 for what is not in it.
        column = np.arange(1, history.items.shape[1] + 1)
        known = np.zeros(len(history.items) * self.n_items, dtype=np.int32)
        rows = np.arange(len(history.items))[:, None] * self.n_items
        latest = history.latest()
        known[(rows + history.items)[latest]] = np.broadcast_to(column, latest.shape)[latest]
        newest = np.repeat(np.maximum.reduceat(known[cell], starts), sizes)
        shared = np.where(known[cell] == newest, place, -1)
        return np.asarray(abs(place - np.repeat(np.maximum.reduceat(shared, starts), sizes)))


def _portions(history: History) -> Iterator[History]:
    """Yield the histories a few hundred at a time."""
    for start in range(0, len(history.items), _ROWS):
        part = slice(start, start + _ROWS)
        yield History(history.items[part], history.inside[part], history.age[part], history.n_items)
