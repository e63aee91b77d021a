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
from typing import TYPE_CHECKING

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.model.alterrec.branches import initialise, make_items, make_session
from recbole_mm.model.alterrec.settings import BranchName, NFRecSettings
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.layers import gather_rows

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset


class NFRec(MMSequentialRecommender):
    """One network over fused items: ``z_j = X_j + H_j`` or ``[X_j; H_j]``, ``score = q . z_j``.

    Parameters
    ----------
    config
        The keys of `NFRecSettings`.
    dataset
        Gives ``item_features`` where text is used.

    Attributes
    ----------
    components
        Names of the parts of an item vector, ``"id"`` and ``"text"``.

    Raises
    ------
    ConfigError
        If the heads do not divide the width of the fused vectors.
    FeatureError
        If the text features are missing.
    """

    Settings = NFRecSettings
    settings: NFRecSettings
    input_type = InputType.POINTWISE

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        chosen = self.settings
        self.components = chosen.names
        self.items = nn.ModuleDict({name: self._make_items(name) for name in self.components})
        self.session = make_session(
            chosen.session_encoder, chosen, chosen.width, self.max_seq_length
        )
        initialise(self.session, "uniform", chosen.width)
        self.to(self.device)

    def _make_items(self, name: BranchName) -> nn.Module:
        """Make the item vectors of one component and draw their weights."""
        chosen = self.settings
        features = self.feature("text")[0] if name == "text" else None
        items = make_items(self.n_items, chosen.hidden_size, features, chosen.hidden_dropout_prob)
        initialise(items, "uniform", chosen.hidden_size)
        return items

    def item_tables(self) -> dict[str, Tensor]:
        """Return the fused item vectors as ``"candidates"``, ``(N, d)`` or ``(N, 2d)``."""
        parts = [self.items[name]() for name in self.components]
        if self.settings.joined:
            return {"candidates": torch.cat(parts, dim=1)}
        return {"candidates": torch.stack(parts).sum(dim=0)}

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return session vectors, as wide as the fused items."""
        vectors: Tensor = self.session(gather_rows(tables["candidates"], item_seq), item_seq_len)
        return vectors

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Return the mean cross-entropy over all items."""
        return self.softmax_loss(interaction, self.settings.train_own_items)

    @torch.no_grad()
    def score_parts(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the scores ``(B, N)`` of each component of joined vectors; padding has ``-inf``.

        ``q . [X_j; H_j] = q_X . X_j + q_H . H_j``, with nothing left over. A sum of components has
        products across them, so there is no such view of it.
        """
        if not self.settings.joined:
            return {}
        parts: dict[str, Tensor] = {}
        size = self.settings.hidden_size
        with self.full_precision():
            query, candidates = self._match(interaction)
            for place, name in enumerate(self.components):
                own = slice(place * size, (place + 1) * size)
                parts[name] = query[:, own] @ candidates[:, own].T
                parts[name][:, 0] = -math.inf
        return parts
