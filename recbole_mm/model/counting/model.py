"""Counting: what an untrained sum of a rule and the texts' likeness reaches, the floor of a table.

Symbols: ``N`` items (0 is padding), ``h_1..h_t`` a history, ``C`` counts of a rule in the training
sessions, ``f`` TF-IDF of an item's text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import torch
from recbole.config import Config
from torch import Tensor

from recbole_mm.model.counting.base import CountingRecommender
from recbole_mm.model.counting.content import content_partners
from recbole_mm.model.counting.history import History
from recbole_mm.model.counting.rules import counts_by_rule, spread
from recbole_mm.model.counting.scores import z_scores
from recbole_mm.model.counting.settings import Choice, CountingSettings, Grid

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset

logger = logging.getLogger(__name__)


class Counting(CountingRecommender):
    """``score(j) = z(rule)_j + beta z(content)_j``, ``z`` over all items of the row.

    ``rule_j = sum_i w_i C(h_i, j) / sum_k C(h_i, k)`` and ``content_j = sum_i w_i cos(f(h_i),
    f(j))`` with ``w_i = exp(-age_i / decay)``. Rule, decay, beta, and whether own items come last,
    are chosen on validation where they are not given. Without texts the rule stands alone.
    """

    Settings: ClassVar[type[CountingSettings]] = CountingSettings
    settings: CountingSettings

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        read = self.settings
        self.counts = counts_by_rule(dataset, self.n_items, read)
        self.cosines = content_partners(dataset, read.modality, read.n_content)
        if self.cosines is None:
            logger.info("Counting: no texts in %s, the rule alone", dataset.item_columns.path)
            self.chosen["beta"] = 0.0

    def grid(self) -> Grid:
        """Return the values of each key that are tried; without texts beta is 0."""
        tried = self.settings.grid()
        # The base class asks before there are any cosines.
        return tried if getattr(self, "cosines", 0) is not None else tried._replace(beta=(0.0,))

    def variants(self, history: History, grid: Grid) -> Iterator[tuple[Choice, Tensor]]:
        """Yield the scores by decay, rule and beta; see the base class."""
        for decay in grid.decay:
            content = self._content(history, decay) if any(grid.beta) else torch.zeros(())
            for rule in grid.rule:
                counted = z_scores(spread(history, rule, decay, self.counts[rule]).to(self.device))
                for beta in grid.beta:
                    yield Choice(rule, decay, beta), counted.add(content, alpha=beta)

    def _content(self, history: History, decay: float) -> Tensor:
        """Return the z-scored cosines ``(B, N)``."""
        assert self.cosines is not None
        scores = history.matrix(history.decayed(decay)) @ self.cosines
        return z_scores(torch.from_numpy(scores.toarray()).to(self.device))
