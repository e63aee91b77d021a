"""Blend: the weighted sum of networks that were trained before, and of counted parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor, nn

from recbole_mm.model.parts.late_model import LateSum
from recbole_mm.model.parts.settings import BlendSettings

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset


class Blend(LateSum):
    """``score(j) = sum_m a_m z(network_m)_j + sum_p b_p z(part_p)_j`` of trained networks.

    RecBole trains it for one epoch like Pop, with a loss of zero; then the weights are fitted on
    validation rows. Until then all networks weigh the same.

    Parameters
    ----------
    config
        The keys of `BlendSettings`, and ``score_parts``.
    dataset
        Gives ``train_sessions`` and texts for the counted parts.
    networks
        The trained networks by name; nothing of them is trained any more.
    """

    type = ModelType.TRADITIONAL
    input_type = InputType.POINTWISE
    Settings = BlendSettings

    def __init__(
        self,
        config: Config,
        dataset: SessionDataset,
        networks: Mapping[str, AbstractRecommender],
    ) -> None:
        super().__init__(config, dataset)
        self.members = nn.ModuleDict(networks).requires_grad_(False)
        self.leaky = any(getattr(network, "leaky", False) for network in networks.values())
        # RecBole's optimisers want a weight; nothing reads this one.
        self.unused = nn.Parameter(torch.zeros(1))

    def late_networks(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the scores ``(B, N)`` of each network by name."""
        members = cast(Mapping[str, AbstractRecommender], self.members)
        return {name: one.full_sort_predict(interaction) for name, one in members.items()}

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Return 0, with a gradient of 0."""
        return (self.unused * 0).sum()

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Return the scores of all items ``(B, N)``; padding has ``-inf``."""
        if self.late:
            return self._late_sum(interaction)
        return torch.stack(list(self._late_batch(interaction).networks.values())).sum(dim=0)

    def score_parts(self, interaction: Interaction) -> Mapping[str, Tensor]:
        """Return the weighted terms of the score ``(B, N)``; none before they are fitted."""
        return self._late_terms(interaction) if self.late else {}
