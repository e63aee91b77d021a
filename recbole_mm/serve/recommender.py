"""Recommendations for sessions, from a run folder or a pack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from recbole_mm.errors import DataError
from recbole_mm.serve.best import best_items
from recbole_mm.serve.catalogue import Catalogue
from recbole_mm.serve.load import load
from recbole_mm.serve.pack import write_pack
from recbole_mm.serve.restored import Restored

Session = Sequence[object]
# Why a session got what it got.
POPULAR_EMPTY, POPULAR_UNKNOWN = "popular: empty session", "popular: no known item"


@dataclass(frozen=True)
class Recommendation:
    """What one session is recommended.

    Attributes
    ----------
    items
        Item ids, the best first.
    scores
        Their scores. For a session that got the popular items these are clicks in training.
    titles
        What to show of them; empty where the data have no text.
    note
        Empty, or that the popular items are shown, and why.
    skipped
        Items of the session that the model does not know.
    parts
        What each part of the score adds, by its name, one number per item: `Scorer.parts`.
    """

    items: list[str]
    scores: list[float]
    titles: list[str]
    note: str = ""
    skipped: int = 0
    parts: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Filters:
    """Which items may be recommended.

    Attributes
    ----------
    exclude_seen
        Leave out the items of the session.
    leave_out, keep_to
        Item ids never recommended, and the only ones that are; ids that are not known are no error.
    """

    exclude_seen: bool = False
    leave_out: frozenset[str] = frozenset()
    keep_to: frozenset[str] | None = None

    def rest(self, items: Catalogue) -> Tensor | None:
        """Return internal ids of the candidates, None for all.

        Raises
        ------
        DataError
            No item is left.
        """
        if not self.leave_out and self.keep_to is None:
            return None
        wanted = set(range(1, len(items)))
        if self.keep_to is not None:
            wanted &= set(items.ids(self.keep_to))
        wanted -= set(items.ids(self.leave_out))
        if not wanted:
            raise DataError(
                "the filters leave no item to recommend: none of keep_to is known, or leave_out "
                "names them all. Give ids of the data that the model was trained on."
            )
        return torch.tensor(sorted(wanted))


class Recommender:
    """A trained model that recommends items to sessions.

    Attributes
    ----------
    restored
        The model, its configuration and its data.
    config, items, scorer
        Three of its parts: the run's configuration, the catalogue, and what scores sessions.
    """

    def __init__(self, restored: Restored) -> None:
        self.restored = restored
        self.config, self.items = restored.config, restored.items
        self.scorer = restored.scorer

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Recommender:
        """Return the recommender of a run folder or a pack.

        A pack needs nothing but itself; a run folder reads the run's data again.

        Parameters
        ----------
        folder
            What ``run`` wrote, or `pack`.
        device
            ``"cpu"`` or ``"cuda"``.

        Raises
        ------
        recbole_mm.errors.MMError
            The folder is neither, is damaged, or its data have changed.
        """
        return cls(load(folder, device))

    def pack(self, output: str | Path) -> Path:
        """Write a pack, which `load` restores without the training data.

        Parameters
        ----------
        output
            The folder; a pack that is there already is replaced whole.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        CheckpointError
            The folder holds something else, this is a pack already, or the pack would not score as
            the run does.
        """
        return write_pack(self.restored, output)

    def recommend(
        self,
        sessions: Iterable[Session],
        k: int = 10,
        *,
        exclude_seen: bool | None = None,
        leave_out: Iterable[object] = (),
        keep_to: Iterable[object] | None = None,
        parts: bool = False,
    ) -> list[Recommendation]:
        """Recommend ``k`` items to each session.

        Parameters
        ----------
        sessions
            Item ids in order of time, the newest last. The newest ``MAX_ITEM_LIST_LENGTH`` known
            ones count.
        k
            Items per session; fewer where filters leave no more.
        exclude_seen
            Leave out the items of the session; None does what the run did (``history: mask``).
        leave_out, keep_to
            Item ids never recommended, and the only ones that are.
        parts
            Also say what each part of the score adds, where the model has parts.

        Returns
        -------
        list of Recommendation
            One per session, in their order.

        Raises
        ------
        DataError
            ``k`` is below 1, or the filters leave no item.
        """
        if exclude_seen is None:
            exclude_seen = bool(self.config["history"] == "mask")
        kept = None if keep_to is None else frozenset(map(str, keep_to))
        filters = Filters(exclude_seen, frozenset(map(str, leave_out)), kept)
        return list(self.stream(sessions, k, filters, parts))

    def part_names(self) -> list[str]:
        """Return the names of the parts of the score; none where the model has no parts."""
        return self.scorer.part_names()

    def stream(
        self, sessions: Iterable[Session], k: int, filters: Filters, parts: bool = False
    ) -> Iterator[Recommendation]:
        """Yield what `recommend` returns, batch by batch, so that any number of sessions fits."""
        if k < 1:
            raise DataError(f"k is {k}, expected 1 or more items to recommend.")
        rest = filters.rest(self.items)
        waiting: list[Session] = []
        for session in sessions:
            waiting.append(session)
            if len(waiting) == self.scorer.batch_size:
                yield from self._batch(waiting, k, filters, rest, parts)
                waiting = []
        if waiting:
            yield from self._batch(waiting, k, filters, rest, parts)

    def _batch(
        self,
        sessions: Sequence[Session],
        k: int,
        filters: Filters,
        rest: Tensor | None,
        parts: bool,
    ) -> Iterator[Recommendation]:
        """Yield the recommendations of a batch, in its order."""
        known = [self.items.ids(session) for session in sessions]
        scored = [ids for ids in known if ids]
        found = iter(self._scored(scored, k, filters, rest, parts) if scored else [])
        for session, ids in zip(sessions, known, strict=True):
            skipped = len(session) - len(ids)
            if ids:
                values, items, shares = next(found)
                yield self._told(values, items, "", skipped, shares)
            else:
                note = POPULAR_UNKNOWN if len(session) else POPULAR_EMPTY
                items = self._popular(k, rest)
                clicks = [float(self.items.clicks[item]) for item in items]
                yield self._told(clicks, items, note, skipped, {})

    def _scored(
        self,
        sessions: Sequence[Sequence[int]],
        k: int,
        filters: Filters,
        rest: Tensor | None,
        with_parts: bool,
    ) -> list[tuple[list[float], list[int], dict[str, list[float]]]]:
        """Return scores, internal ids and parts of the best items of each session."""
        rows = self.scorer.rows(sessions)
        scores = self.scorer.scores(rows)
        parts = self.scorer.parts(rows) if with_parts else {}
        if filters.exclude_seen:
            _strike_out(scores, sessions)
        values, items = _best(scores, k, rest)
        shares = {name: part.gather(1, items).tolist() for name, part in parts.items()}
        found = []
        ends = values.isfinite().sum(dim=1).tolist()
        listed = zip(values.tolist(), items.tolist(), ends, strict=True)
        for row, (of_row, ids, end) in enumerate(listed):
            own = {name: share[row][:end] for name, share in shares.items()}
            found.append((of_row[:end], ids[:end], own))
        return found

    def _popular(self, k: int, rest: Tensor | None) -> list[int]:
        """Return the most clicked items that the filters leave."""
        allowed = None if rest is None else set(rest.tolist())
        order = (int(item) for item in self.items.popular)
        wanted = (item for item in order if allowed is None or item in allowed)
        return [item for item, _ in zip(wanted, range(k), strict=False)]

    def _told(
        self,
        scores: list[float],
        items: Sequence[int],
        note: str,
        skipped: int,
        parts: dict[str, list[float]],
    ) -> Recommendation:
        tokens, titles = self.items.tokens, self.items.titles
        names = [tokens[item] for item in items]
        shown = [titles[item] for item in items]
        return Recommendation(names, scores, shown, note, skipped, parts)


def _strike_out(scores: Tensor, sessions: Sequence[Sequence[int]]) -> None:
    """Give all items of each session the score ``-inf``."""
    rows = [row for row, session in enumerate(sessions) for _ in session]
    items = [item for session in sessions for item in session]
    scores[rows, items] = -torch.inf


def _best(scores: Tensor, k: int, rest: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the best scores and internal ids ``(B, k)`` among the candidates."""
    if rest is None:
        return best_items(scores, k)
    rest = rest.to(scores.device)
    values, places = best_items(scores[:, rest], k)
    return values, rest[places]
