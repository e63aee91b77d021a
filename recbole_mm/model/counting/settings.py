"""Settings of the models that count; docs/counting.md explains every key.

A key that is ``~`` and says so in its help is chosen on the validation rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from recbole_mm.files import Plain
from recbole_mm.model.settings import ModelSettings, option

Rule = Literal["cooccurrence", "sequential", "association", "markov"]
Weighting = Literal["same", "linear", "decay"]

RULES: tuple[Rule, ...] = get_args(Rule)
# What is tried on validation. A decay of 0 is the last item alone.
DECAYS = (1.5, 0.0, 0.75, 4.0, 16.0)
BETAS = (0.5, 0.0, 0.25, 1.0, 2.0)


class Choice(NamedTuple):
    """What is chosen on validation; the defaults serve where there are no validation rows."""

    rule: Rule = RULES[0]
    decay: float = DECAYS[0]
    beta: float = 0.0
    own_last: bool = False


class Grid(NamedTuple):
    """The values that are tried, by key; of equally good ones the first is taken."""

    rule: tuple[Rule, ...] = (Choice().rule,)
    decay: tuple[float, ...] = (Choice().decay,)
    beta: tuple[float, ...] = (Choice().beta,)
    own_last: tuple[bool, ...] = (Choice().own_last,)

    @classmethod
    def of(cls, choice: Choice) -> Grid:
        """Return the grid of one choice."""
        return cls((choice.rule,), (choice.decay,), (choice.beta,), (choice.own_last,))

    def first(self) -> Choice:
        """Return the first value of each key."""
        return Choice(self.rule[0], self.decay[0], self.beta[0], self.own_last[0])

    def size(self) -> int:
        """Return the number of choices."""
        return len(self.rule) * len(self.decay) * len(self.beta) * len(self.own_last)


def _decay() -> float | None:
    found: float | None = option(
        None,
        "Weight exp(-age / decay) of an item of the history, age 0 for the last; 0 takes the last "
        "alone; ~ is chosen on validation.",
        min=0,
    )
    return found


def _own_last() -> bool | None:
    found: bool | None = option(
        None, "Rank the items of the history below all others; ~ is chosen on validation."
    )
    return found


@dataclass(frozen=True)
class CountingModelSettings(ModelSettings):
    """Settings of a model that counts."""

    def grid(self) -> Grid:
        """Return the values of each key that are tried on validation."""
        return Grid()


@dataclass(frozen=True)
class SPopSettings(CountingModelSettings):
    """Settings of `SPop`, which has none."""


@dataclass(frozen=True)
class SessionRulesSettings(CountingModelSettings):
    """Settings of `SessionRules`."""

    rule: Rule | None = option(
        "cooccurrence", "Which pairs of a session count; ~ is chosen on validation."
    )
    window: int = option(
        10, "Farthest distance of a pair of cooccurrence and sequential; 0 for any.", min=0
    )
    decay: float | None = _decay()
    own_last: bool | None = _own_last()
    n_partners: int = option(0, "Partners kept per item; 0 keeps all.", min=0)

    def grid(self) -> Grid:
        """Return the values of each key that are tried on validation."""
        return Grid(
            rule=RULES if self.rule is None else (self.rule,),
            decay=DECAYS if self.decay is None else (self.decay,),
            own_last=(False, True) if self.own_last is None else (self.own_last,),
        )


@dataclass(frozen=True)
class SessionKNNSettings(CountingModelSettings):
    """Settings of `SessionKNN`."""

    k: int = option(500, "Neighbours: sessions that vote.", min=1)
    sample_size: int = option(
        5000, "Newest sessions with an item of the history that are compared; 0 for all.", min=0
    )
    weighting: Weighting = option(
        "decay", "Weights of the history: all the same, falling linearly, or by decay."
    )
    decay: float = option(1.5, "Weight exp(-age / decay), with weighting: decay.", above=0)
    recency: float | None = option(
        None,
        "Weight exp(-a / recency) of a neighbour, a the share of training sessions after it; "
        "~ weighs all alike.",
        above=0,
    )
    neighbour_decay: float | None = option(
        1.5,
        "Weight exp(-d / neighbour_decay) of a vote, d positions from the newest shared item; "
        "~ weighs all alike.",
        above=0,
    )
    idf: bool = option(False, "Multiply votes by ln(sessions / sessions with the item).")
    own_last: bool | None = _own_last()

    def grid(self) -> Grid:
        """Return the values of each key that are tried on validation."""
        return Grid(own_last=(False, True) if self.own_last is None else (self.own_last,))


@dataclass(frozen=True)
class ContentKNNSettings(CountingModelSettings):
    """Settings of `ContentKNN`."""

    modality: str | None = option(
        None, "Feature file whose vectors are compared, such as text; ~ takes TF-IDF of the texts."
    )
    decay: float | None = _decay()
    own_last: bool | None = _own_last()
    n_partners: int = option(300, "Items of the largest cosine kept per item.", min=1)

    def grid(self) -> Grid:
        """Return the values of each key that are tried on validation."""
        return Grid(
            decay=DECAYS if self.decay is None else (self.decay,),
            own_last=(False, True) if self.own_last is None else (self.own_last,),
        )

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modality, if one is named."""
        return () if self.modality is None else (self.modality,)


@dataclass(frozen=True)
class CountingSettings(CountingModelSettings):
    """Settings of `Counting`."""

    rule: Rule | None = option(None, "Which pairs of a session count; ~ is chosen on validation.")
    window: int = option(
        10, "Farthest distance of a pair of cooccurrence and sequential; 0 for any.", min=0
    )
    modality: str | None = option(
        None, "Feature file whose vectors are compared, such as text; ~ takes TF-IDF of the texts."
    )
    decay: float | None = _decay()
    beta: float | None = option(
        None, "Weight of the content beside the rule, both z-scored; ~ is chosen on validation.",
        min=0,
    )  # fmt: skip
    own_last: bool | None = _own_last()
    n_partners: int = option(0, "Partners by rule kept per item; 0 keeps all.", min=0)
    n_content: int = option(300, "Partners by content kept per item.", min=1)

    def grid(self) -> Grid:
        """Return the values of each key that are tried on validation."""
        return Grid(
            rule=RULES if self.rule is None else (self.rule,),
            decay=DECAYS if self.decay is None else (self.decay,),
            beta=BETAS if self.beta is None else (self.beta,),
            own_last=(False, True) if self.own_last is None else (self.own_last,),
        )

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modality, if one is named."""
        return () if self.modality is None else (self.modality,)

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave each modality out; see the base class."""
        # Without a modality the texts themselves are compared, by TF-IDF.
        return {} if self.beta == 0 else {self.modality or "text": {"beta": 0.0}}
