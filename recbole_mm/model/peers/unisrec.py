"""UniSRec: universal sequence representations from texts (Hou et al., KDD 2022, arXiv 2206.05941).

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` the hidden size, ``x``
descriptions ``(N, w)``, ``v`` item vectors, ``U`` vectors by id ``(N, d)``. Switches, and what is
done otherwise than in the released code: docs/peers.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.layers import gather_rows, length, unit
from recbole_mm.model.peers.adaptor import Adaptor
from recbole_mm.model.peers.descriptions import described
from recbole_mm.model.peers.settings import UniSRecSettings
from recbole_mm.model.spaces import Vectors
from recbole_mm.model.transformer import (
    NORM_EPS,
    draw_as_sasrec,
    encode_last,
    fused,
    make_encoder,
)

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset


class UniSRec(MMSequentialRecommender):
    """Adapted descriptions (and ids) through SASRec's Transformer, met by cosine.

    ``score(b, j) = cos(h_b, v_j) / temperature`` with ``v = adaptor(x) + U`` and ``h`` the last
    position of the Transformer over ``v`` and positions; trained with a softmax over all items.

    Parameters
    ----------
    config
        The keys of `UniSRecSettings`.
    dataset
        Gives ``item_features``, and the training items on which descriptions are centred.

    Raises
    ------
    FeatureError
        If a modality is missing, or fewer than two training items have a vector of it.
    """

    Settings: ClassVar[type[UniSRecSettings]] = UniSRecSettings
    settings: UniSRecSettings
    input_type = InputType.POINTWISE
    described: Tensor

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        s = self.settings
        parts = [described(Vectors(*self.feature(m)), dataset, m) for m in s.modalities]
        self.register_buffer("described", torch.cat(parts, dim=1), persistent=False)
        width = self.described.shape[1]
        self.adaptor = Adaptor(width, s.hidden_size, s.n_experts, s.adaptor_dropout_prob)
        self.item_embedding: nn.Embedding | None = None
        if s.item_ids:
            self.item_embedding = nn.Embedding(self.n_items, s.hidden_size, padding_idx=0)
        self.position_embedding = nn.Embedding(self.max_seq_length, s.hidden_size)
        self.norm = nn.LayerNorm(s.hidden_size, eps=NORM_EPS)
        self.dropout = nn.Dropout(s.hidden_dropout_prob)
        self.encoder = make_encoder(s)
        self.apply(draw_as_sasrec)
        if s.pretrained is not None and s.freeze_encoder:
            for part in (self.position_embedding, self.encoder):
                part.requires_grad_(False)
        self.to(self.device)

    def take_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Start from what was learned on other data: all weights but the vectors by item id.

        Parameters
        ----------
        weights
            The state of a `ContrastiveUniSRec` of the same sizes.
        """
        self.load_state_dict(weights, strict=False)

    def item_tables(self) -> dict[str, Tensor]:
        """Return ``v`` as ``"items"`` and, of length 1, as ``"candidates"``, both ``(N, d)``."""
        items = self.adaptor(self.described)
        if self.item_embedding is not None:
            items = items + self.item_embedding.weight
        return {"items": items, "candidates": unit(items)}

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return session vectors ``(B, d)`` of length ``1 / temperature``."""
        session = self.sequence(gather_rows(tables["items"], item_seq), item_seq_len)
        return unit(session) / self.settings.temperature

    def sequence(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return ``h`` ``(B, d)`` of sessions, item vectors ``(B, T, d)``."""
        places = self.position_embedding.weight[: vectors.shape[1]]
        states = self.dropout(self.norm(vectors + places))
        return encode_last(self.encoder, states, lengths, fused)

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """Return the mean cross-entropy over all items."""
        return self.softmax_loss(interaction, self.settings.train_own_items)

    @torch.no_grad()
    def score_parts(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the scores ``(B, N)`` of description and id; padding has ``-inf``.

        ``q . v / |v| = q . adaptor(x) / |v| + q . U / |v|``, with nothing left over. Empty without
        ids.
        """
        if self.item_embedding is None:
            return {}
        with self.full_precision():
            tables = self.current_tables()
            query = self.encode(*self.inputs(interaction), tables)
            size = length(tables["items"]).unsqueeze(1)
            ids = self.item_embedding.weight
            found = {"content": (tables["items"] - ids) / size, "id": ids / size}
            parts = {name: query @ table.T for name, table in found.items()}
        for scores in parts.values():
            scores[:, 0] = -math.inf
        return parts
