"""Scores of sessions that no data set holds: ids in, a table of scores out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_mm.evaluation.hooks import HasScoreParts

if TYPE_CHECKING:
    from recbole.model.abstract_recommender import AbstractRecommender

    from recbole_mm.config import MMConfig

# Scores held at once: 16 MB, which stays near the processor; four times as much is slower.
_CELLS = 4_000_000
# What rounding leaves of a difference; sessions of one item that are looked at for weights.
_ROUNDING, _LOOKED_AT = 1e-4, 64


class Scorer:
    """A model in evaluation mode, asked for sessions instead of rows of a data set.

    Parameters
    ----------
    config
        The run's configuration: names of the columns, length of a history, device.
    model
        The trained model.
    n_items
        Number of items, padding included.
    """

    def __init__(self, config: MMConfig, model: AbstractRecommender, n_items: int) -> None:
        self.model, self.n_items = model.eval(), n_items
        self.device = config["device"]
        self.length = int(config["MAX_ITEM_LIST_LENGTH"])
        item = config["ITEM_ID_FIELD"]
        self._session, self._target = config["USER_ID_FIELD"], item
        self._history = item + config["LIST_SUFFIX"]
        self._lengths = config["ITEM_LIST_LENGTH_FIELD"]
        self._weights: dict[str, float] | None = None

    @property
    def batch_size(self) -> int:
        """Sessions to be scored at once, so that their scores stay below 16 MB; one at least."""
        return max(1, min(1024, _CELLS // self.n_items))

    @property
    def has_parts(self) -> bool:
        """Whether the model has a score made of parts."""
        return isinstance(self.model, HasScoreParts)

    def rows(self, sessions: Sequence[Sequence[int]]) -> Interaction:
        """Return sessions of item ids as the rows that the model is evaluated on.

        The newest items are kept. A new session has no id of its own: it gets 0.
        """
        cut = [list(session[-self.length :]) for session in sessions]
        padded = [session + [0] * (self.length - len(session)) for session in cut]
        nobody = torch.zeros(len(cut), dtype=torch.int64)
        columns = {
            self._session: nobody,
            self._target: nobody,
            self._history: torch.tensor(padded, dtype=torch.int64).view(-1, self.length),
            self._lengths: torch.tensor([len(session) for session in cut], dtype=torch.int64),
        }
        return Interaction(columns).to(self.device)

    @torch.no_grad()
    def scores(self, rows: Interaction) -> Tensor:
        """Return the scores ``(B, N)``, which the caller may change; padding has ``-inf``."""
        found = self.model.full_sort_predict(rows).view(len(rows), -1)
        # Pop's scores are one row seen many times.
        found = found.float() if found.stride(0) else found.float().clone()
        found[:, 0] = -torch.inf
        return found

    @torch.no_grad()
    def part_names(self) -> list[str]:
        """Return the names of the parts of the score; none where the model has no parts."""
        return list(self._part_weights())

    def _part_weights(self) -> dict[str, float]:
        """Return the weight of each part that makes the score, found once."""
        if self._weights is None:
            rows = self.rows([[item] for item in range(1, min(self.n_items, _LOOKED_AT))])
            parts, scores = self._moved_parts(rows), _above_mean(self.scores(rows))
            self._weights = _weights(parts, scores, rows[self._history])
        return self._weights

    def _moved_parts(self, rows: Interaction) -> dict[str, Tensor]:
        """Return each part of the score minus its mean, ``(B, N)`` by name."""
        if not isinstance(self.model, HasScoreParts):
            return {}
        found = self.model.score_parts(rows)
        return {name: _above_mean(part.view(len(rows), -1)) for name, part in found.items()}

    @torch.no_grad()
    def parts(self, rows: Interaction) -> dict[str, Tensor]:
        """Return what each part adds to the scores above the mean item, ``(B, N)`` by name.

        Where the first parts add up to the score, as those of ``score_parts`` do, they are it, and
        parts of these parts are left out. Else a weight stands apart (that of a fusion): each part
        is weighted by least squares on sessions of one item.
        """
        weights, moved = self._part_weights(), self._moved_parts(rows)
        return {name: weight * moved[name] for name, weight in weights.items() if name in moved}


def _above_mean(scores: Tensor) -> Tensor:
    """Return scores minus their mean over the items; padding has 0."""
    moved = torch.zeros_like(scores)
    moved[:, 1:] = scores[:, 1:] - scores[:, 1:].mean(dim=1, keepdim=True)
    return moved


def _weights(parts: Mapping[str, Tensor], whole: Tensor, history: Tensor) -> dict[str, float]:
    """Return the weights of the parts that make the whole, ``(B, N)`` each.

    Items of the ``history`` ``(B, L)`` may be put last by the model; without them is tried second.
    """
    others = torch.ones_like(whole, dtype=torch.bool).scatter(1, history, False)
    for where in (torch.ones_like(others), others):
        total = torch.zeros_like(whole)
        for number, part in enumerate(parts.values(), start=1):
            total = total + part
            if _agree(total, whole, where):
                return dict.fromkeys(list(parts)[:number], 1.0)
    if not parts:
        return {}
    columns = torch.stack([part.flatten() for part in parts.values()], dim=1).double()
    # A part that is the same for all items weighs nothing.
    solved = torch.linalg.lstsq(columns.T @ columns, columns.T @ whole.flatten().double())
    return dict(zip(parts, solved.solution.tolist(), strict=True))


def _agree(total: Tensor, whole: Tensor, where: Tensor) -> bool:
    """Return whether two tables agree up to a constant per row."""
    apart = whole - total
    # The median: items that were put last move the mean.
    apart = (apart - apart[:, 1:].median(dim=1, keepdim=True).values).abs() * where
    return bool((apart[:, 1:] <= _ROUNDING * whole.abs().max()).all())
