"""Settings of AlterRec, of its released code and of NFRec."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain
from recbole_mm.model.settings import TrainedSettings, fixed, option

BranchName = Literal["id", "text"]
SessionEncoder = Literal["transformer", "mean"]
ParameterInit = Literal["uniform", "normal"]
SchedulePolicy = Literal["parity", "algorithm1"]
Negatives = Literal["hard", "uniform", "full"]

BRANCHES: tuple[BranchName, ...] = ("id", "text")


@dataclass(frozen=True)
class TransformerSettings(TrainedSettings):
    """Depth, sizes and dropouts of a session encoder, the same keys in both models."""

    n_layers: int = option(2, "Layers of a Transformer.", min=1, max=1000)
    n_heads: int = option(2, "Attention heads; they divide the width of the item vectors.", min=1)
    inner_size: int = option(256, "Width inside a Transformer's feed-forward layers.", min=1)
    hidden_dropout_prob: float = option(
        0.1, "Share of values dropped: hidden states, mapped text.", min=0, below=1
    )
    attn_dropout_prob: float = option(0.1, "Share of attention weights dropped.", min=0, below=1)


class BranchSettings(NamedTuple):
    """The settings that each branch of AlterRec has for itself; docs/alterrec.md."""

    session_encoder: SessionEncoder
    temperature: float
    learning_rate: float | None
    lr_step_size: int


@dataclass(frozen=True)
class AlterRecSettings(TransformerSettings):
    """Settings of `AlterRec`; docs/alterrec.md explains every switch."""

    # ---- Architecture ----
    hidden_size: int = option(64, "Width of both branches; n_heads divides it.", min=1)
    id_session_encoder: SessionEncoder = option("transformer", "Session encoder of the ID branch.")
    text_session_encoder: SessionEncoder = option(
        "transformer", "Session encoder of the text branch."
    )
    parameter_init: ParameterInit = option(
        "normal", "All parameters from U(-1/sqrt(d), 1/sqrt(d)), or weights from N(0, 0.02)."
    )
    id_temperature: float | None = option(
        None,
        "ID scores are divided by it; ~ takes sqrt(hidden_size), with parameter_init: uniform 1.",
        above=0,
    )
    text_temperature: float | None = option(
        None,
        "Text scores are divided by it; ~ takes sqrt(hidden_size), with parameter_init: uniform "
        "0.07.",
        above=0,
    )
    fusion_weight: float = option(
        0.5, "Weight of the ID scores in prediction; the text scores get the rest.", min=0, max=1
    )
    # ---- Turns ----
    train_branches: tuple[BranchName, ...] = option(
        BRANCHES, "Branches that are trained and score: [id, text], [id] or [text]."
    )
    schedule_policy: SchedulePolicy = option(
        "parity", "Blocks by parity (released code), or the paper's Algorithm 1."
    )
    warmup_epochs: int = option(
        4, "Epochs with uniform negatives at the start, of both branches together.", min=0
    )
    alternation_epochs: int = option(2, "Epochs before the other branch takes over.", min=1)
    # ---- Negatives ----
    negative_sampling: Negatives = option(
        "hard", "From the other branch's list after the warm-up, uniform, or all items."
    )
    hard_negative_start_rank: int = option(
        20, "First rank of the window of hard negatives; ranks start at 1.", min=1
    )
    hard_negative_end_rank: int | float = option(
        0.5,
        "Last rank of the window: a whole number, or a share of the catalogue as a float in "
        "(0, 1].",
        above=0,
    )
    hard_negative_ratio: float = option(
        0.5, "Share of the negatives that come from the window; the rest is uniform.", min=0, max=1
    )
    # ---- Borrowed positives ----
    positive_augmentation: bool = option(
        False, "In hard epochs, let the best items of the other branch count as positives, too."
    )
    num_augmented_positives: int = option(5, "Borrowed positives per row.", min=1)
    augmentation_weight: float = option(0.5, "Weight of their loss.", min=0)
    augmentation_reduction: Literal["mean", "sum"] = option(
        "mean", "Mean over borrowed positives, or sum per row."
    )
    # ---- Learning rates ----
    id_learning_rate: float | None = option(
        None, "Step size of the ID branch; ~ takes learning_rate.", max=100, above=0
    )
    text_learning_rate: float | None = option(
        None, "Step size of the text branch; ~ takes learning_rate.", max=100, above=0
    )
    id_lr_step_size: int = option(
        2, "Epochs of the ID branch between two cuts of its step size.", min=1
    )
    text_lr_step_size: int = option(
        5, "Epochs of the text branch between two cuts of its step size.", min=1
    )
    lr_gamma: float = option(1.0, "Factor of a cut; 1 keeps the step size.", max=1, above=0)

    def __post_init__(self) -> None:
        last = self.hard_negative_end_rank
        if self.schedule_policy == "algorithm1" and self.warmup_epochs % 2:
            raise ConfigError(
                f"warmup_epochs={self.warmup_epochs} cannot be halved: schedule_policy=algorithm1 "
                "gives each branch half of them. Use an even number."
            )
        if self.negative_sampling == "hard" and len(self.branches) < 2:
            raise ConfigError(
                f"train_branches={list(self.branches)} leaves no other branch to take hard "
                "negatives from. Set --negative_sampling=uniform or --negative_sampling=full."
            )
        if isinstance(last, float) and last > 1.0:
            raise ConfigError(
                f"hard_negative_end_rank={last} is neither a rank nor a share: write a rank as a "
                "whole number and a share of the catalogue as a number in (0, 1]"
            )
        if self.positive_augmentation and self.negative_sampling != "hard":
            raise ConfigError(
                "positive_augmentation=true has no effect with "
                f"negative_sampling={self.negative_sampling}: positives are borrowed in epochs of "
                "hard negatives. Set --negative_sampling=hard or --positive_augmentation=false."
            )

    @property
    def branches(self) -> tuple[BranchName, ...]:
        """The branches that are trained, ID first."""
        return tuple(name for name in BRANCHES if name in self.train_branches)

    def of_branch(self, name: BranchName) -> BranchSettings:
        """Return what is set for one branch."""
        if name == "id":
            return BranchSettings(
                self.id_session_encoder,
                self._temperature(self.id_temperature, released=1.0),
                self.id_learning_rate,
                self.id_lr_step_size,
            )
        return BranchSettings(
            self.text_session_encoder,
            self._temperature(self.text_temperature, released=0.07),
            self.text_learning_rate,
            self.text_lr_step_size,
        )

    def _temperature(self, given: float | None, released: float) -> float:
        """Return what a branch's scores are divided by."""
        if given is not None:
            return given
        # Norms of scale 1 give vectors of length sqrt(d), and scores of unit spread after this.
        return math.sqrt(self.hidden_size) if self.parameter_init == "normal" else released

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        return ("text",) if "text" in self.train_branches else ()

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave each modality out; see the base class."""
        if len(self.branches) < 2:
            return {}
        # One branch alone has no hard negatives from the other.
        return {"text": {"train_branches": ["id"], "negative_sampling": "uniform"}}


@dataclass(frozen=True)
class OfficialAlterRecSettings(AlterRecSettings):
    """Settings of `OfficialAlterRec`: what is an option of the released code, too."""

    train_own_items: Literal["keep"] = fixed("keep")
    text_session_encoder: SessionEncoder = fixed("transformer")
    parameter_init: ParameterInit = fixed("uniform")
    id_temperature: float | None = fixed(1.0)
    schedule_policy: SchedulePolicy = fixed("parity")
    augmentation_reduction: Literal["mean", "sum"] = fixed("mean")


@dataclass(frozen=True)
class NFRecSettings(TransformerSettings):
    """Settings of `NFRec`; docs/nfrec.md explains every switch."""

    hidden_size: int = option(
        64, "Width of each component; joined vectors are twice as wide.", min=1
    )
    components: Literal["both", "id", "text"] = option("both", "Components of an item's vector.")
    fusion: Literal["sum", "concat"] = option(
        "sum", "Add the components, or join them side by side; with components: both."
    )
    session_encoder: SessionEncoder = option(
        "mean",
        "Session vector: mean of the item vectors, or last position of a causal Transformer.",
    )

    def __post_init__(self) -> None:
        if self.session_encoder == "transformer" and self.width % self.n_heads:
            raise ConfigError(
                f"n_heads={self.n_heads} does not divide the width {self.width} of the fused item "
                "vectors; choose a divisor, for example --n_heads=2"
            )

    @property
    def names(self) -> tuple[BranchName, ...]:
        """The components, ID first."""
        return BRANCHES if self.components == "both" else (self.components,)

    @property
    def joined(self) -> bool:
        """Whether the components stand side by side."""
        return self.components == "both" and self.fusion == "concat"

    @property
    def width(self) -> int:
        """Width of the fused item vectors."""
        return self.hidden_size * (2 if self.joined else 1)

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        return ("text",) if "text" in self.names else ()

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave each modality out; see the base class."""
        return {"text": {"components": "id"}} if self.components == "both" else {}
