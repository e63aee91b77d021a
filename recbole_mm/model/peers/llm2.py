"""LLM2SASRec and LLM2BERT4Rec: item vectors that start as principal components of text vectors.

J. Harte et al., "Leveraging Large Language Models for Sequential Recommendation", RecSys 2023
(arXiv 2309.09261); SASRec as the backbone is their repository's. All but the first item vectors is
RecBole's own model. What is done otherwise than there stands in docs/peers.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from recbole.config import Config
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.model.sequential_recommender.bert4rec import BERT4Rec
from recbole.model.sequential_recommender.sasrec import SASRec
from torch import Tensor, nn

from recbole_mm.model.peers.settings import (
    LLM2BERT4RecSettings,
    LLM2SASRecSettings,
    StockTransformerSettings,
)
from recbole_mm.model.spaces import FeatureSpace, Vectors

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset


class StartsFromVectors(SequentialRecommender):
    """Stands before a model of RecBole's with an ``item_embedding``, and gives its first rows.

    Raises
    ------
    FeatureError
        If the vectors are missing, or fewer than two training items have one.
    """

    Settings: ClassVar[type[StockTransformerSettings]] = StockTransformerSettings
    settings: StockTransformerSettings
    ignores_padding = True
    item_embedding: nn.Embedding

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        self.settings = self.Settings.of(config)
        features = dataset.item_features
        assert features is not None  # the settings name the modality, and the run loads it
        name = self.settings.modality
        vectors = Vectors(features.table(name), features.mask(name))
        size, std = self.settings.hidden_size, self.settings.initializer_range
        seen = torch.from_numpy(dataset.train_counts > 0)
        space = FeatureSpace(vectors, seen, size, dataset.fitted, f"start from {name}")
        start_from(self.item_embedding.weight, space(vectors), std)


@torch.no_grad()
def start_from(weight: Tensor, components: Vectors, scale: float) -> None:
    """Write first item vectors, in place.

    Items without a vector, and coordinates beyond the components, keep what was drawn.

    Parameters
    ----------
    weight
        Item vectors ``(N + e, d)``; rows behind the items (a mask) stay as they are.
    components
        Principal components ``(N, c)``, ``c`` at most ``d``, of mean square 1.
    scale
        Their root mean square in ``weight``.
    """
    rows = components.present.nonzero().flatten()
    weight[rows, : components.table.shape[1]] = scale * components.table[rows].to(weight)


class LLM2SASRec(StartsFromVectors, SASRec):
    """RecBole's SASRec with such a start."""

    Settings = LLM2SASRecSettings


class LLM2BERT4Rec(StartsFromVectors, BERT4Rec):
    """RecBole's BERT4Rec with such a start; the vector of the mask is drawn."""

    Settings = LLM2BERT4RecSettings
