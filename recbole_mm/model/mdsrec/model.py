"""MDSRec: multimodal difference learning for sequential recommendation (arXiv 2412.08103).

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` the hidden size, ``k``
centres, ``H`` neighbours. A stream is ``"id"`` or a modality; ``W`` ``(N, d)`` are the ID vectors,
the only item vectors that are trained. Features decide who is whose neighbour and which items form
a group; they are not fed to the network. Switches and what the paper leaves open: docs/mdsrec.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.errors import ConfigError
from recbole_mm.graph import distance as content_graphs
from recbole_mm.model import layers, losses
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.mdsrec import streams
from recbole_mm.model.mdsrec.diagnostics import diagnose
from recbole_mm.model.mdsrec.graphs import (
    CenterPool,
    ContentSource,
    Injection,
    NeighbourSum,
    cooccurrences,
)
from recbole_mm.model.mdsrec.settings import MDSRecSettings

# Looked for where modalities are not named.
USUAL = ("text", "image")


class MDSRec(MMSequentialRecommender):
    """ID stream with injected co-occurrence, and per modality a stream over a graph of likeness.

    ``score(b, j) = u . W_j + sum_m alpha_m h~_m . G_m,j`` (eq. 20-22) with ``u = h_id + sum_m
    alpha_m h_m`` (eq. 17), trained with one softmax cross-entropy per part (eq. 23-24).

    Parameters
    ----------
    config
        The keys of properties/model/MDSRec.yaml, explained in properties/keys.yaml.
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
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings: Any = config
        self.size = int(config["hidden_size"])
        there = [] if self.features is None else list(self.features.tables)
        named = config["modalities"]
        self.kinds = tuple(there if named is None else named)
        self.alpha = self._weights()
        self.scored = self.kinds if config["modal_score"] else ()
        self._build_graphs(dataset)
        self._build_streams()
        self.loss_names = ("id", *(self.kinds if config["modal_loss"] else ()))
        if config["loss_fused"]:
            self.loss_names += ("fused",)
        self.apply(self._reset)
        self.to(self.device)

    def _weights(self) -> dict[str, float]:
        """Return ``alpha_m`` of each modality."""
        given = self.settings["alpha"]
        if given is None:
            return {kind: 1.0 / len(self.kinds) for kind in self.kinds}
        if len(given) != len(self.kinds) or not math.isclose(sum(given), 1.0, abs_tol=1e-6):
            raise ConfigError(
                f"alpha = {list(given)} is not accepted; expected one weight for each of "
                f"{', '.join(self.kinds) or 'no modality'} with sum 1, or ~ for equal weights"
            )
        return dict(zip(self.kinds, map(float, given), strict=True))

    def _build_graphs(self, dataset: Any) -> None:
        """Make the injection, the neighbours by content and the groups, once for all."""
        config = self.settings
        self.injection: Injection | None = None
        self.graphs, self.pools, self.maps = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        modal = bool(config["use_cooc_modal"] and self.kinds)
        graph, modal_graph = None, None
        if config["use_cooc_id"] or modal:
            graph = cooccurrences(config, dataset.train_sessions, self.n_items)
        if graph is not None and modal:
            modal_graph = content_graphs.normalised(graph, config["cooc_norm_modal"])
        if graph is not None and config["use_cooc_id"]:
            self.injection = Injection(
                graph,
                config["cooc_norm_id"],
                float(config["kappa_id"]),
                directed=bool(config["cooc_directed"]),
                dropout=float(config["cooc_dropout"]),
                lazy=config["lazy_injection"],
            )
        for kind in self.kinds:
            self._build_modality(ContentSource(config, kind, *self.feature(kind), modal_graph))

    def _build_modality(self, source: ContentSource) -> None:
        """Make one modality's item table and its groups."""
        config, kind = self.settings, source.name
        if config["use_graph"]:
            how, hops = config["graph_agg"], int(config["graph_hops"])
            self.graphs[kind] = NeighbourSum(source.neighbours(), how, hops)
        else:
            self.register_buffer(f"{kind}_features", source.features.float(), persistent=False)
            self.maps[kind] = nn.Linear(source.features.shape[1], self.size, bias=False)
        if config["use_ica"]:
            self.pools[kind] = CenterPool(source.groups(), config["center_pool"])

    def _build_streams(self) -> None:
        """Make the ID vectors, positions, encoders and what the centres have of their own."""
        config, eps = self.settings, float(self.settings["layer_norm_eps"])
        names = ("id", *self.kinds)
        self.item_embedding = nn.Embedding(self.n_items, self.size, padding_idx=0)
        sharing, shared = config["encoder_sharing"], config["share_position"]
        groups = {"separate": names, "modal": ("id", *("modal",) * len(self.kinds))}
        owners = groups.get(sharing, ("all",) * len(names))
        self.encoder_of = dict(zip(names, owners, strict=True))
        self.encoders = nn.ModuleDict({name: streams.make_encoder(config) for name in owners})
        self.position_of = dict.fromkeys(names, "all") if shared else {name: name for name in names}
        self.positions, self.norms, self.tails = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for name in dict.fromkeys(self.position_of.values()):
            self.positions[name] = nn.Embedding(self.max_seq_length, self.size)
        for name in names:
            normed = config["input_layernorm"] or (config["center_norm"] and name in self.pools)
            self.norms[name] = nn.LayerNorm(self.size, eps=eps) if normed else nn.Identity()
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])
        if config["center_share"] == "qkv":
            normed = config["center_block"] == "layer"
            for kind in self.pools:
                tails = [streams.OwnTail(config, normed) for _ in range(config["n_layers"])]
                self.tails[kind] = nn.ModuleList(tails)

    def _reset(self, module: nn.Module) -> None:
        """Draw first weights as RecBole's SASRec does; the padding item's vector stays zero."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=float(self.settings["initializer_range"]))
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()

    def item_tables(self) -> dict[str, Tensor]:
        """Return all that depends on items alone; ``"candidates"`` is ``(N, (1 + M) d)``."""
        tables = self._tables(whole=True)
        parts = [tables["target"], *(tables[kind] for kind in self.scored)]
        return {**tables, "candidates": torch.cat(parts, dim=1)}

    def _tables(self, whole: bool) -> dict[str, Tensor]:
        """Return targets, modal tables and first centres.

        ``"input"``, the whole injected table, is there if it is wanted or needed anyway.
        """
        config, raw = self.settings, self.item_embedding.weight
        needed = whole or "injected" in (config["graph_source"], config["id_target"])
        tables: dict[str, Tensor] = {"target": raw}
        source = raw
        if self.injection is not None and needed:
            tables["input"] = self.injection(raw)
            source = tables["input"] if config["graph_source"] == "injected" else raw
            tables["target"] = tables["input"] if config["id_target"] == "injected" else raw
        for kind in self.kinds:
            if kind in self.graphs:
                tables[kind] = self.graphs[kind](source)
            else:
                tables[kind] = self.maps[kind](getattr(self, f"{kind}_features"))
            if kind in self.pools:
                centers = self.pools[kind](tables[kind])
                tables[f"{kind} centers"] = (
                    self.norms[kind](centers) if config["center_norm"] else centers
                )
        return tables

    def _input(self, name: str, item_seq: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Return a stream's input vectors ``(B, T, d)`` (eq. 7, 9)."""
        if name in tables:
            items = layers.gather_rows(tables[name], item_seq)
        elif self.injection is None:
            items = layers.gather_rows(self.item_embedding.weight, item_seq)
        elif "input" in tables:
            items = layers.gather_rows(tables["input"], item_seq)
        else:
            items = self.injection.at(self.item_embedding.weight, item_seq)
        positions: Any = self.positions[self.position_of[name]]
        states = items + positions.weight[: item_seq.shape[1]]
        normed = self.norms[name](states) if self.settings["input_layernorm"] else states
        return self.dropout(normed)

    def _centers(self, kind: str, tables: Mapping[str, Tensor]) -> streams.Centers | None:
        """Return a modality's centres before the first layer."""
        if kind not in self.pools:
            return None
        config = self.settings
        encoder: Any = self.encoders[self.encoder_of[kind]]
        own: Any = self.tails[kind] if kind in self.tails else map(streams.tail_of, encoder.layer)
        return streams.Centers(
            tables[f"{kind} centers"],
            tuple(own),
            residual=config["center_block"] == "layer",
            late_activation=config["center_ffn"] == "printed",
            after=config["center_keys"] == "output",
        )

    def sessions(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return each stream's session vectors ``h`` ``(B, d)`` and centres ``(B, k, d)``."""
        return {
            name: streams.encode_stream(
                self.encoders[self.encoder_of[name]],
                self._input(name, item_seq, tables),
                lengths,
                bool(self.settings["bidirectional"]),
                self._centers(name, tables),
            )
            for name in ("id", *self.kinds)
        }

    def relation(self, session: Tensor, centers: Tensor) -> Tensor:
        """Return how much each centre concerns each session, ``(B, k)``; noisy while training."""
        config = self.settings
        noise = None
        noisy = self.training or config["relation_noise_eval"]
        if config["relation_noise"] != "none" and noisy:
            uniform = torch.rand(centers.shape[:2], device=centers.device)
            noise = streams.logit_noise(config["relation_noise"], uniform)
        return streams.relation(
            session,
            centers,
            float(config["relation_tau"]),
            config["relation_scale"] == "sqrt_d",
            noise,
            bool(config["relation_hard"]),
        )

    def _queries(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what meets each table: ``u`` and each ``h~_m``, ``(B, d)`` (eq. 17-18)."""
        found = self.sessions(item_seq, lengths, tables)
        fused, queries = found["id"][0], {}
        for kind in self.kinds:
            session, centers = found[kind]
            fused = fused + self.alpha[kind] * session
            if centers is not None:
                share = self.relation(session, centers)
                session = session + (share.unsqueeze(1) @ centers).squeeze(1)
            queries[kind] = session
        return {"id": fused, **queries}

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return ``[u | alpha_m h~_m ...]``, which with the candidates gives eq. 22."""
        queries = self._queries(item_seq, item_seq_len, tables)
        parts = [self.alpha[kind] * queries[kind] for kind in self.scored]
        return torch.cat([queries["id"], *parts], dim=1)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the weighted parts named in ``loss_names``, scalars (eq. 23-24)."""
        config, target = self.settings, interaction[self.ITEM_ID]
        with self.full_precision():
            tables = self._tables(whole=False)
            queries = self._queries(*self.inputs(interaction), tables)
            # Column 0 is no item and must not take part in the softmax.
            scores = {"id": queries["id"] @ tables["target"][1:].T}
            wanted = self.kinds if config["modal_loss"] or config["loss_fused"] else ()
            for kind in wanted:
                scores[kind] = queries[kind] @ tables[kind][1:].T
            parts = {
                name: self.alpha.get(name, 1.0) * losses.softmax_ce(scores[name], target - 1).mean()
                for name in self.loss_names
                if name != "fused"
            }
            if config["loss_fused"]:
                fused = scores["id"]
                for kind in self.scored:
                    fused = fused + self.alpha[kind] * scores[kind]
                loss = losses.softmax_ce(fused, target - 1).mean()
                parts["fused"] = float(config["loss_fused"]) * loss
        return tuple(parts[name] for name in self.loss_names)

    def score_parts(self, interaction: Any) -> dict[str, Tensor]:
        """Return ``y_s`` and each ``y_m`` ``(B, n_items)`` (eq. 20-21); ``{}`` without modalities.

        Padding has ``-inf``. They are not weighted: eq. 22 adds ``y_s`` and ``alpha_m y_m``.
        """
        if not self.kinds:
            return {}
        with self.full_precision():
            tables = self.current_tables()
            queries = self._queries(*self.inputs(interaction), tables)
            named = {"id": tables["target"], **{kind: tables[kind] for kind in self.kinds}}
            parts = {name: queries[name] @ table.T for name, table in named.items()}
        for scores in parts.values():
            scores[:, 0] = -math.inf
        return parts

    def item_neighbours(self, item: int) -> dict[str, list[int]]:
        """Return the items most like one item by modality, itself left out, the nearest first."""
        lists: dict[str, Any] = {kind: graph.neighbours for kind, graph in self.graphs.items()}
        return {
            kind: [other for other in near[item].tolist() if other not in (0, item)]
            for kind, near in lists.items()
        }

    def diagnostics(self, train_data: Any, valid_data: Any) -> dict[str, float]:
        """Return numbers that tell whether graphs, centres and injection do anything.

        See `recbole_mm.model.mdsrec.diagnostics`.
        """
        return diagnose(self, valid_data)
