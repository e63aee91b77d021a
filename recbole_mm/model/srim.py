"""SRIM: session recommendation with ID and modality representations and joint inference.

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` ``embedding_size``, ``L``
``n_layers``. A branch is ``"id"`` (a free table) or ``"content"`` (a table mapped from features);
``Z`` is a branch's propagated table ``(N, d)``, ``p`` the session mean before attention and ``q``
the session vector after it, both ``(B, d)``. What differs from paper and released code, and every
switch, stands in docs/srim.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.data import graphs
from recbole_mm.model import layers, losses
from recbole_mm.model.base import MMSequentialRecommender

logger = logging.getLogger(__name__)

BRANCHES = {"both": ("id", "content"), "id": ("id",), "content": ("content",), "none": ()}
MAIN = {"ce": losses.softmax_ce, "bce_softmax": losses.bce_softmax}
CO = {"infonce": losses.co_infonce, "expratio": losses.co_expratio, "ratio": losses.co_ratio}
# The learned maps of each alignment, by their number in the paper or the released code.
ALIGN_MAPS = {"paper": "123456", "code": "1234578", "code_slots": "1234578", "infonce": "34"}
# Weight of an item's own vector and of its neighbours' mean in one propagation step.
STEPS = {"residual": (1.0, 1.0), "residual_norm": (0.5, 0.5)}


class Session(NamedTuple):
    """Session vectors of one branch, ``(B, d)`` each: before and after attention."""

    before: Tensor
    after: Tensor


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

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = config
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
        self._build_lists()
        self._build_tables(dataset)
        self._build_sessions()
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

    def _build_lists(self) -> None:
        """Make look-ups, neighbour lists and fixed strangers for the auxiliary losses."""
        config, counts = self.settings, self.graph.counts
        if not {"joint", "co"} & self.weights.keys():
            return
        self.pairs = self.graph.pairs()
        self.own = self.graph.own() if config["flag_rule"] == "loo" else None
        length = int(config["n_neighbors"])
        ids, weight = map(torch.from_numpy, graphs.top_neighbours(counts, length))
        if config["co_pos_weight"] == "uniform":
            weight = (weight > 0).float()
        weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(1.0)
        self.register_buffer("neighbours", ids, persistent=False)
        self.register_buffer("neighbour_weight", weight, persistent=False)
        if config["co_neg"] == "fixed":
            strangers = torch.from_numpy(graphs.first_strangers(counts, length))
            self.register_buffer("strangers", strangers, persistent=False)

    def _build_tables(self, dataset: Any) -> None:
        """Make the branches' item tables and what propagates them."""
        config = self.settings
        self.dropout = nn.Dropout(config["emb_dropout"])
        self.propagated = set(BRANCHES[config["graph_branches"]]) if self.n_layers else set()
        self.tables = nn.ModuleDict()
        for branch in self.branches:
            if branch == "id" or config["content"] == "random":
                self.tables[branch] = layers.ItemTable(self.n_items, self.size)
            else:
                self.tables[branch] = self._feature_table(dataset)
        self.layer_maps = nn.ModuleDict()
        if self.gcn == "literal":
            for branch in self.branches:
                maps = [self._linear(bias=False) for _ in range(self.n_layers)]
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
            features = graphs.residual_propagate(
                features, adjacency, self.n_layers, *STEPS[self.gcn]
            )
            missing = graphs.residual_propagate(missing, adjacency, self.n_layers, *STEPS[self.gcn])
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
        self.attention.apply(self._reset)
        numbers = ALIGN_MAPS[config["align"]] if "align" in self.weights else ""
        bias = config["align"] in ("code", "code_slots")
        self.align_maps = nn.ModuleDict({k: self._linear(bias) for k in numbers})
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

    def _linear(self, bias: bool) -> nn.Linear:
        layer = nn.Linear(self.size, self.size, bias=bias)
        self._reset(layer)
        return layer

    def _reset(self, module: nn.Module) -> None:
        """Draw a map from ``U(-1/sqrt(d), 1/sqrt(d))``."""
        if isinstance(module, nn.Linear):
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -(self.size**-0.5), self.size**-0.5)

    def start_epoch(self, epoch_idx: int) -> None:
        """Switch dropout off after the first epoch (0) where the released code's habit is wanted."""
        config = self.settings
        on = epoch_idx == 0 or not config["dropout_first_epoch_only"]
        self.dropout.p = config["emb_dropout"] if on else 0.0
        for module in self.attention.values():
            module.dropout.p = config["att_dropout"] if on else 0.0

    def item_tables(self, adjacency: graphs.Adjacency | None = None) -> dict[str, Tensor]:
        """Return each branch's propagated table ``(N, d)`` and all ``"candidates"`` ``(N, D)``."""
        adjacency = adjacency or self.graph.adjacency()
        tables = {branch: self._propagate(branch, adjacency) for branch in self.branches}
        parts = list(tables.values())
        if self.settings["score"] == "cosine":
            parts = [losses.unit(part) for part in parts]
        return {**tables, "candidates": torch.cat(parts, dim=1)}

    def _propagate(self, branch: str, adjacency: graphs.Adjacency) -> Tensor:
        """Return ``(I+P)^L E`` or, literally after eq. 4, ``P(...P(E W_1)...W_L)``."""
        table: Tensor = self.dropout(self.tables[branch]())
        if branch not in self.propagated:
            return table
        if self.gcn in STEPS:
            return graphs.residual_propagate(table, adjacency, self.n_layers, *STEPS[self.gcn])
        for layer in self.layer_maps[branch]:
            table = graphs.neighbour_mean(layer(table), adjacency)
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
            if branch in self.attention:
                last = self.attention[branch](last.unsqueeze(1), items, mask).squeeze(1)
            return Session(before, last)
        if branch in self.attention:
            return Session(
                before, layers.masked_mean(self.attention[branch](items, items, mask), mask)
            )
        return Session(before, before)

    def _query(self, sessions: Mapping[str, Session]) -> Tensor:
        """Return ``(B, D)``, which multiplied with the candidates gives the scores (eq. 14)."""
        vectors = torch.stack([session.after for session in sessions.values()], dim=1)
        if self.settings["score"] == "cosine":
            vectors = losses.unit(vectors)
        return (vectors * self.log_scale.exp().unsqueeze(1)).flatten(1)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the weighted parts named in ``loss_names``, scalars (eq. 16)."""
        with self.full_precision():
            adjacency = None
            if self.settings["graph_loo"]:
                adjacency = self.graph.adjacency_without(interaction[self.USER_ID])
            tables = self.item_tables(adjacency)
            item_seq, lengths = self.sessions(interaction)
            sessions = self._encode(item_seq, lengths, tables)
            target = interaction[self.ITEM_ID]
            # Column 0 is no item and must not take part in the softmax.
            scores = self._query(sessions) @ tables["candidates"][1:].T
            parts = {"main": MAIN[self.settings["main_loss"]](scores, target - 1).mean()}
            reduce = torch.sum if self.settings["reduction"] == "sum" else torch.mean
            if "align" in self.weights:
                parts["align"] = reduce(self._align(sessions, target))
            if "joint" in self.weights:
                flag = self._flag(item_seq, target, interaction[self.USER_ID])
                parts["joint"] = reduce(self._joint(sessions, target, flag, tables))
            if "co" in self.weights:
                parts["co"] = reduce(self._co(self._anchors(item_seq, target), tables["id"]))
        return tuple(self.weights.get(name, 1.0) * parts[name] for name in self.loss_names)

    def _align(self, sessions: Mapping[str, Session], target: Tensor) -> Tensor:
        """Return the alignment of the branches ``(B,)`` (eq. 9-11 and variants)."""
        form, maps = self.settings["align"], self.align_maps
        (p_id, q_id), (p_content, q_content) = sessions["id"], sessions["content"]

        def like(left: str, x: Tensor, right: str, y: Tensor) -> Tensor:
            return losses.cosine(maps[left](x), maps[right](y))

        if form == "infonce":
            temperature = float(self.settings["align_temperature"])
            return losses.align_infonce(maps["3"](q_id), maps["4"](q_content), target, temperature)
        if form == "paper":
            inside = like("1", p_id, "2", q_id), like("5", p_content, "6", q_content)
            return losses.align_paper(*inside, like("3", p_id, "4", p_content))
        # The released code defines the slots in the first order and fills them in the second.
        slots = (q_id, p_id, q_content, p_content)
        s1, s2, s3, s4 = slots if form == "code" else (q_id, q_content, p_id, p_content)
        return losses.align_code(
            like("1", s1, "2", s2),
            like("3", s1, "4", s3),
            like("4", s3, "5", s4),
            like("7", s3, "8", s1),
        )

    def _flag(self, item_seq: Tensor, target: Tensor, session: Tensor) -> Tensor:
        """Tell for each row whether the ID branch leads, bool ``(B,)``."""
        if self.settings["flag_rule"] == "topl":
            return graphs.neighbour_flags(item_seq, target, self.neighbours)
        return graphs.cooccurrence_flags(item_seq, target, self.pairs, session, self.own)

    def _joint(
        self,
        sessions: Mapping[str, Session],
        target: Tensor,
        flag: Tensor,
        tables: Mapping[str, Tensor],
    ) -> Tensor:
        """Return the joint inference loss ``(B,)`` (eq. 12-13)."""
        config = self.settings
        label = target + int(config["joint_label_shift"])
        which = 0 if config["joint_session"] == "pre" else 1
        likes = [
            losses.cosine(sessions[branch][which], layers.gather_rows(tables[branch], label))
            for branch in ("id", "content")
        ]
        return losses.joint(likes[0], likes[1], flag, float(config["joint_sign"]))

    def _anchors(self, item_seq: Tensor, target: Tensor) -> Tensor:
        """Return the items ``(M,)`` that the co-occurrence loss looks at in this step."""
        config, device = self.settings, target.device
        if config["co_anchors"] == "all":
            anchors = torch.arange(1, self.n_items, device=device)
        else:
            anchors = torch.cat([item_seq.flatten(), target]).unique()
            if config["co_anchors"] == "sample":
                size = (int(config["co_samples"]),)
                more = torch.randint(1, self.n_items, size, device=device)
                anchors = torch.cat([anchors, more])
        keep = anchors != 0
        if config["co_isolated"] == "skip":
            keep &= self.neighbours[anchors, 0] != 0
        return anchors[keep]

    def _co(self, anchors: Tensor, table: Tensor) -> Tensor:
        """Return the co-occurrence loss of the anchors ``(M,)`` (eq. 17 and variants)."""
        config = self.settings
        if not len(anchors):
            return table.new_zeros(1)
        if config["co_neg"] == "fixed":
            strangers = self.strangers[anchors]
            valid = strangers != 0
        else:
            length = int(config["n_neighbors"])
            strangers, valid = graphs.sample_strangers(anchors, length, self.pairs)
        partners = layers.gather_rows(table, self.neighbours[anchors])
        mean = torch.einsum("ml,mld->md", self.neighbour_weight[anchors], partners)
        anchor = losses.unit(layers.gather_rows(table, anchors))
        far = losses.unit(layers.gather_rows(table, strangers))
        near = (anchor * losses.unit(mean)).sum(dim=1)
        loss = CO[config["co"]](near, torch.einsum("md,mld->ml", anchor, far), valid)
        return loss / math.log(10.0) if config["co_log10"] else loss
