"""Scores that are counted, each a part that a network's score can take.

Symbols: ``B`` rows, ``N`` items (0 is padding), ``h_1..h_t`` a history, ``w_i = exp(-age_i /
decay)``, ``C`` counts of a rule in the training sessions, ``f`` TF-IDF of an item's text.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_mm.data.fits import enlarged
from recbole_mm.model.counting.content import content_partners
from recbole_mm.model.counting.history import History
from recbole_mm.model.counting.rules import rule_counts, spread
from recbole_mm.model.counting.scores import z_scores
from recbole_mm.model.counting.settings import DECAYS, RULES, Rule

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset

logger = logging.getLogger(__name__)

# As `Counting` has them.
_WINDOW, _N_CONTENT = 10, 300


class Variant(NamedTuple):
    """One way to count: the rule, where there is one, and the decay of the history."""

    decay: float
    rule: Rule = RULES[0]


class Counted(ABC):
    """A part of a score that is counted in training sessions or texts, not learned.

    Attributes
    ----------
    name
        Its name in ``score_parts``.
    variants
        The ways to count among which validation rows choose.
    """

    name: ClassVar[str]
    variants: tuple[Variant, ...]

    @abstractmethod
    def raw(self, history: History, variant: Variant) -> Tensor:
        """Return the scores ``(B, N)``, on the CPU."""

    def z(self, history: History, variant: Variant, device: torch.device | str) -> Tensor:
        """Return the scores ``(B, N)`` with mean 0 and deviation 1 in each row; padding has 0."""
        return z_scores(self.raw(history, variant).to(device))


class Transitions(Counted):
    """``sum_i w_i C(h_i, j) / sum_k C(h_i, k)``, see `rule_counts`."""

    name = "transitions"

    def __init__(self, dataset: SessionDataset, n_items: int) -> None:
        self.counts: dict[Rule, sp.csr_matrix] = dataset.fitted(
            "transitions",
            lambda: {
                rule: rule_counts(dataset.train_sessions, n_items, rule, _WINDOW) for rule in RULES
            },
            lambda kept: {rule: enlarged(counts, n_items) for rule, counts in kept.items()},
        )
        # A Markov chain knows the last item alone, whatever the decay.
        self.variants = tuple(
            Variant(decay, rule)
            for rule in RULES
            for decay in (DECAYS if rule != "markov" else (0.0,))
        )

    def raw(self, history: History, variant: Variant) -> Tensor:
        """Return the scores ``(B, N)``; see the base class."""
        return spread(history, variant.rule, variant.decay, self.counts[variant.rule])


class Lexical(Counted):
    """``sum_i w_i cos(f(h_i), f(j))``, of the 300 largest cosines per item."""

    name = "lexical"

    def __init__(self, cosines: sp.csr_matrix) -> None:
        self.cosines = cosines
        self.variants = tuple(Variant(decay) for decay in DECAYS)

    def raw(self, history: History, variant: Variant) -> Tensor:
        """Return the scores ``(B, N)``; see the base class."""
        found = history.matrix(history.decayed(variant.decay)) @ self.cosines
        return torch.from_numpy(found.toarray())


class UnseenItems(Counted):
    """1 for an item that no training session holds, 0 for the others (ours).

    A network's vector of such an item was pushed away from every session that it was trained on,
    and nothing pulled it back. The weight says how far it is lifted, so that its content counts.
    """

    name = "unseen_items"
    variants = (Variant(0.0),)

    def __init__(self, train_counts: NDArray[np.int64]) -> None:
        self.unseen = torch.from_numpy(np.asarray(train_counts) == 0).float()
        self.unseen[0] = 0.0  # Padding is no item.

    def raw(self, history: History, variant: Variant) -> Tensor:
        """Return the numbers ``(B, N)``, the same in each row."""
        return self.unseen.expand(len(history.items), -1)

    def z(self, history: History, variant: Variant, device: torch.device | str) -> Tensor:
        """Return the numbers as they are: z-scores would depend on how many items are unseen."""
        return self.raw(history, variant).to(device)


def counted_parts(dataset: SessionDataset, names: Iterable[str], n_items: int) -> list[Counted]:
    """Make the counted parts among ``names``, in a fixed order; without texts none is lexical."""
    wanted, parts = set(names), list[Counted]()
    if Transitions.name in wanted:
        parts.append(Transitions(dataset, n_items))
    if Lexical.name in wanted:
        cosines = content_partners(dataset, None, _N_CONTENT)
        if cosines is not None:
            parts.append(Lexical(cosines))
        else:
            logger.warning(
                "score_parts: lexical is left out, %s holds no text: no usual text column, or no "
                "word that two items share. text_fields in dataset.json names other columns",
                dataset.item_columns.path,
            )
    if UnseenItems.name in wanted:
        parts.append(UnseenItems(dataset.train_counts))
    return parts
