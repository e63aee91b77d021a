"""Settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recbole_mm.model.settings import ModelSettings, option


@dataclass(frozen=True)
class AlterRecSettings(ModelSettings):
    """Settings of `AlterRec`; docs/alterrec.md explains every switch."""

    # ---- Architecture ----
    hidden_size: int = option(64, "Width of both branches; n_heads divides it.", min=1)
    id_session_encoder: Literal["transformer", "mean"] = option(
        "transformer", "Session encoder of the ID branch."
    )
    text_session_encoder: Literal["transformer", "mean"] = option(
        "transformer", "Session encoder of the text branch."
    )
    n_layers: int = option(2, "Layers of the Transformers.", min=1)
    n_heads: int = option(2, "Attention heads; they divide hidden_size.", min=1)
    inner_size: int = option(256, "Width inside the Transformers' feed-forward layers.", min=1)
    hidden_act: Literal["relu", "gelu", "swish", "tanh", "sigmoid"] = option(
        "relu", "Activation of the feed-forward layers."
    )
    layer_norm_eps: float = option(
        1e-06, "Added to the variance in the Transformers' layer normalisation.", above=0
    )
    hidden_dropout_prob: float = option(
        0.1, "Share of values dropped: hidden states, mapped text.", min=0, below=1
    )
    attn_dropout_prob: float = option(0.1, "Share of attention weights dropped.", min=0, below=1)
    item_layer_norm: bool = option(True, "Normalise the item vectors of both branches.")
    parameter_init: Literal["uniform", "normal"] = option(
        "normal", "All parameters from U(-1/sqrt(d), 1/sqrt(d)), or weights from N(0, 0.02)."
    )
    id_temperature: float | None = option(
        None,
        "ID scores are divided by it; ~ takes sqrt(hidden_size), or 1 with parameter_init: uniform.",
        above=0,
    )
    text_temperature: float | None = option(
        None,
        "Text scores are divided by it; ~ takes sqrt(hidden_size), or 0.07 with parameter_init: uniform.",
        above=0,
    )
    fusion_weight: float = option(
        0.5, "Weight of the ID scores in prediction; the text scores get the rest.", min=0, max=1
    )
    # ---- Turns ----
    train_branches: tuple[Literal["id", "text"], ...] = option(
        ("id", "text"), "Branches that are trained and score: [id, text], [id] or [text]."
    )
    schedule_policy: Literal["parity", "algorithm1"] = option(
        "parity", "Blocks by parity (released code), or the paper's Algorithm 1."
    )
    warmup_epochs: int = option(
        4, "Epochs with uniform negatives at the start, of both branches together.", min=0
    )
    alternation_epochs: int = option(2, "Epochs before the other branch takes over.", min=1)
    # ---- Negatives ----
    negative_sampling: Literal["hard", "uniform", "full"] = option(
        "hard", "From the other branch's list after the warm-up, uniform, or all items."
    )
    hard_negative_start_rank: int = option(
        20, "First rank of the window of hard negatives; ranks start at 1.", min=1
    )
    hard_negative_end_rank: int | float = option(
        0.5,
        "Last rank of the window: a whole number, or a share of the catalogue as a float in (0, 1].",
        above=0,
    )
    hard_negative_ratio: float = option(
        0.5, "Share of the negatives that come from the window; the rest is uniform.", min=0, max=1
    )
    hard_negative_sampling: Literal["subset", "window", "expected"] = option(
        "subset",
        "Draw from the window, take all of it, or weigh all items by how often drawing would hit them.",
    )
    share_negative_ranks: bool = option(
        True, "One draw of places in the window for all rows of a batch, not one per row."
    )
    mask_history_negatives: bool = option(
        False, "Strike the session's own items out of its negatives."
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
    augmentation_source: Literal["other", "self", "id"] = option(
        "other",
        "Whose best items are borrowed: the other branch's, its own, or always the ID branch's (released code).",
    )
    augmentation_exclude_target: bool = option(
        False, "Leave a borrowed positive out where it is the row's target."
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

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        return ("text",) if "text" in self.train_branches else ()


@dataclass(frozen=True)
class NFRecSettings(ModelSettings):
    """Settings of `NFRec`; docs/nfrec.md explains every switch."""

    # ---- Architecture ----
    hidden_size: int = option(
        64, "Width of each component; joined vectors are twice as wide.", min=1
    )
    components: Literal["both", "id", "text"] = option("both", "Components of an item's vector.")
    fusion: Literal["sum", "concat"] = option(
        "sum", "Add the components, or join them side by side; with components: both."
    )
    session_encoder: Literal["mean", "transformer"] = option(
        "mean",
        "Session vector: mean of the item vectors, or last position of a causal Transformer.",
    )
    n_layers: int = option(2, "Layers of the Transformer.", min=1)
    n_heads: int = option(2, "Attention heads; they divide the width of the fused vectors.", min=1)
    inner_size: int = option(256, "Width inside the Transformer's feed-forward layers.", min=1)
    hidden_act: Literal["relu", "gelu", "swish", "tanh", "sigmoid"] = option(
        "relu", "Activation of the feed-forward layers."
    )
    layer_norm_eps: float = option(
        1e-06, "Added to the variance in the Transformer's layer normalisation.", above=0
    )
    hidden_dropout_prob: float = option(
        0.1,
        "Share of values dropped: mapped text, the Transformer's hidden states.",
        min=0,
        below=1,
    )
    attn_dropout_prob: float = option(0.1, "Share of attention weights dropped.", min=0, below=1)
    item_layer_norm: bool = option(True, "Normalise each component of the item vectors.")
    parameter_init: Literal["uniform", "normal"] = option(
        "uniform", "All parameters from U(-1/sqrt(d), 1/sqrt(d)), or weights from N(0, 0.02)."
    )
    temperature: float = option(
        1.0, "Scores are divided by it, in training and prediction.", above=0
    )
    # ---- Negatives ----
    negative_sampling: Literal["full", "uniform"] = option(
        "full", "Cross-entropy over all items, or over the target and uniform negatives."
    )
    n_negatives: int | float = option(
        0.5,
        "Uniform negatives per row: a whole number, or a share of the catalogue as a float in (0, 1].",
        above=0,
    )

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        return ("text",) if self.components != "id" else ()
