"""Settings of MDSRec, with the sound choices as defaults; docs/mdsrec.md explains every switch.

What the paper prints and the defaults do not take stands under ``center_...`` and ``cooc_norm_...``
and in the preset ``paper``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain
from recbole_mm.model.settings import TrainedSettings, option, require_heads

# Taken where modalities are not named, as far as there are vectors.
USUAL = ("text", "image")

CoocNorm = Literal["none", "row", "sym"]


@dataclass(frozen=True)
class MDSRecSettings(TrainedSettings):
    """Settings of `recbole_mm.model.mdsrec.model.MDSRec`."""

    # ---- Architecture ----
    modalities: tuple[str, ...] | None = option(
        None,
        "Modalities beside the ID, such as [text, image]; "
        "~ takes text and image as far as there are vectors, [] none.",
    )
    hidden_size: int = option(64, "Width of all vectors; n_heads divides it.", min=1)
    inner_size: int = option(256, "Width inside the feed-forward layers.", min=1)
    n_layers: int = option(2, "Layers of each encoder.", min=1, max=1000)
    n_heads: int = option(2, "Attention heads; they divide hidden_size.", min=1)
    hidden_dropout_prob: float = option(0.5, "Share of values dropped.", min=0, below=1)
    attn_dropout_prob: float = option(0.5, "Share of attention weights dropped.", min=0, below=1)
    alpha: tuple[float, ...] | None = option(
        None,
        "Weight of each modality, in their order, with sum 1; ~ makes them equal.",
        min=0,
        max=1,
    )
    score: Literal["dot", "cosine"] = option(
        "dot",
        "Session meets item by inner product, or by cosine with a learned temperature per stream.",
    )
    temperature: float = option(0.1, "First temperature of score: cosine.", above=0)
    # ---- Co-occurrence by distance ----
    use_cooc_id: bool = option(True, "Inject co-occurring items into the ID stream.")
    use_cooc_modal: bool = option(
        True, "Inject co-occurring items into the features before neighbours are sought."
    )
    kappa_id: float = option(16.0, "Strength of the injection into the ID stream.", min=0)
    kappa_modal: float = option(0.2, "Strength of the injection into the features.", min=0)
    cooc_norm_id: CoocNorm = option(
        "none",
        "Co-occurrences in the ID stream as they are, with rows of sum 1, "
        "or scaled by the roots of both sums.",
    )
    cooc_norm_modal: CoocNorm = option("row", "The same for the injection into the features.")
    cooc_weight: Literal["inv_distance", "count"] = option(
        "inv_distance", "A pair counts 1/distance, or 1."
    )
    cooc_window: int = option(0, "Farthest distance in positions that counts; 0 for any.", min=0)
    cooc_topk: int = option(0, "Partners kept per item; 0 keeps all.", min=0)
    # ---- Graphs of likeness ----
    use_graph: bool = option(
        True,
        "Sum ID vectors over neighbours by content; "
        "false takes a learned map of the features instead.",
    )
    n_neighbors: int = option(
        10,
        "Neighbours per item and modality, the item itself among them; "
        "0 takes the ID vectors as they are.",
        min=0,
    )
    knn_backend: Literal["auto", "exact", "faiss"] = option(
        "auto", "Search for neighbours; faiss is approximate, auto takes it from 200,000 items on."
    )
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
    center_ffn: Literal["standard", "printed"] = option(
        "standard", "Activation between the two maps, or behind both as printed."
    )
    relation_tau: float = option(1.0, "Temperature of the choice of centres.", above=0)

    def __post_init__(self) -> None:
        """Check what two keys must have in common."""
        require_heads(self.n_heads, self.hidden_size, "hidden_size")

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files are read; see the base class."""
        if self.modalities is not None:
            return self.modalities
        return tuple(name for name in USUAL if name in available)

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave each modality out; see the base class."""
        kinds = self.feature_files(available)
        # The weights of those that stay are equal again.
        alpha: dict[str, Plain] = {} if self.alpha is None else {"alpha": None}
        return {name: {"modalities": [k for k in kinds if k != name], **alpha} for name in kinds}

    def weights(self, kinds: Sequence[str]) -> dict[str, float]:
        """Return ``alpha_m`` of each modality.

        Raises
        ------
        ConfigError
            If ``alpha`` does not fit the modalities ``kinds``.
        """
        if self.alpha is None:
            return {kind: 1.0 / len(kinds) for kind in kinds}
        if len(self.alpha) != len(kinds) or not math.isclose(sum(self.alpha), 1.0, abs_tol=1e-6):
            raise ConfigError(
                f"alpha = {list(self.alpha)} is not accepted; expected one weight for each of "
                f"{', '.join(kinds) or 'no modality'} with sum 1, or ~ for equal weights"
            )
        return dict(zip(kinds, self.alpha, strict=True))
