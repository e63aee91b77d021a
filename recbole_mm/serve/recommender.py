"""Recommendations for sessions, from a run folder or a pack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from recbole_mm.serve.best import best_items
from recbole_mm.serve.load import load
from recbole_mm.serve.new_files import new_items
from recbole_mm.serve.new_items import with_new_items
from recbole_mm.serve.pack import write_pack
from recbole_mm.serve.restored import Restored
from recbole_mm.serve.wishes import Wish

Session = Sequence[object]
# Scores, internal ids, and parts by name of what one session is recommended.
Scored = tuple[list[float], list[int], dict[str, list[float]]]
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

    def with_new_items(
        self,
        rows: Sequence[Mapping[str, object]],
        new_item_ids: str = "neighbours",
        vectors: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    ) -> Recommender:
        """Return a recommender that also ranks items which were not there in training.

        What the model reads of an item's content comes from the item itself, by what was fitted in
        training. What it learned by item id is filled.

        Parameters
        ----------
        rows
            One per item: its id under the name of training (``item_id``), and the columns that made
            its text, price or category there; ``image`` names a picture file. Texts and pictures
            are encoded as in training.
        new_item_ids
            Rows learned by item id: ``neighbours``, the mean of those of the ten trained items
            nearest by content, or ``zero``.
        vectors
            Vectors by modality and item id, in the place of encoding.

        Raises
        ------
        recbole_mm.errors.MMError
            An id is known already, a cell or vector does not fit, or an encoder is missing.
        """
        new = new_items(self.restored, rows, vectors)
        return Recommender(with_new_items(self.restored, new, new_item_ids))

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
        masked = self.config["history"] == "mask"
        seen = masked if exclude_seen is None else exclude_seen
        wish = Wish.of(self.items, k, seen, leave_out, keep_to, parts)
        return list(self.stream(sessions, wish))

    def part_names(self) -> list[str]:
        """Return the names of the parts of the score; none where the model has no parts."""
        return self.scorer.part_names()

    def stream(self, sessions: Iterable[Session], wish: Wish) -> Iterator[Recommendation]:
        """Yield what `recommend` returns, batch by batch, so that any number of sessions fits."""
        waiting: list[Session] = []
        for session in sessions:
            waiting.append(session)
            if len(waiting) == self.scorer.batch_size:
                yield from self.answer(waiting, [wish] * len(waiting))
                waiting = []
        yield from self.answer(waiting, [wish] * len(waiting))

    def answer(self, sessions: Sequence[Session], wishes: Sequence[Wish]) -> list[Recommendation]:
        """Return what each session is recommended by its own wish, scored all at once.

        Parameters
        ----------
        sessions
            Item ids; no more sessions than ``scorer.batch_size``, or memory grows.
        wishes
            One per session.
        """
        known = [self.items.ids(session) for session in sessions]
        places = [place for place, ids in enumerate(known) if ids]
        asked = [known[place] for place in places]
        found = self._scored(asked, [wishes[place] for place in places]) if places else []
        scored = dict(zip(places, found, strict=True))
        told = []
        for place, (session, ids) in enumerate(zip(sessions, known, strict=True)):
            skipped = len(session) - len(ids)
            if place in scored:
                told.append(self._told(*scored[place], "", skipped))
            else:
                note = POPULAR_UNKNOWN if len(session) else POPULAR_EMPTY
                told.append(self._told(*self._popular(wishes[place]), {}, note, skipped))
        return told

    def _scored(self, sessions: Sequence[Sequence[int]], wishes: Sequence[Wish]) -> list[Scored]:
        """Return scores, internal ids and parts of the best items of each session."""
        rows = self.scorer.rows(sessions)
        scores = self.scorer.scores(rows)
        wanted = any(wish.parts for wish in wishes)
        parts = self.scorer.parts(rows) if wanted else {}
        _bar(scores, sessions, wishes)
        values, items = best_items(scores, max(wish.k for wish in wishes))
        ends = values.isfinite().sum(dim=1).tolist()
        lists = values.tolist(), items.tolist()
        shares = {name: part.gather(1, items).tolist() for name, part in parts.items()}
        found = []
        for row, wish in enumerate(wishes):
            end = min(ends[row], wish.k)
            own = {name: share[row][:end] for name, share in shares.items()} if wish.parts else {}
            found.append((lists[0][row][:end], lists[1][row][:end], own))
        return found

    def _popular(self, wish: Wish) -> tuple[list[float], list[int]]:
        """Return clicks and ids of the most clicked items that the filters leave."""
        barred = set() if wish.barred is None else set(wish.barred.tolist())
        left = (item for item in self.items.popular.tolist() if item not in barred)
        items = list(islice(left, wish.k))
        return [float(self.items.clicks[item]) for item in items], items

    def _told(
        self,
        scores: list[float],
        items: Sequence[int],
        parts: dict[str, list[float]],
        note: str,
        skipped: int,
    ) -> Recommendation:
        tokens, titles = self.items.tokens, self.items.titles
        names = [tokens[item] for item in items]
        shown = [titles[item] for item in items]
        return Recommendation(names, scores, shown, note, skipped, parts)


def _bar(scores: Tensor, sessions: Sequence[Sequence[int]], wishes: Sequence[Wish]) -> None:
    """Give what is not to be recommended the score ``-inf``."""
    rows: list[int] = []
    items: list[int] = []
    for row, (session, wish) in enumerate(zip(sessions, wishes, strict=True)):
        if wish.exclude_seen:
            rows += [row] * len(session)
            items += session
    scores[rows, items] = -torch.inf
    by_list: dict[int, tuple[Tensor, list[int]]] = {}
    for row, wish in enumerate(wishes):
        if wish.barred is not None:
            by_list.setdefault(id(wish.barred), (wish.barred, []))[1].append(row)
    for barred, where in by_list.values():
        scores[torch.tensor(where)[:, None], barred] = -torch.inf
