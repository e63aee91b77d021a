"""Scores from counts of pairs: popularity in the session, and rules between items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import scipy.sparse as sp
import torch
from recbole.config import Config
from torch import Tensor

from recbole_mm.data.fits import enlarged
from recbole_mm.graph.distance import directed_cooccurrence, distance_cooccurrence, heaviest
from recbole_mm.graph.distance import normalised as normalised_graph
from recbole_mm.model.counting.base import CountingRecommender
from recbole_mm.model.counting.history import History
from recbole_mm.model.counting.settings import (
    Choice,
    CountingSettings,
    Grid,
    Rule,
    SessionRulesSettings,
    SPopSettings,
)

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset
    from recbole_mm.data.sessions import Sessions


def rule_counts(
    sessions: Sessions, n_items: int, rule: Rule, window: int = 10, n_partners: int = 0
) -> sp.csr_matrix:
    """Count the pairs of a rule (Ludewig & Jannach, UMUAI 2018, section 3).

    ``markov``: ``j`` directly after ``i``. ``sequential``: ``j`` after ``i``, weight 1/distance.
    ``association``: both in one session. ``cooccurrence``: weight 1/distance in either order.
    An item is no partner of its own.

    Parameters
    ----------
    sessions
        Training sessions.
    n_items
        Number of items ``N``, padding included.
    rule
        Its name.
    window
        Farthest distance of ``sequential`` and ``cooccurrence``; 0 for any.
    n_partners
        Partners kept per item, before rows are normalised; 0 keeps all.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32 ``(N, N)``; rows have sum 1, those of items without partners are empty.
    """
    if rule == "markov":
        counts = directed_cooccurrence(sessions, n_items, weight="count", window=1)
    elif rule == "sequential":
        counts = directed_cooccurrence(sessions, n_items, window=window)
    elif rule == "association":
        counts = distance_cooccurrence(sessions, n_items, weight="count")
    else:
        counts = distance_cooccurrence(sessions, n_items, window=window)
    return normalised_graph(heaviest(counts, n_partners), "row")


def counts_by_rule(
    dataset: SessionDataset, n_items: int, settings: CountingSettings | SessionRulesSettings
) -> dict[Rule, sp.csr_matrix]:
    """Return `rule_counts` of each rule the settings try, ``(N, N)`` each."""
    sizes = settings.window, settings.n_partners
    return dataset.fitted(
        "rules",
        lambda: {
            rule: rule_counts(dataset.train_sessions, n_items, rule, *sizes)
            for rule in settings.grid().rule
        },
        lambda kept: {rule: enlarged(counts, n_items) for rule, counts in kept.items()},
    )


def spread(history: History, rule: Rule, decay: float, counts: sp.csr_matrix) -> Tensor:
    """Return ``sum_i w_i C(h_i, j)``, ``(B, N)``; a Markov chain knows the last item alone."""
    weights = history.matrix(history.decayed(0.0 if rule == "markov" else decay))
    return torch.from_numpy((weights @ counts).toarray())


class SPop(CountingRecommender):
    """How often an item stands in the session, then popularity (Hidasi et al., ICLR 2016)."""

    Settings: ClassVar[type[SPopSettings]] = SPopSettings

    def variants(self, history: History, grid: Grid) -> Iterator[tuple[Choice, Tensor]]:
        """Yield the counts in the session; popularity orders equal ones."""
        counts = history.matrix(history.inside).toarray()
        yield grid.first(), torch.from_numpy(counts).to(self.device)


class SessionRules(CountingRecommender):
    """``score(j) = sum_i w_i C(h_i, j) / sum_k C(h_i, k)``, ``w_i = exp(-age_i / decay)``.

    ``C`` counts the pairs of a rule in the training sessions, see `rule_counts`; with a decay of 0
    these are the rules of Ludewig & Jannach (UMUAI 2018), which know the last item alone.
    """

    Settings: ClassVar[type[SessionRulesSettings]] = SessionRulesSettings
    settings: SessionRulesSettings

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        self.counts = counts_by_rule(dataset, self.n_items, self.settings)

    def variants(self, history: History, grid: Grid) -> Iterator[tuple[Choice, Tensor]]:
        """Yield the scores by rule and decay; see the base class."""
        for rule in grid.rule:
            for decay in grid.decay:
                scores = spread(history, rule, decay, self.counts[rule]).to(self.device)
                yield Choice(rule, decay), scores
