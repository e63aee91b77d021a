"""NFRec: ID and text fused into one item vector, trained as one network (AlterRec's appendix A).

The baseline that AlterRec is measured against. It has AlterRec's item vectors and session encoders,
but one loss, so that nothing keeps one component from being learnt at the cost of the other.
Symbols: ``N`` items (0 is padding), ``B`` sessions, ``d`` the width of a component, ``X`` and ``H``
the item vectors ``(N, d)`` of ID and text, ``z`` the fused ones ``(N, D)``. What the paper leaves
open stands in docs/nfrec.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.errors import ConfigError
from recbole_mm.model.alterrec.branches import (
    Branch,
    MeanSession,
    TransformerSession,
    initialise,
    make_items,
)
from recbole_mm.model.alterrec.negatives import Drawn, negative_mass, positive_loss
from recbole_mm.model.alterrec.settings import NFRecSettings
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.layers import gather_rows
from recbole_mm.model.losses import softmax_ce

COMPONENTS = {"both": ("id", "text"), "id": ("id",), "text": ("text",)}
# What RecBole's Transformer reads, besides the width that the fusion decides.
_TRANSFORMER = (
    "n_layers", "n_heads", "inner_size", "hidden_dropout_prob", "attn_dropout_prob", "hidden_act",
    "layer_norm_eps", "MAX_ITEM_LIST_LENGTH",
)  # fmt: skip


class NFRec(MMSequentialRecommender):
    """One network over fused items: ``z_j = X_j + H_j`` or ``[X_j; H_j]``, ``score = q . z_j``.

    Parameters
    ----------
    config
        The keys of properties/model/NFRec.yaml, explained in properties/keys.yaml.
    dataset
        Gives ``item_features`` where text is used.

    Attributes
    ----------
    components
        Names of the parts of an item vector, ``"id"`` and ``"text"``.

    Raises
    ------
    ConfigError
        If the heads do not divide the width of the fused vectors, or a share of negatives is no
        share.
    FeatureError
        If the text features are missing.
    """

    Settings = NFRecSettings
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings: Any = config
        self.size = int(config["hidden_size"])
        self.components = COMPONENTS[config["components"]]
        self.joined = len(self.components) == 2 and config["fusion"] == "concat"
        self.temperature = float(config["temperature"])
        self.n_negatives = self._n_negatives()
        self.items = nn.ModuleDict({name: self._items(name) for name in self.components})
        self.session = self._session()
        self.to(self.device)

    def _n_negatives(self) -> int:
        """Return how many negatives a row gets, 0 for all items."""
        if self.settings["negative_sampling"] == "full":
            return 0
        count = self.settings["n_negatives"]
        if isinstance(count, float) and count > 1.0:
            raise ConfigError(
                f"n_negatives={count} is neither a number of items nor a share of them: write a "
                "whole number, or a share of the catalogue as a number in (0, 1]"
            )
        n_real = self.n_items - 1
        return max(1, round(count * n_real) if isinstance(count, float) else count)

    def _items(self, name: str) -> nn.Module:
        """Make the item vectors of one component and draw their weights."""
        features = self.feature("text")[0] if name == "text" else None
        items = make_items(self.settings, self.n_items, features)
        how = str(self.settings["parameter_init"])
        initialise(Branch(items, nn.Identity(), 1.0), how, self.size)
        return items

    def _session(self) -> nn.Module:
        """Make the encoder of sessions of fused items and draw its weights."""
        config, width = self.settings, self.size * (2 if self.joined else 1)
        if config["session_encoder"] == "mean":
            return MeanSession()
        if width % int(config["n_heads"]):
            raise ConfigError(
                f"n_heads={config['n_heads']} does not divide the width {width} of the fused item "
                "vectors; choose a divisor, for example --n_heads=2"
            )
        session = TransformerSession(
            {**{key: config[key] for key in _TRANSFORMER}, "hidden_size": width}
        )
        initialise(Branch(nn.Identity(), session, 1.0), str(config["parameter_init"]), width)
        return session

    def item_tables(self) -> dict[str, Tensor]:
        """Return the fused item vectors as ``"candidates"``, ``(N, d)`` or ``(N, 2d)``."""
        parts = [self.items[name]() for name in self.components]
        if self.joined:
            return {"candidates": torch.cat(parts, dim=1)}
        return {"candidates": torch.stack(parts).sum(dim=0)}

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return session vectors over the temperature, as wide as the fused items."""
        items = gather_rows(tables["candidates"], item_seq)
        vectors: Tensor = self.session(items, item_seq_len)
        return vectors / self.temperature

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return the mean cross-entropy over all items, or over the target and its negatives."""
        with self.full_precision():
            query, candidates = self._match(interaction)
            # Column 0 is no item and must not take part in the softmax.
            scores = query @ candidates[1:].T
            target = interaction[self.ITEM_ID] - 1
            if not self.n_negatives:
                return softmax_ce(scores, target).mean()
            own = target.unsqueeze(1)
            shape = (len(scores), self.n_negatives)
            drawn = Drawn(torch.randint(self.n_items - 1, shape, device=scores.device))
            return positive_loss(negative_mass(scores, drawn, own), scores, own).mean()

    @torch.no_grad()
    def score_parts(self, interaction: Any) -> dict[str, Tensor]:
        """Return the scores ``(B, N)`` of each component of joined vectors; padding has ``-inf``.

        ``q . [X_j; H_j] = q_X . X_j + q_H . H_j``, with nothing left over. A sum of components has
        products across them, so there is no such view of it.
        """
        if not self.joined:
            return {}
        parts = {}
        with self.full_precision():
            query, candidates = self._match(interaction)
            for place, name in enumerate(self.components):
                own = slice(place * self.size, (place + 1) * self.size)
                parts[name] = query[:, own] @ candidates[:, own].T
                parts[name][:, 0] = -math.inf
        return parts
