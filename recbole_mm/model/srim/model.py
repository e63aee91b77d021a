"""SRIM: session recommendation with ID and modality representations and joint inference.

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` the embedding size,
``L`` layers of propagation. A branch is ``"id"`` (a free table) or ``"content"`` (a table mapped
from features); ``Z`` is a branch's propagated table ``(N, d)``, ``p`` the session mean before
attention and ``q`` the session vector after it, both ``(B, d)``. Every switch, and what differs
from paper and released code, stands in docs/srim.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.data.fits import enlarged
from recbole_mm.graph.cooccurrence import ItemGraph, cooccurrence
from recbole_mm.graph.propagation import residual_propagate
from recbole_mm.model import layers
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.chunked import mean_in_chunks, mean_softmax_ce
from recbole_mm.model.losses import without_own_items
from recbole_mm.model.srim.attention import (
    DirectAttention,
    LastPosition,
    MeanOfPositions,
    Session,
)
from recbole_mm.model.srim.features import FeatureTable, fit_space, prepare_features
from recbole_mm.model.srim.gcn import LiteralGCN, ResidualGCN
from recbole_mm.model.srim.losses import bce_softmax
from recbole_mm.model.srim.settings import SRIMSettings
from recbole_mm.model.srim.terms import ALIGN, CooccurrenceContrast, JointInference, Step

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset
    from recbole_mm.data.sessions import Sessions

BRANCHES = {"both": ("id", "content"), "id": ("id",), "content": ("content",)}
GCN = {"residual": ResidualGCN, "literal": LiteralGCN}


class SRIM(MMSequentialRecommender):
    """Two branches over one co-occurrence graph, direct attention, four losses.

    ``score(b, j) = q_id . Z_id[j] + q_content . Z_content[j]`` (eq. 14), trained with
    ``main + w_align align + w_joint joint + w_co co`` (eq. 16, with a weight each).

    Parameters
    ----------
    config
        The keys of `SRIMSettings`.
    dataset
        Gives ``train_sessions`` and, for the content branch, ``item_features``.

    Raises
    ------
    ConfigError
        If settings contradict each other, or the features have too few principal components.
    FeatureError
        If a modality's features are missing.
    """

    Settings: ClassVar[type[SRIMSettings]] = SRIMSettings
    settings: SRIMSettings
    input_type = InputType.POINTWISE

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        settings = self.settings
        self.branches = BRANCHES[settings.branches]
        self.graph = self.build_graph(dataset)
        self.dropout = nn.Dropout(settings.emb_dropout)
        # Features that never change are propagated once, here: (I+P)^L (F M) = ((I+P)^L F) M.
        self._beforehand = settings.content == "features_frozen" and settings.gcn == "residual"
        self.tables = nn.ModuleDict({b: self._table(b, dataset) for b in self.branches})
        self.gcn = nn.ModuleDict(
            {
                b: GCN[settings.gcn](settings.n_layers, settings.embedding_size)
                for b in self.branches
                if b == "id" or not self._beforehand
            }
        )
        self.encoders = nn.ModuleDict({b: self._encoder() for b in self.branches})
        self.session_maps = nn.ModuleDict({b: self._session_map() for b in self.branches})
        self.match = nn.ModuleDict(
            {b: layers.make_match(settings.score, settings.temperature) for b in self.branches}
        )
        self.weights = self._loss_weights()
        self.loss_names = ("main", *self.weights)
        self.terms = nn.ModuleDict({name: self.build_term(name) for name in self.weights})
        self.apply(self._reset)
        self.to(self.device)

    # ---- Construction ----

    def build_graph(self, dataset: SessionDataset) -> ItemGraph:
        """Count the training sessions that hold both of two items (eq. 6)."""
        return self._counted(dataset, dataset.train_sessions, diagonal=self.settings.graph_diag)

    def _counted(
        self,
        dataset: SessionDataset,
        sessions: Sessions,
        count: str = "set",
        diagonal: bool = False,
    ) -> ItemGraph:
        """Return the graph of some sessions; a pack gives the counts back."""
        counts = dataset.fitted(
            "cooccurrence",
            lambda: cooccurrence(sessions, self.n_items, count, diagonal),
            lambda kept: enlarged(kept, self.n_items),
        )
        return ItemGraph(sessions, self.n_items, count, diagonal, counts)

    def _table(self, branch: str, dataset: SessionDataset) -> nn.Module:
        """Return a branch's item table: free, or made from features."""
        settings = self.settings
        if branch == "id" or settings.content == "random":
            return layers.ItemTable(self.n_items, settings.embedding_size)
        features, absent = self._features(dataset)
        if self._beforehand:
            adjacency = self.graph.adjacency()
            features = residual_propagate(features, adjacency, settings.n_layers)
            absent = residual_propagate(absent, adjacency, settings.n_layers)
        tuned = settings.content == "features_tuned"
        return FeatureTable(features, absent, settings.embedding_size, tuned)

    def _features(self, dataset: SessionDataset) -> tuple[Tensor, Tensor]:
        """Return all modalities' features ``(N, d_t)`` and which are absent ``(N, k)``."""
        settings, seen = self.settings, torch.from_numpy(dataset.train_counts > 0)
        parts, gaps = [], []
        carried = () if self.features is None else tuple(self.features.tables)
        for modality in settings.kinds(carried):
            table, present = self.feature(modality)
            how = settings.feature_norm, settings.feature_pca
            fit = partial(fit_space, table, present, seen, *how)
            space = dataset.fitted(f"space of {modality}", fit)
            parts.append(prepare_features(table, present, seen, *how, space))
            gaps.append(~present)
        features, absent = torch.cat(parts, dim=1), torch.stack(gaps, dim=1).float()
        features[0], absent[0] = 0.0, 0.0
        return features, absent

    def _encoder(self) -> nn.Module:
        """Return what makes session vectors in one branch."""
        settings, attention = self.settings, None
        if settings.attention != "none":
            attention = DirectAttention(
                settings.embedding_size,
                settings.n_heads,
                settings.attention,
                settings.att_bias,
                settings.att_dropout,
                self.max_seq_length if settings.position_weights else 0,
            )
        if settings.session_pool == "mean":
            return MeanOfPositions(attention)
        return LastPosition(attention, settings.session_residual)

    def _session_map(self) -> nn.Module:
        """Return the map of a session vector ``(B, d)`` out of the space of the items.

        Without it, eq. 14 takes the inner product of items with a mixture of items, so an item is
        always close to itself and stands above what follows it; a map can learn otherwise.
        """
        size = self.settings.embedding_size
        if self.settings.session_map == "residual":
            return layers.ResidualMap(size)
        return nn.Linear(size, size) if self.settings.session_map == "linear" else nn.Identity()

    def _loss_weights(self) -> dict[str, float]:
        """Return the weights of the auxiliary losses that are on."""
        settings, both = self.settings, len(self.branches) == 2
        weights = {
            "align": settings.w_align if both else 0.0,
            "joint": settings.w_joint if both else 0.0,
            "co": settings.w_co if "id" in self.branches else 0.0,
        }
        return {name: weight for name, weight in weights.items() if weight}

    def build_term(self, name: str) -> nn.Module:
        """Return the auxiliary loss of that name."""
        if name == "align":
            return ALIGN[self.settings.align](self.settings)
        if name == "joint":
            return JointInference(self.graph)
        return CooccurrenceContrast(self.settings, self.graph)

    def _reset(self, module: nn.Module) -> None:
        """Draw a map from ``U(-1/sqrt(d), 1/sqrt(d))``; tables have drawn their own already."""
        if isinstance(module, layers.ResidualMap):
            module.reset()
        elif isinstance(module, nn.Linear):
            bound = self.settings.embedding_size**-0.5
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound)

    # ---- Scores ----

    def item_tables(self) -> dict[str, Tensor]:
        """Return each branch's propagated table ``(N, d)`` and all ``"candidates"`` ``(N, D)``."""
        adjacency = self.graph.adjacency()
        tables = {}
        for branch, source in self.tables.items():
            table = self.dropout(source())
            tables[branch] = self.gcn[branch](table, adjacency) if branch in self.gcn else table
        met = [self._match_of(branch).items(tables[branch]) for branch in self.branches]
        return {**tables, "candidates": torch.cat(met, dim=1)}

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the branches' session vectors side by side, ``(B, D)``."""
        queries = self._queries(self._encoded(item_seq, item_seq_len, tables))
        return torch.cat(list(queries.values()), dim=1)

    def _encoded(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, Session]:
        """Return the session vectors of each branch (eq. 5, 7 and 8)."""
        return {
            branch: encoder(layers.gather_rows(tables[branch], item_seq), lengths)
            for branch, encoder in self.encoders.items()
        }

    def _match_of(self, branch: str) -> layers.Match:
        """Return how sessions and items of a branch meet."""
        return cast(layers.Match, self.match[branch])

    def _queries(self, encoded: Mapping[str, Session]) -> dict[str, Tensor]:
        """Return each branch's ``(B, d)``, which times its candidates are its scores (eq. 14)."""
        return {
            branch: self._match_of(branch).query(maps(encoded[branch].after))
            for branch, maps in self.session_maps.items()
        }

    def _apart(self, queries: Mapping[str, Tensor], candidates: Tensor) -> dict[str, Tensor]:
        """Return the scores ``(B, N)`` of each branch alone."""
        met = self._met(candidates)
        return {branch: query @ met[branch].T for branch, query in queries.items()}

    def _met(self, candidates: Tensor) -> dict[str, Tensor]:
        """Return each branch's part ``(N, d)`` of the candidates."""
        parts = candidates.split(self.settings.embedding_size, dim=1)  # type: ignore[no-untyped-call]
        return dict(zip(self.branches, parts, strict=True))

    @torch.no_grad()
    def score_parts(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the scores ``(B, N)`` of each branch; padding has ``-inf``. One has no parts."""
        if len(self.branches) < 2:
            return {}
        with self.full_precision():
            tables = self.current_tables()
            encoded = self._encoded(*self.inputs(interaction), tables)
            parts = self._apart(self._queries(encoded), tables["candidates"])
        for scores in parts.values():
            scores[:, 0] = -math.inf
        return parts

    # ---- Training ----

    def calculate_loss(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """Return the weighted parts named in ``loss_names``, scalars (eq. 16)."""
        item_seq, lengths = self.inputs(interaction)
        target = interaction[self.ITEM_ID]
        with self.full_precision():
            tables = self.item_tables()
            encoded = self._encoded(item_seq, lengths, tables)
            queries = self._queries(encoded)
        # The scores of all items are most of a step: theirs alone are products of fewer bits.
        parts = [self._main(queries, tables["candidates"], item_seq, target)]
        with self.full_precision():
            step = Step(item_seq, target, interaction[self.USER_ID], encoded, tables)
            for name, term in self.terms.items():
                parts.append(self.weights[name] * self.reduced(term(step)))
        return tuple(parts)

    def _main(
        self, queries: Mapping[str, Tensor], candidates: Tensor, item_seq: Tensor, target: Tensor
    ) -> Tensor:
        """Return the main loss (eq. 15), or the sum of one per branch, a scalar."""
        struck = item_seq if self.settings.train_own_items == "mask" else None
        whole = torch.cat(list(queries.values()), dim=1)
        if self.settings.main_loss == "bce_softmax":
            own = target.new_zeros(len(target), 1) if struck is None else struck
            return mean_in_chunks(_both_sides, (whole, target, own), (candidates,))
        if self.settings.main_loss == "ce":
            return mean_softmax_ce(whole, candidates, target, struck)
        met = self._met(candidates)
        losses = [mean_softmax_ce(query, met[b], target, struck) for b, query in queries.items()]
        return torch.stack(losses).sum()

    def reduced(self, values: Tensor) -> Tensor:
        """Return the values of an auxiliary loss, one per row or item, as one number."""
        return values.mean()


def _both_sides(query: Tensor, target: Tensor, struck: Tensor, candidates: Tensor) -> Tensor:
    """Return the two-sided losses of rows ``(b,)`` without classes that are struck out."""
    scores = without_own_items(query @ candidates.T, struck, target)
    # Column 0 is no item and must not take part in the softmax.
    return bce_softmax(scores[:, 1:], target - 1)
