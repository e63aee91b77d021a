"""Settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recbole_mm.model.settings import ModelSettings, option


@dataclass(frozen=True)
class MMSBRSettings(ModelSettings):
    """Settings of `MMSBR`; docs/mmsbr.md explains every switch."""

    # ---- What is read of the items ----
    use_text: Literal["auto", True, False] = option(
        "auto", "Text vectors: if they are there, must be there, or not at all."
    )
    use_image: Literal["auto", True, False] = option(
        "auto", "Image vectors: if they are there, must be there, or not at all."
    )
    use_price: Literal["auto", True, False] = option(
        "auto", "Prices of the .item file: if they are there, must be there, or not at all."
    )
    use_category: Literal["auto", True, False] = option(
        "auto",
        "Categories of the .item file: if they are there, must be there, or not at all. Read with prices only.",
    )
    price_field: str | None = option(None, "Item column of the price; ~ takes price.")
    category_field: str | None = option(
        None,
        "Item column of the category; ~ takes category or categories. Of several entries the last counts.",
    )
    pca_dim: int = option(
        32,
        "Most principal components kept of each modality, fitted on training items; 0 keeps the columns.",
        min=0,
    )
    pca_shared: bool = option(
        True, "Fit on the real vectors and use the same basis for the pseudo vectors."
    )
    pca_scale: Literal["none", "rms", "whiten"] = option(
        "rms",
        "Components as they are, over one number (mean square 1), or each with mean square 1.",
    )
    features_trainable: bool = option(False, "Train the real and pseudo vectors.")
    # ---- Item vector ----
    embedding_size: int = option(64, "Width of everything; n_heads divides it.", min=1)
    n_tokens: int = option(4, "Feature tokens per modality.", min=1)
    n_pivots: int = option(4, "Pivots per item.", min=1)
    n_rounds: int = option(
        1, "Rounds of one layer per modality (fusion: pivot, full_transformer).", min=1
    )
    n_heads: int = option(4, "Heads of both attentions; they divide embedding_size.", min=1)
    inner_size: int = option(256, "Width inside the feed-forward part of a layer.", min=1)
    pivot_scope: Literal["item", "shared", "shared_plus_offset"] = option(
        "shared_plus_offset",
        "First pivots of an item: its own, the same for all, or the same plus an offset that is 0 for items unseen in training.",
    )
    pivot_softmax_axis: Literal["key", "query"] = option(
        "key", "Attention weights sum to 1 over the keys, or over the queries (released code)."
    )
    fusion: Literal["pivot", "concat_mlp", "mean", "full_transformer"] = option(
        "pivot",
        "Pivots between modalities; tokens side by side; their mean; or attention among all tokens.",
    )
    pivot_order: Literal["text_first", "image_first", "parallel"] = option(
        "parallel", "Order of the modalities in a round, or both from the same pivots."
    )
    token_skip: bool = option(
        True,
        "The item vector reads the feature tokens beside the pivots (fusion: pivot, full_transformer).",
    )
    item_activation: Literal["norm", "relu", "none"] = option(
        "norm",
        "End of the item vector: layer norm, relu (released code: no negative coordinates), or nothing.",
    )
    item_chunk: int = option(
        0,
        "Items fused at once; in training the others are recomputed backwards, which saves memory and costs some time. 0 takes all at once.",
        min=0,
    )
    # ---- Session ----
    interest: Literal["gate", "mean", "last"] = option(
        "gate", "Session vector: gated sum, mean or last of the item vectors."
    )
    interest_position: Literal["none", "reversed"] = option(
        "none", "Position vectors, counted from the end, inside the gate."
    )
    session_residual: bool = option(True, "Add the last item's vector to gate or mean.")
    session_map: Literal["linear", "none"] = option(
        "linear",
        "Map of the session vector before it meets the items; none scores an item highest against itself.",
    )
    repeat_bias: bool = option(
        True, "Add one learned number to the scores of the items that a session already holds."
    )
    # ---- Price ----
    price_binning: Literal["linear", "logistic", "quantile"] = option(
        "linear",
        "Level of a price in its category: by value, by a logistic distribution, or by rank.",
    )
    price_levels: int = option(
        99,
        "Steps between the lowest and the highest price of a category; there is one more level.",
        min=1,
    )
    price_repr: Literal["gaussian", "point"] = option(
        "gaussian", "A price is a mean and a variance, or a mean alone."
    )
    price_attention: Literal["wasserstein", "dot", "none"] = option(
        "wasserstein", "Weights of a session's prices: by distance, by inner product, or all alike."
    )
    price_item_ln: bool = option(False, "Norm the item's side of the distance like the session's.")
    price_score: Literal["mul_plus", "sub", "mul_exp", "none"] = option(
        "sub", "Score of interest r and distance W: r(1+W) (released code), r-gW, r exp(-gW), or r."
    )
    price_gamma: float = option(
        0.1, "First value of g, which is learned (price_score: sub, mul_exp).", above=0
    )
    # ---- Contrast ----
    pseudo: Literal["ridge", "files", "none"] = option(
        "ridge",
        "Pseudo vectors: a linear map from the other modality, feature files pseudo_text and pseudo_image, or none.",
    )
    w_con: float = option(0.01, "Weight of the contrastive loss; 0 switches it off.", min=0)
    contrast_on: Literal["projected", "tables"] = option(
        "projected",
        "Compare learned projections, which the tokens then read, or the vectors as they are (released code).",
    )
    contrast_sim: Literal["cosine", "dot"] = option("cosine", "Similarity of two vectors.")
    contrast_tau: float = option(0.1, "Temperature of the contrastive loss.", above=0)
    contrast_topk: int = option(
        0, "Largest similarities that enter the denominator; 0 takes all.", min=0
    )
    contrast_reduction: Literal["mean", "sum_log10"] = option(
        "mean", "Mean in natural units, or sum over items to base 10 (released code)."
    )
    contrast_sample: int = option(
        1024, "Items compared per step, those of the batch first; 0 takes all.", min=0
    )
    # ---- Training ----
    share_ln: bool = option(
        False,
        "One norm for all of the price branch and one for both sums of a layer (released code), or one each.",
    )
    init: Literal["standard", "uniform_all"] = option(
        "standard",
        "First weights; uniform_all draws all from U(-1/sqrt(d), 1/sqrt(d)), trained features too (released code).",
    )
    dropout_tokens: float = option(
        0.3, "Share of values dropped in the feature tokens.", min=0, below=1
    )
    dropout_encoder: float = option(0.1, "Share of values dropped in the layers.", min=0, below=1)
    dropout_fusion: float = option(
        0.0, "Share of values dropped before and after the maps of the item vector.", min=0, below=1
    )
    dropout_price: float = option(
        0.1, "Share of values and attention weights dropped in the price branch.", min=0, below=1
    )
    offset_dropout: float = option(
        0.5,
        "Share of items that are trained without their offset in a step, as new items are scored (pivot_scope: shared_plus_offset).",
        min=0,
        below=1,
    )
    dropout_first_epoch_only: bool = option(
        False, "No dropout after the first epoch, as in the released code."
    )

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        choices = {"text": self.use_text, "image": self.use_image}
        used = [
            name
            for name, choice in choices.items()
            if choice is True or (choice == "auto" and name in available)
        ]
        if self.pseudo == "files" and self.w_con > 0:
            used += [f"pseudo_{name}" for name in used]
        return tuple(used)
