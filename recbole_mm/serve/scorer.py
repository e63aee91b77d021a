"""Scores of sessions that no data set holds: ids in, a table of scores out."""

from __future__ import annotations

from collections.abc import Sequence
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
        self._weights: Tensor | None = None

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
        if not isinstance(self.model, HasScoreParts):
            return []
        return list(self.model.score_parts(self.rows([[1]])))

    @torch.no_grad()
    def parts(self, rows: Interaction, scores: Tensor) -> dict[str, Tensor]:
        """Return what each part adds to the scores above the mean item, ``(B, N)`` by name.

        A model's parts need not be on the scale of its score (the weight of a fusion stands apart),
        so each is weighted as the first batch says by least squares; where the score is the
        weighted sum, contributions add up to the score minus its mean over the items.

        Parameters
        ----------
        rows
            What was scored.
        scores
            Its scores ``(B, N)`` as `scores` gave them.
        """
        if not isinstance(self.model, HasScoreParts):
            return {}
        found = self.model.score_parts(rows)
        moved = {name: _above_mean(part.view(len(rows), -1)) for name, part in found.items()}
        if not moved:
            return {}
        if self._weights is None:
            self._weights = _weights(list(moved.values()), _above_mean(scores))
        return {
            name: part * weight
            for (name, part), weight in zip(moved.items(), self._weights, strict=True)
        }


def _above_mean(scores: Tensor) -> Tensor:
    """Return scores minus their mean over the items; padding has 0."""
    moved = torch.zeros_like(scores)
    moved[:, 1:] = scores[:, 1:] - scores[:, 1:].mean(dim=1, keepdim=True)
    return moved


def _weights(parts: Sequence[Tensor], whole: Tensor) -> Tensor:
    """Return the weight of each part in the whole, by least squares."""
    columns = torch.stack([part.flatten() for part in parts], dim=1).double()
    squares = columns.T @ columns
    # A part that is the same for all items weighs nothing.
    return torch.linalg.lstsq(squares, columns.T @ whole.flatten().double()).solution.float()
