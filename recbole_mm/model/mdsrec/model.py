"""MDSRec: multimodal difference learning for sequential recommendation (arXiv 2412.08103).

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` the hidden size, ``k``
centres, ``H`` neighbours. A stream is ``"id"`` or a modality; ``W`` ``(N, d)`` are the ID vectors,
the only item vectors that are trained. Features decide who is whose neighbour and which items form
a group; they are not fed to the network. Switches and what the paper leaves open: docs/mdsrec.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import scipy.sparse as sp
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.data.fits import enlarged
from recbole_mm.graph.distance import distance_cooccurrence, normalised, prune
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.chunked import mean_softmax_ce
from recbole_mm.model.layers import Match, gather_rows, make_match
from recbole_mm.model.mdsrec import content
from recbole_mm.model.mdsrec.centers import CenterPool, center_step, logistic_noise, relation
from recbole_mm.model.mdsrec.diagnostics import Batches, diagnose
from recbole_mm.model.mdsrec.graphs import FeatureMap, Injection, NeighbourSum
from recbole_mm.model.mdsrec.settings import MDSRecSettings
from recbole_mm.model.mdsrec.streams import encode_stream
from recbole_mm.model.transformer import NORM_EPS, draw_as_sasrec, make_encoder

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset
    from recbole_mm.data.sessions import Sessions


class MDSRec(MMSequentialRecommender):
    """ID stream with injected co-occurrence, and per modality a stream over a graph of likeness.

    ``score(b, j) = u . W_j + sum_m alpha_m h~_m . G_m,j`` (eq. 20-22) with ``u = h_id + sum_m
    alpha_m h_m`` (eq. 17), trained with one softmax cross-entropy per part (eq. 23-24).

    Parameters
    ----------
    config
        The keys of `MDSRecSettings`, and ``seed``.
    dataset
        Gives ``train_sessions`` and ``item_features``.

    Raises
    ------
    ConfigError
        If ``alpha`` does not fit the modalities.
    FeatureError
        If a modality's features are missing.
    """

    Settings = MDSRecSettings
    settings: MDSRecSettings
    input_type = InputType.POINTWISE

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        carried = () if self.features is None else tuple(self.features.tables)
        named = self.settings.modalities
        self.kinds = carried if named is None else named
        self.streams = self.loss_names = ("id", *self.kinds)
        # What a stream's own score and loss weigh; the ID stream's are not weighted.
        self.alpha = {"id": 1.0, **self.settings.weights(self.kinds)}
        self._build_graphs(dataset, int(config["seed"]))
        self._build_streams()
        self.apply(draw_as_sasrec)
        self.to(self.device)

    def _build_graphs(self, dataset: SessionDataset, seed: int) -> None:
        """Make the injection, the neighbours by content and the groups, once for all."""
        s = self.settings
        self.injection: Injection | None = None
        self.graphs, self.pools = nn.ModuleDict(), nn.ModuleDict()
        partners = None
        inject_features = s.use_cooc_modal and bool(self.kinds)
        if s.use_cooc_id or inject_features:
            pairs = dataset.fitted(
                "pairs",
                lambda: self._pairs(dataset.train_sessions),
                lambda kept: enlarged(kept, self.n_items),
            )
            if s.use_cooc_id:
                self.injection = Injection(pairs, s.cooc_norm_id, s.kappa_id)
            if inject_features:
                partners = normalised(pairs, s.cooc_norm_modal)
        folder = self.features.folder if self.features is not None and s.graph_cache else None
        for kind in self.kinds:
            shelf = content.Shelf(folder, f"{dataset.dataset_name}.{kind}")
            self._build_modality(dataset, kind, partners, shelf, seed)

    def _pairs(self, sessions: Sessions) -> sp.csr_matrix:
        """Count the co-occurrences that are injected."""
        s = self.settings
        pairs = distance_cooccurrence(
            sessions, self.n_items, weight=s.cooc_weight, window=s.cooc_window
        )
        return prune(pairs, s.cooc_topk)

    def _build_modality(
        self,
        dataset: SessionDataset,
        kind: str,
        partners: sp.csr_matrix | None,
        shelf: content.Shelf,
        seed: int,
    ) -> None:
        """Make one modality's item table and its groups."""
        s = self.settings
        features, present = self.feature(kind)

        def vectors() -> content.Floats:
            plain: content.Floats = features.to(torch.float32).numpy()
            return plain if partners is None else content.injected(plain, partners, s.kappa_modal)

        if s.use_graph:
            near = dataset.fitted(
                f"neighbours by {kind}",
                lambda: content.neighbours(vectors(), s.n_neighbors, s.knn_backend, shelf),
                lambda kept: content.with_new_neighbours(kept, vectors()),
            )
            self.graphs[kind] = NeighbourSum(near)
        else:
            self.graphs[kind] = FeatureMap(features, s.hidden_size)
        if s.use_ica:
            groups = dataset.fitted(
                f"groups by {kind}",
                lambda: content.groups(features, present, s.n_centers, seed, shelf),
                lambda kept: content.with_new_members(kept, self.n_items),
            )
            self.pools[kind] = CenterPool(groups, s.center_pool)

    def _build_streams(self) -> None:
        """Make the ID vectors, the positions that all streams share, and an encoder for each."""
        s = self.settings
        self.item_embedding = nn.Embedding(self.n_items, s.hidden_size, padding_idx=0)
        self.encoders = nn.ModuleDict({name: make_encoder(s) for name in self.streams})
        self.position_embedding = nn.Embedding(self.max_seq_length, s.hidden_size)
        norms = {name: nn.LayerNorm(s.hidden_size, eps=NORM_EPS) for name in self.streams}
        self.norms = nn.ModuleDict(norms)
        self.dropout = nn.Dropout(s.hidden_dropout_prob)
        self.center_step = center_step(s.center_block, s.center_ffn)
        match = {name: make_match(s.score, s.temperature) for name in self.streams}
        self.match = nn.ModuleDict(match)

    def item_tables(self) -> dict[str, Tensor]:
        """Return all that depends on items alone; ``"candidates"`` is ``(N, (1 + M) d)``."""
        tables = self._tables()
        if self.injection is not None:
            tables["injected"] = self.injection(self.item_embedding.weight)
        tables["candidates"] = torch.cat(list(self._candidates(tables).values()), dim=1)
        return tables

    def _tables(self) -> dict[str, Tensor]:
        """Return ``W``, each ``G_m`` ``(N, d)`` (eq. 6) and first centres ``(k, d)`` (eq. 11)."""
        tables: dict[str, Tensor] = {"id": self.item_embedding.weight}
        for kind in self.kinds:
            tables[kind] = self.graphs[kind](tables["id"])
            if kind in self.pools:
                first = self.pools[kind](tables[kind])
                normed = self.settings.center_norm
                tables[f"{kind} centers"] = self.norms[kind](first) if normed else first
        return tables

    def _candidates(self, tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what each stream's sessions meet, ``(N, d)``."""
        return {name: self._match_of(name).items(tables[name]) for name in self.streams}

    def _match_of(self, name: str) -> Match:
        """Return how sessions and items of a stream meet."""
        return cast(Match, self.match[name])

    def _items(self, name: str, item_seq: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Return a stream's item vectors ``(B, T, d)``: ``Z`` (eq. 3) or ``G_m``."""
        if name == "id" and self.injection is not None:
            if "injected" not in tables:
                with self.full_precision():
                    return self.injection.at(tables["id"], item_seq)
            name = "injected"
        return gather_rows(tables[name], item_seq)

    def _input(self, name: str, item_seq: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Return a stream's input vectors ``(B, T, d)`` (eq. 7, 9)."""
        places = self.position_embedding.weight[: item_seq.shape[1]]
        states: Tensor = self.norms[name](self._items(name, item_seq, tables) + places)
        dropped: Tensor = self.dropout(states)
        return dropped

    def sessions(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return each stream's session vectors ``h`` ``(B, d)`` and centres ``(B, k, d)``."""
        return {
            name: encode_stream(
                self.encoders[name],
                self._input(name, item_seq, tables),
                lengths,
                tables.get(f"{name} centers"),
                self.center_step,
            )
            for name in self.streams
        }

    def relation(self, session: Tensor, centers: Tensor) -> Tensor:
        """Return how much each centre concerns each session, ``(B, k)``; noisy while training."""
        noise = None
        if self.training:
            uniform = torch.rand(centers.shape[:2], device=centers.device)
            noise = logistic_noise(uniform)
        return relation(session, centers, self.settings.relation_tau, noise)

    def _queries(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what meets each table: ``u`` and each ``h~_m``, ``(B, d)`` (eq. 17-18)."""
        found = self.sessions(item_seq, lengths, tables)
        with self.full_precision():  # in mixed precision, the encoders alone are
            queries = self._related(found, tables["id"].dtype)
            return {name: self._match_of(name).query(one) for name, one in queries.items()}

    def _related(
        self, found: Mapping[str, tuple[Tensor, Tensor | None]], dtype: torch.dtype
    ) -> dict[str, Tensor]:
        """Return ``u`` and each ``h~_m`` of what the encoders gave."""
        fused, queries = found["id"][0].to(dtype), {}
        for kind in self.kinds:
            session, centers = found[kind]
            session = session.to(dtype)
            fused = fused + self.alpha[kind] * session
            if centers is not None:
                centers = centers.to(dtype)
                share = self.relation(session, centers)
                session = session + (share.unsqueeze(1) @ centers).squeeze(1)
            queries[kind] = session
        return {"id": fused, **queries}

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return ``[u | alpha_m h~_m ...]``, which with the candidates gives eq. 22."""
        queries = self._queries(item_seq, item_seq_len, tables)
        return torch.cat([self.alpha[name] * queries[name] for name in self.streams], dim=1)

    def calculate_loss(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """Return the weighted parts named in ``loss_names``, scalars (eq. 23-24)."""
        target = interaction[self.ITEM_ID]
        with self.full_precision():
            tables = self._tables()
            candidates = self._candidates(tables)
        item_seq, lengths = self.inputs(interaction)
        queries = self._queries(item_seq, lengths, tables)
        struck = item_seq if self.settings.train_own_items == "mask" else None
        return tuple(
            self.alpha[name] * mean_softmax_ce(query, candidates[name], target, struck)
            for name, query in queries.items()
        )

    def score_parts(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return ``y_s`` and each ``y_m`` ``(B, n_items)`` (eq. 20-21); ``{}`` without modalities.

        Padding has ``-inf``. They are not weighted: eq. 22 adds ``y_s`` and ``alpha_m y_m``.
        """
        if not self.kinds:
            return {}
        with self.full_precision():
            tables = self.current_tables()
            queries = self._queries(*self.inputs(interaction), tables)
            candidates = self._candidates(tables)
            parts = {name: queries[name] @ candidates[name].T for name in self.streams}
        for scores in parts.values():
            scores[:, 0] = -math.inf
        return parts

    def neighbours(self) -> dict[str, Tensor]:
        """Return each modality's neighbours ``(N, H)``, the item itself first, filled up with 0."""
        graphs = self.graphs.items()
        return {kind: one.neighbours for kind, one in graphs if isinstance(one, NeighbourSum)}

    def item_neighbours(self, item: int) -> dict[str, list[int]]:
        """Return the items most like one item by modality, itself left out, the nearest first."""
        return {
            kind: [other for other in near[item].tolist() if other not in (0, item)]
            for kind, near in self.neighbours().items()
        }

    def diagnostics(self, train_data: Batches, valid_data: Batches) -> dict[str, float]:
        """Return numbers that tell whether graphs, centres and injection do anything.

        See `recbole_mm.model.mdsrec.diagnostics`.
        """
        return diagnose(self, train_data, valid_data)
