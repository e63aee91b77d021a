"""RecBole's models of item features, with item vectors among the features.

SASRecF, GRU4RecF and FDSA read columns of the ``.item`` file. Of a vector RecBole keeps nothing (a
``float_seq`` column is left out, or every entry is multiplied by the same weights and summed). Here
each modality is one more feature, ``W x_i``, beside the columns; all else is RecBole's own code.

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``F`` features, ``d`` width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from recbole.config import Config
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.model.init import xavier_normal_initialization
from recbole.model.layers import FeatureSeqEmbLayer
from recbole.model.sequential_recommender import fdsa, gru4recf, sasrecf
from torch import Tensor, nn

from recbole_mm.model.layers import TINY
from recbole_mm.model.peers.settings import VectorSettings

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset

# What RecBole's feature layer gives: sparse and dense features ``(B, T, F, d)`` by "item".
Features = tuple[dict[str, Tensor | None], dict[str, Tensor | None]]


class MappedVectors(nn.Module):
    """One feature of an item: ``W x_i / s``, and for items without a vector a learned one, ``m``.

    With one-hot ``x`` it is RecBole's embedding of a token column: the columns of ``W`` are the
    embeddings, ``m`` that of the missing token.

    Parameters
    ----------
    table
        ``x`` ``(N, w)``.
    present
        bool ``(N,)``: items that have a vector.
    scale
        ``s``.
    size
        Width ``d`` of the feature.
    """

    table: Tensor
    absent: Tensor

    def __init__(self, table: Tensor, present: Tensor, scale: float, size: int) -> None:
        super().__init__()
        filled = table.float() * present.unsqueeze(1) / scale
        self.register_buffer("table", filled, persistent=False)
        self.register_buffer("absent", (~present).float().unsqueeze(1), persistent=False)
        self.map = nn.Linear(table.shape[1], size, bias=False)
        self.missing = nn.Embedding(1, size)

    def forward(self, item_seq: Tensor) -> Tensor:
        """Return the feature ``(B, T, d)`` of items ``(B, T)``; each item is mapped once."""
        ids, place = torch.unique(item_seq, return_inverse=True)
        rows = self.map(self.table[ids]) + self.absent[ids] * self.missing.weight
        return F.embedding(place, rows)


class VectorFeatures(nn.Module):
    """RecBole's feature layer with item vectors behind the columns.

    Parameters
    ----------
    columns
        RecBole's layer, which embeds the columns, or None if there are none.
    vectors
        One feature per modality.
    """

    def __init__(
        self, columns: FeatureSeqEmbLayer | None, vectors: Mapping[str, MappedVectors]
    ) -> None:
        super().__init__()
        self.columns = columns
        self.vectors = nn.ModuleDict(vectors)

    def forward(self, user: Tensor | None, item_seq: Tensor) -> Features:
        """Return sparse and dense features, as RecBole's layer does; vectors are dense."""
        mapped = torch.stack([one(item_seq) for one in self.vectors.values()], dim=-2)
        if self.columns is None:
            return {"item": None}, {"item": mapped}
        sparse, dense = self.columns(user, item_seq)
        if dense["item"] is not None:
            mapped = torch.cat([dense["item"], mapped], dim=-2)
        return sparse, {"item": mapped}


class OneColumn:
    """A configuration that names one column, where there is none.

    RecBole's constructors cannot be without: a GRU of width 0 is refused.
    """

    def __init__(self, config: Config, column: str) -> None:
        self.config, self.column = config, column

    def __getitem__(self, key: str) -> object:
        """Return the value of a key."""
        return [self.column] if key == "selected_features" else self.config[key]


class ReadsVectors(SequentialRecommender):
    """Stands before a model of RecBole's that has a ``feature_embed_layer``.

    Without modalities the model is RecBole's, bit by bit.

    Raises
    ------
    ConfigError
        See `VectorSettings.of`.
    FeatureError
        If a modality's features are missing.
    """

    Settings = VectorSettings
    settings: VectorSettings
    ignores_padding = True
    feature_embed_layer: nn.Module
    num_feature_field: int

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        self.settings = VectorSettings.of(config)
        names, columns = self.settings.modalities, config["selected_features"]
        super().__init__(config if columns else OneColumn(config, dataset.iid_field), dataset)
        if names:
            vectors = {name: self._feature(dataset, name) for name in names}
            columns_layer = self.feature_embed_layer if columns else None
            self.feature_embed_layer = VectorFeatures(columns_layer, vectors)
            self.selected_features = columns
            self.num_feature_field += len(names) - (0 if columns else 1)
            self.widen()

    def _feature(self, dataset: SessionDataset, name: str) -> MappedVectors:
        """Make the feature of one modality, with first weights like those of a token column."""
        features = dataset.item_features
        assert features is not None  # the settings name the modalities, and the run loads them
        table, present = features.table(name), features.mask(name)
        seen = torch.from_numpy(dataset.train_counts > 0) & present
        scale = dataset.fitted(f"length of {name}", lambda: mean_length(table[seen]))
        made = MappedVectors(table, present, scale, self.feature_size())
        made.apply(self.draw)
        return made

    def feature_size(self) -> int:
        """Return the width ``d`` of a feature."""
        return int(self.hidden_size)

    def draw(self, module: nn.Module) -> None:
        """Draw a module's first weights as the model does."""
        self._init_weights(module)

    def widen(self) -> None:
        """Make the layer anew that is as wide as all features, where the model has one."""


class SASRecF(ReadsVectors, sasrecf.SASRecF):
    """RecBole's SASRecF: ID and features side by side, mapped to the input of a Transformer."""

    def widen(self) -> None:
        """See the base class."""
        width = self.hidden_size * (1 + self.num_feature_field)
        self.concat_layer = nn.Linear(width, self.hidden_size)
        self.draw(self.concat_layer)


class GRU4RecF(ReadsVectors, gru4recf.GRU4RecF):
    """RecBole's GRU4RecF: a GRU over IDs and one over features, side by side."""

    def feature_size(self) -> int:
        """See the base class."""
        return int(self.embedding_size)

    def draw(self, module: nn.Module) -> None:
        """See the base class."""
        xavier_normal_initialization(module)

    def widen(self) -> None:
        """See the base class."""
        self.feature_gru_layers = nn.GRU(
            input_size=self.embedding_size * self.num_feature_field,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bias=False,
            batch_first=True,
        )
        self.draw(self.feature_gru_layers)


class FDSA(ReadsVectors, fdsa.FDSA):
    """RecBole's FDSA: a Transformer over IDs and one over an attention of features."""


def mean_length(vectors: Tensor) -> float:
    """Return the root mean square length of vectors ``(M, w)``; 1 for none or zeros.

    One-hot vectors have length 1, and vectors of this length start with what a token starts with.
    """
    length = math.sqrt(float(vectors.double().square().sum(dim=1).mean())) if len(vectors) else 0.0
    return length if length > TINY else 1.0
