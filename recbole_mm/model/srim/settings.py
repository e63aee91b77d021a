"""Settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recbole_mm.model.settings import ModelSettings, option


@dataclass(frozen=True)
class SRIMSettings(ModelSettings):
    """Settings of `SRIM`; docs/srim.md explains every switch."""

    # ---- Architecture ----
    modalities: tuple[str, ...] = option(
        ("text",), "Features of the content branch, side by side, such as [text, image]."
    )
    embedding_size: int = option(100, "Width of each branch; n_heads divides it.", min=1)
    branches: Literal["both", "id", "content"] = option("both", "Which branches score.")
    content: Literal["features_frozen", "features_tuned", "random"] = option(
        "features_frozen",
        "Table of the content branch; random is what the released code amounts to.",
    )
    feature_norm: Literal["none", "unit", "center"] = option(
        "center",
        "Scaling of the features: none, rows of length 1, or mean of the training items taken off first.",
    )
    feature_pca: int = option(
        0,
        "Principal components kept per modality, fitted on training items; 0 keeps all columns.",
        min=0,
    )
    n_layers: int = option(1, "Propagation steps over the graph; 0 uses no graph.", min=0)
    gcn: Literal["residual", "residual_norm", "literal"] = option(
        "residual", "(I+P)^L E, the same over 2^L, or eq. 4 as printed."
    )
    graph_branches: Literal["both", "id", "content", "none"] = option(
        "both", "Which tables are propagated."
    )
    graph_source: Literal["train", "leaky_inputs", "leaky_all"] = option(
        "train",
        "Sessions in the graph; the leaky ones hold validation and test items and mark the result.",
    )
    graph_count: Literal["set", "mult"] = option(
        "set", "Count sessions that hold both items, or pairs of positions."
    )
    graph_diag: bool = option(False, "Keep the pairs of an item with itself.")
    graph_loo: bool = option(
        False, "Take the batch's own sessions out of the graph while training."
    )
    attention: Literal["direct", "lin", "none", "full"] = option(
        "direct", "Map the query only, nothing, no attention at all, or query, key and value."
    )
    n_heads: int = option(4, "Attention heads; they divide embedding_size.", min=1)
    att_bias: bool = option(True, "Bias in the maps of the attention.")
    session_residual: bool = option(
        True, "Add the last item's vector to the attention's output at the last position."
    )
    session_map: Literal["linear", "none"] = option(
        "linear",
        "Map of the session vector before it meets the items; none scores an item highest against itself.",
    )
    session_pool: Literal["last", "mean"] = option(
        "last", "Session vector: at the last position, or the mean."
    )
    score: Literal["dot", "cosine"] = option(
        "dot", "Product of session and item, raw or of unit vectors."
    )
    logit_scale: float | None = option(
        None,
        "First factor on the scores; ~ takes 1, 4^n_layers (residual_norm) or 16 (cosine).",
        above=0,
    )
    logit_scale_learned: bool = option(False, "Learn that factor, one per branch.")
    # ---- Losses ----
    main_loss: Literal["ce", "bce_softmax"] = option(
        "ce", "Softmax cross-entropy, or eq. 15 over softmax probabilities."
    )
    align: Literal["infonce", "paper", "code", "code_slots", "none"] = option(
        "infonce", "Form of the alignment loss."
    )
    align_temperature: float = option(0.1, "Temperature of align: infonce.", above=0)
    joint_sign: Literal[1, -1] = option(1, "1 as printed, -1 as in the released code.")
    joint_label_shift: Literal[0, -1] = option(
        0, "0 compares with the target, -1 with the item before it in id order (released code)."
    )
    joint_session: Literal["pre", "post"] = option(
        "pre", "Session vector before or after attention."
    )
    flag_rule: Literal["loo", "any", "topl"] = option(
        "loo",
        "When the ID branch leads: target met another item of the session elsewhere, anywhere, or stands in its list.",
    )
    co: Literal["infonce", "expratio", "ratio", "none"] = option(
        "infonce", "Form of the co-occurrence loss; ratio (eq. 17) is ill-posed."
    )
    co_log10: bool = option(
        False, "Logarithm to base 10 in the co-occurrence loss (released code)."
    )
    co_pos_weight: Literal["count", "uniform"] = option("count", "Weights of an item's partners.")
    co_neg: Literal["zero_random", "fixed"] = option(
        "zero_random", "Strangers: drawn anew, or the lowest ids never met."
    )
    co_anchors: Literal["batch", "sample", "all"] = option(
        "sample", "Items looked at per step: the batch's, these and co_samples more, or all."
    )
    co_samples: int = option(
        512, "Random items per step besides the batch's (co_anchors: sample).", min=1
    )
    co_isolated: Literal["skip", "keep"] = option(
        "skip", "Items without partners in the co-occurrence loss."
    )
    n_neighbors: int = option(10, "Partners and strangers per item.", min=1)
    w_align: float = option(0.1, "Weight of the alignment loss; 0 switches it off.", min=0)
    w_joint: float = option(0.05, "Weight of the joint inference loss; 0 switches it off.", min=0)
    w_co: float = option(1.0, "Weight of the co-occurrence loss; 0 switches it off.", min=0)
    reduction: Literal["mean", "sum"] = option(
        "mean", "Auxiliary losses as means, or as sums over rows and items (released code)."
    )
    # ---- Dropout ----
    emb_dropout: float = option(0.3, "Share of the item tables' values dropped.", min=0, below=1)
    att_dropout: float = option(0.2, "Share of attention weights dropped.", min=0, below=1)
    dropout_first_epoch_only: bool = option(
        False, "Dropout in the first epoch only, as the released code does by accident."
    )

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        used = self.branches != "id" and self.content != "random"
        return self.modalities if used else ()
