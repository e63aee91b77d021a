"""Settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recbole_mm.model.settings import ModelSettings, option


@dataclass(frozen=True)
class MDSRecSettings(ModelSettings):
    """Settings of `MDSRec`; docs/mdsrec.md explains every switch."""

    # ---- Architecture ----
    modalities: tuple[str, ...] | None = option(
        None,
        "Modalities beside the ID, such as [text, image]; ~ takes text and image as far as there are vectors, [] none.",
    )
    hidden_size: int = option(64, "Width of all vectors; n_heads divides it.", min=1)
    inner_size: int = option(256, "Width inside the feed-forward layers.", min=1)
    n_layers: int = option(2, "Layers of each encoder.", min=1)
    n_heads: int = option(2, "Attention heads; they divide hidden_size.", min=1)
    hidden_act: Literal["gelu", "relu", "swish", "tanh", "sigmoid"] = option(
        "gelu", "Activation of the feed-forward layers."
    )
    layer_norm_eps: float = option(1e-12, "Added to the variance in layer normalisation.", above=0)
    initializer_range: float = option(0.02, "Standard deviation of the first weights.", above=0)
    encoder_sharing: Literal["separate", "modal", "all"] = option(
        "separate",
        "An encoder per stream, one for the ID and one for all modalities, or one for all.",
    )
    share_position: bool = option(True, "One table of positions for all streams.")
    bidirectional: bool = option(False, "Let positions look ahead.")
    input_layernorm: bool = option(
        True, "Normalise a stream's input; the ID stream with cooc_norm_id none needs it."
    )
    alpha: tuple[float, ...] | None = option(
        None,
        "Weight of each modality, in their order, with sum 1; ~ makes them equal.",
        min=0,
        max=1,
    )
    # ---- Co-occurrence by distance ----
    use_cooc_id: bool = option(True, "Inject co-occurring items into the ID stream.")
    use_cooc_modal: bool = option(
        True, "Inject co-occurring items into the features before neighbours are sought."
    )
    kappa_id: float = option(16.0, "Strength of the injection into the ID stream.", min=0)
    kappa_modal: float = option(0.2, "Strength of the injection into the features.", min=0)
    cooc_norm_id: Literal["none", "row", "sym"] = option(
        "none",
        "Co-occurrences in the ID stream as they are, with rows of sum 1, or scaled by the roots of both sums.",
    )
    cooc_norm_modal: Literal["none", "row", "sym"] = option(
        "row", "The same for the injection into the features."
    )
    cooc_weight: Literal["inv_distance", "count"] = option(
        "inv_distance", "A pair counts 1/distance, or 1."
    )
    cooc_directed: bool = option(False, "Count only what comes after an item.")
    cooc_repeat: Literal["sum", "min"] = option(
        "sum", "All pairs of positions, or the nearest one per session and pair of items."
    )
    cooc_window: int = option(0, "Farthest distance in positions that counts; 0 for any.", min=0)
    cooc_topk: int = option(0, "Partners kept per item; 0 keeps all.", min=0)
    cooc_min_weight: float = option(0.0, "Pairs of a lower weight are dropped.", min=0)
    cooc_dropout: float = option(
        0.0, "Share of the pairs left out in a training step.", min=0, below=1
    )
    lazy_injection: Literal["auto", "always", "never"] = option(
        "auto", "Inject only into the items of a batch while training; the numbers are the same."
    )
    # ---- Graphs of likeness ----
    use_graph: bool = option(
        True,
        "Sum ID vectors over neighbours by content; false takes a learned map of the features instead.",
    )
    n_neighbors: int = option(
        10, "Neighbours per item and modality; 0 takes the ID vectors as they are.", min=0
    )
    knn_self: Literal["count", "extra", "exclude"] = option(
        "count", "The item itself is one of its n_neighbors, comes on top, or is left out."
    )
    knn_backend: Literal["auto", "exact", "faiss"] = option(
        "auto", "Search for neighbours; faiss is approximate, auto takes it from 200,000 items on."
    )
    graph_agg: Literal["sum", "mean", "sym"] = option(
        "sum", "Neighbours summed, averaged, or weighted by the roots of both counts."
    )
    graph_hops: int = option(1, "How many times neighbours are summed.", min=1)
    graph_source: Literal["raw", "injected"] = option(
        "raw", "ID vectors that are summed: as they are, or with co-occurring items."
    )
    id_target: Literal["raw", "injected"] = option(
        "raw", "ID vectors that are ranked: as they are, or with co-occurring items."
    )
    feat_center: bool = option(False, "Take the mean off the features before anything else.")
    graph_cache: bool = option(
        True, "Keep neighbours and groups in the folder of the feature files."
    )
    # ---- Interest centres ----
    use_ica: bool = option(True, "Interest centres; false leaves them out.")
    n_centers: int = option(32, "Centres per modality.", min=1)
    center_pool: Literal["mean", "sum"] = option(
        "mean", "First centres: mean or sum of a group's items."
    )
    center_norm: bool = option(
        True, "Normalise the first centres with the stream's input normalisation."
    )
    center_block: Literal["layer", "bare"] = option(
        "layer", "Centres pass the layer with residuals and normalisation, or without, as printed."
    )
    center_share: Literal["all", "qkv"] = option(
        "all", "Centres share the whole layer, or only query, key and value."
    )
    center_ffn: Literal["standard", "printed"] = option(
        "standard", "Activation between the two maps, or behind both as printed."
    )
    center_keys: Literal["input", "output"] = option(
        "input", "Centres look at what goes into a layer, or at what comes out."
    )
    kmeans_input: Literal["raw", "injected"] = option(
        "raw", "Features that are grouped: as they are, or with co-occurring items."
    )
    kmeans_normalize: bool = option(False, "Group by direction: features of length 1.")
    relation_noise: Literal["logistic", "gumbel", "none"] = option(
        "logistic", "Noise on the choice of centres while training."
    )
    relation_noise_eval: bool = option(
        False, "Noise in evaluation too; its numbers can then not be repeated."
    )
    relation_scale: Literal["none", "sqrt_d"] = option(
        "none", "Products of session and centre as they are, or over the root of the width."
    )
    relation_tau: float = option(1.0, "Temperature of the choice of centres.", above=0)
    relation_hard: bool = option(
        False, "Choose one centre; the gradient is that of the soft choice."
    )
    # ---- Losses ----
    modal_loss: bool = option(True, "A loss for each modality's own score.")
    modal_score: bool = option(True, "Modalities' own scores take part in the ranking.")
    loss_fused: float = option(0.0, "Weight of a loss on the sum of all scores.", min=0)
    # ---- Dropout ----
    hidden_dropout_prob: float = option(0.5, "Share of values dropped.", min=0, below=1)
    attn_dropout_prob: float = option(0.5, "Share of attention weights dropped.", min=0, below=1)

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        if self.modalities is not None:
            return self.modalities
        return tuple(name for name in ("text", "image") if name in available)
