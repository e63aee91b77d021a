"""SRIM: session recommendation with ID and modality representations and joint inference.

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` the embedding size,
``L`` layers of propagation. A branch is ``"id"`` (a free table) or ``"content"`` (a table mapped
from features); ``Z`` is a branch's propagated table ``(N, d)``, ``p`` the session mean before
attention and ``q`` the session vector after it, both ``(B, d)``. Every switch, and what differs
from paper and released code, stands in docs/srim.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.graph import cooccurrence as graphs
from recbole_mm.graph.propagation import Adjacency, neighbour_mean, residual_propagate
from recbole_mm.model import layers, losses
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.srim import terms as srim_terms
from recbole_mm.model.srim.settings import SRIMSettings
from recbole_mm.model.srim.terms import Session

logger = logging.getLogger(__name__)

BRANCHES = {"both": ("id", "content"), "id": ("id",), "content": ("content",), "none": ()}
MAIN = {"ce": losses.softmax_ce, "bce_softmax": losses.bce_softmax}
# Weight of an item's own vector and of its neighbours' mean in one propagation step.
STEPS = {"residual": (1.0, 1.0), "residual_norm": (0.5, 0.5)}


class SRIM(MMSequentialRecommender):
    """Two branches over one co-occurrence graph, direct attention, four losses.

    ``score(b, j) = q_id . Z_id[j] + q_content . Z_content[j]`` (eq. 14), trained with
    ``main + w_align align + w_joint joint + w_co co`` (eq. 16, with a weight each).

    Parameters
    ----------
    config
        The keys of properties/model/SRIM.yaml, explained in properties/keys.yaml.
    dataset
        Gives ``train_sessions`` and, for the content branch, ``item_features``.

    Raises
    ------
    ConfigError
        If switches contradict each other.
    FeatureError
        If a modality's features are missing.
    """

    Settings = SRIMSettings
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings: Any = config
        self.size = int(config["embedding_size"])
        self.branches = BRANCHES[config["branches"]]
        self.n_layers = int(config["n_layers"])
        self.gcn = str(config["gcn"])
        self.leaky = config["graph_source"] != "train"
        self.weights = self._loss_weights()
        self.loss_names = ("main", *self.weights)
        sessions = self._graph_sessions(dataset)
        self.graph = graphs.ItemGraph(
            sessions, self.n_items, config["graph_count"], bool(config["graph_diag"])
        )
        self._build_tables(dataset)
        self._build_sessions()
        self._build_terms()
        self.apply(self._reset)
        self.to(self.device)

    def _loss_weights(self) -> dict[str, float]:
        """Return the weights of the auxiliary losses that are on."""
        config, both = self.settings, len(self.branches) == 2
        on = {
            "align": both and config["align"] != "none",
            "joint": both,
            "co": "id" in self.branches and config["co"] != "none",
        }
        return {k: float(config[f"w_{k}"]) for k in on if on[k] and config[f"w_{k}"] != 0}

    def _graph_sessions(self, dataset: Any) -> Any:
        """Return the sessions that make the graph; anything but training ones is announced."""
        source = self.settings["graph_source"]
        if source == "train":
            return dataset.train_sessions
        logger.warning(
            "graph_source=%s: the graph holds validation and test %s. The scores are NOT those of "
            "an honest run and are marked leaky.",
            source,
            "sessions with their targets" if source == "leaky_all" else "inputs",
        )
        return dataset.leaky_sessions(targets=source == "leaky_all")

    def _build_terms(self) -> None:
        """Make the auxiliary losses that are on."""
        if "align" in self.weights:
            self.align = srim_terms.Alignment(self.settings, self.size)
        if "joint" in self.weights:
            self.joint = srim_terms.JointInference(self.settings, self.graph)
        if "co" in self.weights:
            self.contrast = srim_terms.CooccurrenceContrast(self.settings, self.graph)

    def _build_tables(self, dataset: Any) -> None:
        """Make the branches' item tables and what propagates them."""
        config = self.settings
        self.dropout = nn.Dropout(config["emb_dropout"])
        self.propagated = set(BRANCHES[config["graph_branches"]]) if self.n_layers else set()
        self.sources = nn.ModuleDict()
        for branch in self.branches:
            if branch == "id" or config["content"] == "random":
                self.sources[branch] = layers.ItemTable(self.n_items, self.size)
            else:
                self.sources[branch] = self._feature_table(dataset)
        self.layer_maps = nn.ModuleDict()
        if self.gcn == "literal":
            for branch in self.branches:
                maps = [nn.Linear(self.size, self.size, bias=False) for _ in range(self.n_layers)]
                self.layer_maps[branch] = nn.ModuleList(maps)

    def _feature_table(self, dataset: Any) -> layers.FeatureTable:
        """Make the content table; frozen features are propagated here, once for all."""
        config = self.settings
        seen = torch.zeros(self.n_items, dtype=torch.bool)
        seen[torch.from_numpy(dataset.train_sessions.items)] = True
        parts, absent = [], []
        for modality in config["modalities"]:
            table, present = self.feature(modality)
            scaling, components = config["feature_norm"], int(config["feature_pca"])
            parts.append(layers.prepare_features(table, present, seen, scaling, components))
            absent.append(~present)
        features, missing = torch.cat(parts, dim=1), torch.stack(absent, dim=1).float()
        features[0], missing[0] = 0.0, 0.0
        tuned = config["content"] == "features_tuned"
        # With these settings (I+P)^L F never changes, and (I+P)^L (F M) = ((I+P)^L F) M.
        fixed = not tuned and not config["graph_loo"] and self.gcn in STEPS
        if "content" in self.propagated and fixed:
            self.propagated.remove("content")
            adjacency = self.graph.adjacency()
            features = residual_propagate(features, adjacency, self.n_layers, *STEPS[self.gcn])
            missing = residual_propagate(missing, adjacency, self.n_layers, *STEPS[self.gcn])
        return layers.FeatureTable(features, missing, self.size, tuned)

    def _build_sessions(self) -> None:
        """Make attention, the maps of the alignment, and the scale of the scores."""
        config = self.settings
        self.attention = nn.ModuleDict()
        for branch in self.branches if config["attention"] != "none" else ():
            self.attention[branch] = layers.DirectAttention(
                self.size,
                int(config["n_heads"]),
                config["attention"],
                bool(config["att_bias"]),
                config["att_dropout"],
            )
        self.session_maps = nn.ModuleDict()
        for branch in self.branches if config["session_map"] == "linear" else ():
            self.session_maps[branch] = nn.Linear(self.size, self.size)
        self.log_scale = nn.Parameter(
            torch.full((len(self.branches),), math.log(self._first_scale())),
            requires_grad=bool(config["logit_scale_learned"]),
        )

    def _first_scale(self) -> float:
        """Return the factor on the scores at the start."""
        if self.settings["logit_scale"] is not None:
            return float(self.settings["logit_scale"])
        if self.settings["score"] == "cosine":
            return 16.0
        # Halving each of L steps takes 2^L off each side of the product; give it back.
        return 4.0**self.n_layers if self.gcn == "residual_norm" else 1.0

    def _reset(self, module: nn.Module) -> None:
        """Draw a map from ``U(-1/sqrt(d), 1/sqrt(d))``; tables have drawn their own already."""
        if isinstance(module, nn.Linear):
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -(self.size**-0.5), self.size**-0.5)

    def start_epoch(self, epoch_idx: int) -> None:
        """Switch dropout off after epoch 0 if the released code's habit is wanted."""
        config = self.settings
        on = epoch_idx == 0 or not config["dropout_first_epoch_only"]
        self.dropout.p = config["emb_dropout"] if on else 0.0
        for module in self.attention.modules():
            if isinstance(module, nn.Dropout):
                module.p = config["att_dropout"] if on else 0.0

    def item_tables(self, adjacency: Adjacency | None = None) -> dict[str, Tensor]:
        """Return each branch's propagated table ``(N, d)`` and all ``"candidates"`` ``(N, D)``."""
        adjacency = adjacency or self.graph.adjacency()
        tables = {branch: self._propagate(branch, adjacency) for branch in self.branches}
        parts = list(tables.values())
        if self.settings["score"] == "cosine":
            parts = [layers.unit(part) for part in parts]
        return {**tables, "candidates": torch.cat(parts, dim=1)}

    def _propagate(self, branch: str, adjacency: Adjacency) -> Tensor:
        """Return ``(I+P)^L E`` or, literally after eq. 4, ``P(...P(E W_1)...W_L)``."""
        table: Tensor = self.dropout(self.sources[branch]())
        if branch not in self.propagated:
            return table
        if self.gcn in STEPS:
            return residual_propagate(table, adjacency, self.n_layers, *STEPS[self.gcn])
        for layer in self.layer_maps[branch].children():
            table = neighbour_mean(layer(table), adjacency)
        return table

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the branches' scaled session vectors side by side, ``(B, D)``."""
        return self._query(self._encode(item_seq, item_seq_len, tables))

    def _encode(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, Session]:
        return {b: self._session(b, item_seq, lengths, tables[b]) for b in self.branches}

    def _session(self, branch: str, item_seq: Tensor, lengths: Tensor, table: Tensor) -> Session:
        """Encode sessions in one branch (eq. 5, 7 and 8, or the last position instead of 8)."""
        mask = torch.arange(item_seq.shape[1], device=item_seq.device) < lengths.unsqueeze(1)
        items = layers.gather_rows(table, item_seq)
        before = layers.masked_mean(items, mask)
        if self.settings["session_pool"] == "last":
            # Only the last position is read, so only it needs to ask.
            last = layers.last_position(items, lengths)
            after = last
            if branch in self.attention:
                after = self.attention[branch](last.unsqueeze(1), items, mask).squeeze(1)
                after = after + last if self.settings["session_residual"] else after
            return Session(before, after)
        if branch in self.attention:
            return Session(
                before, layers.masked_mean(self.attention[branch](items, items, mask), mask)
            )
        return Session(before, before)

    def _query(self, sessions: Mapping[str, Session]) -> Tensor:
        """Return ``(B, D)``, which multiplied with the candidates gives the scores (eq. 14)."""
        mapped = [self._mapped(branch, session.after) for branch, session in sessions.items()]
        vectors = torch.stack(mapped, dim=1)
        if self.settings["score"] == "cosine":
            vectors = layers.unit(vectors)
        return (vectors * self.log_scale.exp().unsqueeze(1)).flatten(1)

    def _mapped(self, branch: str, session: Tensor) -> Tensor:
        """Map a session vector ``(B, d)`` out of the space of the items.

        Without the map, eq. 14 takes the inner product of items with a mixture of items, so an item
        is always close to itself and stands above what follows it; the map can learn otherwise.
        """
        return self.session_maps[branch](session) if branch in self.session_maps else session

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the weighted parts named in ``loss_names``, scalars (eq. 16)."""
        with self.full_precision():
            adjacency = None
            if self.settings["graph_loo"]:
                adjacency = self.graph.adjacency_without(interaction[self.USER_ID])
            tables = self.item_tables(adjacency)
            item_seq, lengths = self.inputs(interaction)
            sessions = self._encode(item_seq, lengths, tables)
            target = interaction[self.ITEM_ID]
            # Column 0 is no item and must not take part in the softmax.
            scores = self._query(sessions) @ tables["candidates"][1:].T
            parts = {"main": MAIN[self.settings["main_loss"]](scores, target - 1).mean()}
            reduce = torch.sum if self.settings["reduction"] == "sum" else torch.mean
            if "align" in self.weights:
                parts["align"] = reduce(self.align(sessions, target))
            if "joint" in self.weights:
                flag = self.joint.flag(item_seq, target, interaction[self.USER_ID])
                parts["joint"] = reduce(self.joint(sessions, target, flag, tables))
            if "co" in self.weights:
                anchors = self.contrast.anchors(item_seq, target)
                parts["co"] = reduce(self.contrast(anchors, tables["id"]))
        return tuple(self.weights.get(name, 1.0) * parts[name] for name in self.loss_names)
