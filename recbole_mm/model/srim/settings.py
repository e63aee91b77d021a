"""Settings of SRIM, and those that its released code leaves open; docs/srim.md explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recbole_mm.files import Plain
from recbole_mm.model.settings import TrainedSettings, fixed, option, require_heads

# Taken where modalities are not named, as far as there are vectors.
USUAL = ("text", "image", "price")


@dataclass(frozen=True)
class SRIMSettings(TrainedSettings):
    """Settings of `SRIM`.

    Raises
    ------
    ConfigError
        If the heads do not divide the width.
    """

    # ---- Item tables ----
    modalities: tuple[str, ...] | None = option(
        ("text",),
        "Features of the content branch, side by side, such as [text, image]; ~ takes text, image "
        "and price as far as there are vectors.",
    )
    embedding_size: int = option(100, "Width of each branch; n_heads divides it.", min=1)
    branches: Literal["both", "id", "content"] = option("both", "Which branches score.")
    content: Literal["features_frozen", "features_tuned", "random"] = option(
        "features_frozen",
        "Table of the content branch; random is what the released code amounts to.",
    )
    feature_norm: Literal["none", "unit", "center"] = option(
        "center",
        "Scaling of the features: none, rows of length 1, or the training items' mean off first.",
    )
    feature_pca: int = option(
        0,
        "Principal components kept per modality, fitted on training items; 0 keeps all columns.",
        min=0,
    )
    n_layers: int = option(1, "Propagation steps over the graph; 0 uses no graph.", min=0, max=1000)
    gcn: Literal["residual", "literal"] = option("residual", "(I+P)^L E, or eq. 4 as printed.")
    graph_diag: bool = option(False, "Keep the pairs of an item with itself.")
    # ---- Session vector ----
    attention: Literal["direct", "lin", "none", "full"] = option(
        "direct", "Map the query only, nothing, no attention at all, or query, key and value."
    )
    n_heads: int = option(4, "Attention heads; they divide embedding_size.", min=1)
    att_bias: bool = option(True, "Bias in the maps of the attention.")
    session_pool: Literal["last", "mean"] = option(
        "last", "Session vector: at the last position, or the mean."
    )
    session_residual: bool = option(
        True, "Add the last item's vector to the attention's output at the last position."
    )
    session_map: Literal["linear", "residual", "none"] = option(
        "linear",
        "Map of the session vector before it meets the items: a linear one, one that is added to "
        "the vector and starts at 0, or none, with which an item suits itself best.",
    )
    position_weights: bool = option(
        False,
        "Learn how much each position counts in the attention, from the end and from the start.",
    )
    score: Literal["dot", "cosine"] = option(
        "dot", "Session meets item by inner product, or by cosine with a learned temperature."
    )
    temperature: float = option(0.1, "First temperature of score: cosine.", above=0)
    # ---- Losses ----
    main_loss: Literal["ce", "ce_apart", "bce_softmax"] = option(
        "ce",
        "Softmax cross-entropy of the score, of each branch's own score, or eq. 15 over softmax "
        "probabilities.",
    )
    align: Literal["infonce", "paper"] = option(
        "infonce", "Alignment loss: contrast in the batch, or eq. 9-11."
    )
    align_temperature: float = option(0.1, "Temperature of align: infonce.", above=0)
    align_rows: int = option(
        0,
        "Rows at most that align: infonce compares with one another; larger batches fall into "
        "parts of about equal size. 0 compares all rows of a batch.",
        min=0,
    )
    co: Literal["infonce", "ratio"] = option(
        "infonce", "Form of the co-occurrence loss; ratio (eq. 17) is ill-posed."
    )
    co_pos_weight: Literal["count", "uniform"] = option("count", "Weights of an item's partners.")
    co_samples: int = option(
        512, "Random items in the co-occurrence loss, per step, besides the batch's own.", min=0
    )
    n_neighbors: int = option(10, "Partners and strangers per item.", min=1)
    w_align: float = option(0.1, "Weight of the alignment loss; 0 switches it off.", min=0)
    w_joint: float = option(0.05, "Weight of the joint inference loss; 0 switches it off.", min=0)
    w_co: float = option(1.0, "Weight of the co-occurrence loss; 0 switches it off.", min=0)
    # ---- Dropout ----
    emb_dropout: float = option(0.3, "Share of the item tables' values dropped.", min=0, below=1)
    att_dropout: float = option(0.2, "Share of attention weights dropped.", min=0, below=1)

    def __post_init__(self) -> None:
        """Check the settings against each other."""
        if self.attention != "none":
            require_heads(self.n_heads, self.embedding_size, "embedding_size")

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        used = self.branches != "id" and self.content != "random"
        return self.kinds(available) if used else ()

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave each modality out; see the base class."""
        kinds = self.feature_files(available)
        if len(kinds) > 1:
            return {name: {"modalities": [k for k in kinds if k != name]} for name in kinds}
        return {name: {"branches": "id"} for name in kinds if self.branches == "both"}

    def kinds(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities of the content branch, given those that are there."""
        if self.modalities is not None:
            return self.modalities
        return tuple(name for name in USUAL if name in available)


@dataclass(frozen=True)
class ReleasedGraphSettings(SRIMSettings):
    """What the released codes of SRIM and of DIMO, its forerunner, leave no choice of."""

    gcn: Literal["residual"] = fixed("residual")
    graph_diag: Literal[False] = fixed(False)
    att_bias: Literal[True] = fixed(True)
    session_pool: Literal["last"] = fixed("last")
    session_residual: Literal[False] = fixed(False)
    session_map: Literal["none"] = fixed("none")
    position_weights: Literal[False] = fixed(False)
    score: Literal["dot"] = fixed("dot")
    temperature: float = fixed(1.0)
    main_loss: Literal["ce"] = fixed("ce")
    co: Literal["infonce"] = fixed("infonce")
    co_pos_weight: Literal["count"] = fixed("count")
    align: Literal["paper"] = fixed("paper")
    align_temperature: float = fixed(1.0)
    align_rows: int = fixed(0)


@dataclass(frozen=True)
class OfficialSRIMSettings(ReleasedGraphSettings):
    """Settings of `OfficialSRIM`: sizes, weights and dropouts are left to choose."""

    train_own_items: Literal["keep"] = fixed("keep")
    branches: Literal["both"] = fixed("both")
    content: Literal["random"] = fixed("random")
    attention: Literal["direct"] = fixed("direct")
    # The released model has no use for these: no features.
    modalities: tuple[str, ...] = fixed(())
    feature_norm: Literal["none"] = fixed("none")
    feature_pca: int = fixed(0)
    co_samples: int = fixed(0)
