"""MISSRec: multi-modal interests in sessions (Wang et al., MM 2023, arXiv 2308.11175).

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` the hidden size, ``M``
modalities, ``e_m`` adapted vectors of a modality and ``U`` vectors by id, both ``(N, d)``; ``V``
views of an item: its modalities and, with ids, its id. Switches, and what is done otherwise than in
the released code: docs/peers.md.
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

from recbole_mm.model import losses
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.chunked import mean_in_chunks
from recbole_mm.model.layers import gather_rows, last_position, masked_mean, real_positions, unit
from recbole_mm.model.peers.descriptions import described
from recbole_mm.model.peers.interests import distinct, find_interests, nearest
from recbole_mm.model.peers.settings import MISSRecSettings
from recbole_mm.model.spaces import Vectors
from recbole_mm.model.transformer import NORM_EPS, draw_as_sasrec

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset


class MISSRec(MMSequentialRecommender):
    """Items that look at the session's interests, met view by view.

    ``score(b, i)`` is the mean over the views of ``i`` of their cosines with ``h_b``, divided by
    the temperature, where modalities are weighted by session and item. ``h`` is the last position
    of a Transformer decoder over ``sum_m e_m + U`` and positions; it looks at a Transformer encoder
    over the interests of the session's items: centres of groups that ``e_m`` falls into. Trained
    with a softmax over all items, and with what keeps the interests of a session apart.

    Parameters
    ----------
    config
        The keys of `MISSRecSettings`.
    dataset
        Gives ``item_features``, and the training items on which interests are found.

    Raises
    ------
    FeatureError
        If a modality is missing, or fewer than two training items have a vector of it.
    """

    Settings: ClassVar[type[MISSRecSettings]] = MISSRecSettings
    settings: MISSRecSettings
    input_type = InputType.POINTWISE
    loss_names = ("main", "diversity")
    present: Tensor
    seen: Tensor
    interests: Tensor
    interest_of: Tensor

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        s = self.settings
        there = () if self.features is None else tuple(self.features.tables)
        self.modalities = s.feature_files(there)
        self.adaptors = nn.ModuleDict()
        for name in self.modalities:
            table = described(Vectors(*self.feature(name)), dataset, name)
            self.register_buffer(f"described_{name}", table, persistent=False)
            self.adaptors[name] = nn.Linear(table.shape[1], s.hidden_size)
        self.item_embedding: nn.Embedding | None = None
        if s.item_ids:
            self.item_embedding = nn.Embedding(self.n_items, s.hidden_size, padding_idx=0)
        self.fusion_factor: nn.Parameter | None = None
        if s.fusion == "dynamic" and len(self.modalities) > 1:
            self.fusion_factor = nn.Parameter(torch.zeros(()))
        self._build_interests(torch.from_numpy(dataset.train_counts > 0))
        self._build_network()
        self.to(self.device)

    def _build_interests(self, seen: Tensor) -> None:
        """Make room for the interests, all zero before the first epoch, and for whose they are."""
        present = torch.stack([self.feature(name)[1] for name in self.modalities], dim=1)
        self.register_buffer("present", present, persistent=False)
        self.register_buffer("seen", seen, persistent=False)
        points = int((present & seen.unsqueeze(1)).sum())
        count = math.ceil(self.settings.interest_ratio * points)
        # Interest 0 is none; -1 stands for the nearest one, until one is given.
        self.register_buffer("interests", torch.zeros(count + 1, self.settings.hidden_size))
        self.register_buffer("interest_of", torch.where(present, -1, 0))

    def _build_network(self) -> None:
        """Make encoder and decoder, and draw the first weights."""
        s = self.settings
        self.position_embedding = nn.Embedding(self.max_seq_length, s.hidden_size)
        self.norm = nn.LayerNorm(s.hidden_size, eps=NORM_EPS)
        self.dropout = nn.Dropout(s.hidden_dropout_prob)
        sizes = s.hidden_size, s.n_heads, s.inner_size, s.hidden_dropout_prob, "gelu", NORM_EPS
        ends = [nn.LayerNorm(s.hidden_size, eps=NORM_EPS) for _ in range(2)]
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*sizes, batch_first=True),
            s.n_layers,
            ends[0],
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(*sizes, batch_first=True), s.n_layers, ends[1]
        )
        self.apply(draw_as_sasrec)
        for module in self.modules():
            if isinstance(module, nn.MultiheadAttention):
                nn.init.xavier_uniform_(module.in_proj_weight)

    # ---- Interests ----

    @torch.no_grad()
    def start_epoch(self, epoch_idx: int) -> None:
        """Find the interests of an epoch, counted from 0, in the vectors of training items."""
        views = self._modal_views()
        points = views[self.present & self.seen.unsqueeze(1)]
        self.interests[1:] = find_interests(points, len(self.interests) - 1, epoch_idx)
        self.interest_of.copy_(self._placed(views, torch.where(self.present, -1, 0)))
        self.drop_caches()

    @torch.no_grad()
    def _placed(self, views: Tensor, interest_of: Tensor) -> Tensor:
        """Return the interests ``(N, M)``, the nearest one where there is none yet."""
        left = interest_of < 0
        if not bool(left.any()):
            return interest_of
        return interest_of.masked_scatter(left, 1 + nearest(views[left], self.interests[1:]))

    # ---- Items ----

    def _modal_views(self) -> Tensor:
        """Return ``e_m`` of all items, ``(N, M, d)``, 0 for an item without a vector."""
        made = [one(self.get_buffer(f"described_{name}")) for name, one in self.adaptors.items()]
        return torch.stack(made, dim=1) * self.present.unsqueeze(2)

    def item_tables(self) -> dict[str, Tensor]:
        """Return what depends on items alone.

        ``"items"`` ``(N, d)`` is what a session is made of, ``"candidates"`` ``(N, V d)`` the views
        side by side, each of length 1, ``"interests"`` ``(N, M)`` whose groups they fall into.
        """
        views = self._modal_views()
        kinds = self._placed(views, self.interest_of)
        if self.item_embedding is not None:
            views = torch.cat([views, self.item_embedding.weight.unsqueeze(1)], dim=1)
        candidates = unit(views).flatten(1)
        return {"items": views.sum(dim=1), "candidates": candidates, "interests": kinds}

    # ---- Sessions ----

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return session vectors ``(B, d)`` of length 1."""
        return self._encode(item_seq, item_seq_len, tables)[0]

    def _encode(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the same, and how alike the interests of each session are, ``(B,)``."""
        kinds = distinct(tables["interests"][item_seq].flatten(1))
        # A session without any interest looks at the zero vector.
        none = kinds == 0
        none[:, 0] = False
        memory = self.encoder(self.interests[kinds], src_key_padding_mask=none)
        places = self.position_embedding.weight[: item_seq.shape[1]]
        states = self.dropout(self.norm(gather_rows(tables["items"], item_seq) + places))
        padding = ~real_positions(lengths, item_seq.shape[1])
        states = self.decoder(
            states, memory, tgt_key_padding_mask=padding, memory_key_padding_mask=none
        )
        alike = masked_mean(memory, kinds > 0).square().mean(dim=1)
        return unit(last_position(states, lengths)), alike

    # ---- Scores ----

    def fused(self, cosines: Tensor, present: Tensor) -> Tensor:
        """Return what each view adds to the score.

        Of ``n`` modalities that an item has, ``c = sum_m softmax_m(f c_m) c_m`` with the learned
        ``f``; with the id the score is ``(n c + c_id) / (n + 1)``, all divided by the temperature.

        Parameters
        ----------
        cosines
            ``(V, ...)``.
        present
            bool, broadcast to ``(M, ...)``.
        """
        content, own = torch.split(cosines, [len(present), len(cosines) - len(present)])
        logits = content * (0.0 if self.fusion_factor is None else self.fusion_factor)
        least = torch.finfo(logits.dtype).min
        share = torch.softmax(logits.masked_fill(~present, least), dim=0) * present
        count = present.sum(dim=0)
        views = (count + len(own)).clamp_min(1) * self.settings.temperature
        return torch.cat([share * content * (count / views), own / views])

    def _all_fused(self, query: Tensor, candidates: Tensor) -> Tensor:
        """Return what each view adds to the scores of all items, ``(V, B, N)``."""
        views = torch.split(candidates, self.settings.hidden_size, dim=1)
        cosines = torch.stack([query @ view.T for view in views])
        return self.fused(cosines, self.present.T.unsqueeze(1))

    @torch.no_grad()
    def score_parts(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the scores ``(B, N)`` of each view, which add up; padding has ``-inf``."""
        with self.full_precision():
            parts = self._all_fused(*self._match(interaction))
        parts[:, :, 0] = -math.inf
        names = [*self.modalities, *([] if self.item_embedding is None else ["id"])]
        return dict(zip(names, parts.unbind(), strict=True)) if len(names) > 1 else {}

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Return the scores of all items ``(B, n_items)``; padding has ``-inf``."""
        with self.full_precision():
            scores = self._all_fused(*self._match(interaction)).sum(dim=0)
        scores[:, 0] = -math.inf
        return scores

    def predict(self, interaction: Interaction) -> Tensor:
        """Return the score of each row's ``item_id``, ``(B,)``."""
        item = interaction[self.ITEM_ID]
        with self.full_precision():
            query, candidates = self._match(interaction)
            views = candidates[item].view(len(item), -1, self.settings.hidden_size)
            cosines = (views * query.unsqueeze(1)).sum(dim=2).T
            scores = self.fused(cosines, self.present[item].T).sum(dim=0)
        return scores.masked_fill(item == 0, -math.inf)

    # ---- Training ----

    def calculate_loss(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy over all items, and the weighted likeness of interests."""
        item_seq, lengths = self.inputs(interaction)
        with self.full_precision():
            tables = self.item_tables()
            query, alike = self._encode(item_seq, lengths, tables)
            rows = (query, item_seq, interaction[self.ITEM_ID])
            read = [] if self.fusion_factor is None else [self.fusion_factor]
            # A row per view, so that chunks are cut by the tables of scores that are held.
            views = tables["candidates"].view(-1, self.settings.hidden_size)
            main = mean_in_chunks(self._row_losses, rows, (views,), read)
        return main, self.settings.diversity_weight * alike.mean()

    def _row_losses(self, query: Tensor, item_seq: Tensor, target: Tensor, views: Tensor) -> Tensor:
        """Return the cross-entropy ``(b,)`` of rows, given views ``(N V, d)``."""
        scores = self._all_fused(query, views.view(self.n_items, -1)).sum(dim=0)
        if self.settings.train_own_items == "mask":
            scores = losses.without_own_items(scores, item_seq, target)
        # Column 0 is no item and must not take part in the softmax.
        return losses.softmax_ce(scores[:, 1:], target - 1)
