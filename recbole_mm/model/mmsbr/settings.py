"""Settings of MMSBR, and of what its released code does (preset ``official``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recbole_mm.files import Plain
from recbole_mm.model.settings import TrainedSettings, fixed, option, require_heads

# Read what is there, insist on it, or leave it out.
Use = Literal["auto", True, False]


@dataclass(frozen=True)
class MMSBRSettings(TrainedSettings):
    """Settings of `MMSBR`; docs/mmsbr.md explains every switch.

    Raises
    ------
    ConfigError
        If the heads do not divide the width.
    """

    # ---- What is read of the items ----
    use_text: Use = option("auto", "Text vectors: if they are there, must be there, or not at all.")
    use_image: Use = option(
        "auto", "Image vectors: if they are there, must be there, or not at all."
    )
    use_price: Use = option(
        "auto", "Prices of the .item file: if they are there, must be there, or not at all."
    )
    use_category: Use = option(
        "auto",
        "Categories of the .item file: if they are there, must be there, or not at all. Read with "
        "prices only.",
    )
    price_field: str | None = option(None, "Item column of the price; ~ takes price.")
    category_field: str | None = option(
        None,
        "Item column of the category; ~ takes category or categories. Of several entries the last "
        "counts.",
    )
    pca_dim: int = option(
        32,
        "Most principal components kept of each modality, fitted on training items; 0 keeps the "
        "columns.",
        min=0,
    )
    # ---- Item vector ----
    embedding_size: int = option(64, "Width of everything; n_heads divides it.", min=1)
    n_tokens: int = option(4, "Feature tokens per modality.", min=1)
    n_pivots: int = option(4, "Pivots per item.", min=1)
    n_rounds: int = option(1, "Rounds of one layer per modality (fusion: pivot).", min=1)
    n_heads: int = option(4, "Heads of both attentions; they divide embedding_size.", min=1)
    inner_size: int = option(256, "Width inside the feed-forward part of a layer.", min=1)
    pivot_scope: Literal["shared_plus_offset", "shared", "item"] = option(
        "shared_plus_offset",
        "First pivots of an item: the same for all plus an offset that is 0 for items unseen in "
        "training, the same for all, or its own.",
    )
    fusion: Literal["pivot", "concat_mlp"] = option(
        "pivot", "Pivots pass between the modalities, or pivots and tokens just stand side by side."
    )
    item_chunk: int = option(
        0,
        "Items fused at once; in training the others are recomputed backwards, which saves memory "
        "and costs some time. 0 takes all at once.",
        min=0,
    )
    # ---- Session ----
    repeat_bias: bool = option(
        True, "Add one learned number to the scores of the items that a session already holds."
    )
    position_weights: bool = option(
        False, "Learn how much each position adds to its gate, from the end and from the start."
    )
    session_map: Literal["linear", "residual"] = option(
        "linear",
        "Map of the session vector: a linear one, or one that is added to it and starts at 0.",
    )
    score: Literal["dot", "cosine"] = option(
        "dot", "Session meets item by inner product, or by cosine with a learned temperature."
    )
    temperature: float = option(0.1, "First temperature of score: cosine.", above=0)
    # ---- Price ----
    price_levels: int = option(
        99,
        "Steps between the lowest and the highest price of a category; there is one more level.",
        min=1,
    )
    price_repr: Literal["gaussian", "point"] = option(
        "gaussian", "A price is a mean and a variance, or a mean alone."
    )
    price_attention: Literal["wasserstein", "dot"] = option(
        "wasserstein", "Weights of a session's prices: by distance, or by inner product."
    )
    # ---- Contrast ----
    pseudo: Literal["ridge", "files"] = option(
        "ridge",
        "Pseudo vectors: a linear map from the other modality, or feature files pseudo_text and "
        "pseudo_image.",
    )
    w_con: float = option(0.01, "Weight of the contrastive loss; 0 switches it off.", min=0)
    contrast_tau: float = option(0.1, "Temperature of the contrastive loss.", above=0)
    contrast_sample: int = option(
        1024, "Items compared per step, those of the batch first; 0 takes all.", min=0
    )
    # ---- Training ----
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
        "Share of items that are trained without their offset in a step, as new items are scored "
        "(pivot_scope: shared_plus_offset).",
        min=0,
        below=1,
    )

    def __post_init__(self) -> None:
        require_heads(self.n_heads, self.embedding_size, "embedding_size")

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        used = self.modalities(available)
        if self.pseudo == "files" and self.w_con > 0:
            used += tuple(f"pseudo_{name}" for name in used)
        return used

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave each modality out; see the base class."""
        found: dict[str, dict[str, Plain]] = {
            name: {f"use_{name}": False} for name in self.modalities(available)
        }
        if self.use_price is not False:
            found[self.price_field or "price"] = {"use_price": False}
        return found

    def modalities(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities in use, text before image, of those that are there."""
        choices = {"text": self.use_text, "image": self.use_image}
        return tuple(
            name
            for name, choice in choices.items()
            if choice is True or (choice == "auto" and name in available)
        )


@dataclass(frozen=True)
class OfficialMMSBRSettings(MMSBRSettings):
    """Settings of `OfficialMMSBR`: what its code does is fixed, its sizes and dropouts are not."""

    train_own_items: Literal["keep"] = fixed("keep")
    position_weights: bool = fixed(False)
    session_map: Literal["linear", "residual"] = fixed("linear")
    score: Literal["dot", "cosine"] = fixed("dot")
    temperature: float = fixed(1.0)
    pivot_scope: Literal["shared_plus_offset", "shared", "item"] = fixed("item")
    fusion: Literal["pivot", "concat_mlp"] = fixed("pivot")
    repeat_bias: bool = fixed(False)
    price_repr: Literal["gaussian", "point"] = fixed("gaussian")
    price_attention: Literal["wasserstein", "dot"] = fixed("wasserstein")
    contrast_tau: float = fixed(1.0)
    contrast_sample: int = fixed(0)
    offset_dropout: float = fixed(0.0)
