"""AlterRec: an ID network and a text network that take turns and teach each other.

Each network has item vectors, a session encoder and a temperature. In its turn a network is trained
against negatives that the other one ranks high; the two meet only in the fused score. Symbols:
``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` the width, ``a`` and ``b`` the
scores of the ID and the text network. What differs from paper and released code stands in
docs/alterrec.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.model.alterrec import negatives
from recbole_mm.model.alterrec.branches import Branch, initialise, make_items, make_session
from recbole_mm.model.alterrec.diagnostics import diagnose
from recbole_mm.model.alterrec.schedule import Plan, Schedule
from recbole_mm.model.alterrec.settings import AlterRecSettings, BranchName
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.chunked import mean_in_chunks
from recbole_mm.model.losses import without_own_items

if TYPE_CHECKING:
    from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader

    from recbole_mm.data.session_dataset import SessionDataset

OTHER: dict[BranchName, BranchName] = {"id": "text", "text": "id"}


class AlterRec(MMSequentialRecommender):
    """Two networks trained in turns, ``score = alpha a + (1 - alpha) b`` (eq. 12).

    Parameters
    ----------
    config
        The keys of `AlterRecSettings`.
    dataset
        Gives ``item_features`` for the text branch.

    Attributes
    ----------
    branches
        The trained networks by name, ``"id"`` and ``"text"``.
    plan
        Branch and negatives of the present epoch; `start_epoch` sets it.

    Raises
    ------
    ConfigError
        If switches contradict each other, or the window of hard negatives is empty.
    FeatureError
        If the text features are missing.
    """

    Settings: ClassVar[type[AlterRecSettings]] = AlterRecSettings
    settings: AlterRecSettings
    input_type = InputType.POINTWISE
    loss_by_rows = True
    sampler_class: ClassVar[type[negatives.NegativeSampler]] = negatives.NegativeSampler

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        chosen, n_real = self.settings, self.n_items - 1
        self.schedule = Schedule(
            chosen.schedule_policy,
            chosen.warmup_epochs,
            chosen.alternation_epochs,
            chosen.branches,
            chosen.negative_sampling,
        )
        self.plan: Plan = self.schedule.plan(0)
        window = negatives.rank_window(
            chosen.hard_negative_start_rank, chosen.hard_negative_end_rank, n_real
        )
        self.sampler = self.sampler_class(window, chosen.hard_negative_ratio, n_real)
        self.n_borrowed = (
            min(chosen.num_augmented_positives, n_real) if chosen.positive_augmentation else 0
        )
        self.loss_names = ("main", "augmented") if self.n_borrowed else ("main",)
        self.branches = nn.ModuleDict({name: self._make_network(name) for name in chosen.branches})
        self._teacher: Tensor | None = None
        self.to(self.device)

    def _make_network(self, name: BranchName) -> Branch:
        """Make one network and draw its weights."""
        chosen, own = self.settings, self.settings.of_branch(name)
        size = chosen.hidden_size
        features = self.feature("text")[0] if name == "text" else None
        items = make_items(self.n_items, size, features, chosen.hidden_dropout_prob)
        session = make_session(own.session_encoder, chosen, size, self.max_seq_length)
        network = Branch(items, session, own.temperature)
        initialise(network, chosen.parameter_init, size)
        return network

    def network(self, name: str) -> Branch:
        """Return a trained network by name."""
        return cast(Branch, self.branches[name])

    # ---- Whose turn it is ----

    def start_epoch(self, epoch_idx: int) -> None:
        """Set branch and negatives of an epoch, counted from 0."""
        before, self.plan = self.plan, self.schedule.plan(epoch_idx)
        if self.plan != before:
            self._teacher = None
        if self.training:
            self.train()

    def train(self, mode: bool = True) -> AlterRec:
        """Switch between training and evaluation; the idle branch always evaluates."""
        super().train(mode)
        for name, branch in self.branches.items():
            if name != self.plan.branch:
                branch.eval()
        return self

    def drop_caches(self) -> None:
        """Forget the item tables, the teacher's too."""
        super().drop_caches()
        self._teacher = None

    # ---- Training ----

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss of the branch whose turn it is, a scalar or the parts `loss_names`."""
        with self.full_precision():
            item_seq, lengths = self.inputs(interaction)
            student = self.network(self.plan.branch)
            table = student.table()
            query = student.query(table, item_seq, lengths)
            rows = (query, item_seq, lengths, interaction[self.ITEM_ID])
            found = mean_in_chunks(self._row_losses, rows, (table,))
        return (found[0], found[1]) if self.n_borrowed else found[0]

    def _row_losses(
        self, query: Tensor, item_seq: Tensor, lengths: Tensor, right: Tensor, table: Tensor
    ) -> Tensor:
        """Return the losses of rows by part, ``(b, len(loss_names))``."""
        scores, target = query @ table.T, right.unsqueeze(1)
        if self.settings.train_own_items == "mask":
            scores = without_own_items(scores, item_seq, right, negatives.FLOOR)
        hard = self.plan.negatives == "hard"
        teacher = self._teacher_scores(item_seq, lengths) if hard else None
        drawn = self._draw(scores, teacher)
        mass = negatives.negative_mass(scores, drawn, target)
        main = negatives.positive_loss(mass, scores, target)
        if not self.n_borrowed:
            return main
        if teacher is None or drawn is None:
            return torch.cat([main, torch.zeros_like(main)], dim=1)
        borrowed = self._borrow(item_seq, lengths, teacher)
        return torch.cat([main, self._augmented(scores, drawn, target, borrowed)], dim=1)

    @torch.no_grad()
    def _teacher_scores(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """Return the idle branch's scores ``(B, N)``.

        It is not trained within its partner's epochs, so its item table is computed once.
        """
        teacher = self.network(OTHER[self.plan.branch])
        if self._teacher is None:
            self._teacher = teacher.table()
        return teacher.query(self._teacher, item_seq, lengths) @ self._teacher.T

    def _draw(self, scores: Tensor, teacher: Tensor | None) -> Tensor | None:
        """Return the negatives of a batch ``(B, M)``, or None for all items."""
        if teacher is not None:
            return self.sampler.hard(teacher)
        return None if self.plan.negatives == "full" else self.sampler.uniform(scores)

    def _borrow(self, item_seq: Tensor, lengths: Tensor, teacher: Tensor) -> Tensor:
        """Return the teacher's best items ``(B, p)``, which count as right answers, too."""
        return negatives.top_items(teacher, self.n_borrowed)

    def _augmented(self, scores: Tensor, drawn: Tensor, target: Tensor, borrowed: Tensor) -> Tensor:
        """Return ``beta`` times the losses of borrowed positives (eqs 10 and 11), ``(b, 1)``.

        A row's mean (released code: over all of a batch, which is the same), or its sum.
        """
        mass = negatives.own_masses(scores, drawn, target, borrowed)
        terms = negatives.positive_loss(mass, scores, borrowed)
        summed = self.settings.augmentation_reduction == "sum"
        whole = terms.sum(dim=1, keepdim=True) if summed else terms.mean(dim=1, keepdim=True)
        return self.settings.augmentation_weight * whole

    # ---- Prediction ----

    def item_tables(self) -> dict[str, Tensor]:
        """Return each branch's item vectors ``(N, d)`` and all ``"candidates"`` side by side."""
        tables = {name: self.network(name).table() for name in self.branches}
        return {**tables, "candidates": torch.cat(list(tables.values()), dim=1)}

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the branches' weighted session vectors side by side, ``(B, D)``."""
        alpha = self.settings.fusion_weight
        weights = {"id": alpha, "text": 1.0 - alpha} if len(self.branches) == 2 else {}
        parts = [
            weights.get(name, 1.0) * self.network(name).query(tables[name], item_seq, item_seq_len)
            for name in self.branches
        ]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def score_parts(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the scores ``(B, n_items)`` of each trained branch alone; padding has ``-inf``."""
        tables, (item_seq, lengths) = self.current_tables(), self.inputs(interaction)
        parts = {}
        with self.full_precision():
            for name in self.branches:
                query = self.network(name).query(tables[name], item_seq, lengths)
                parts[name] = query @ tables[name].T
                parts[name][:, 0] = -math.inf
        return parts

    def score_variants(self, interaction: Interaction) -> Iterator[tuple[str, Tensor]]:
        """Yield ``("fusion_weight=0.1", scores)`` to 0.9, as one model trained once gives them."""
        parts = self.score_parts(interaction)
        if len(parts) < 2:
            return
        for tenths in range(1, 10):
            alpha = tenths / 10
            yield f"fusion_weight={alpha:g}", alpha * parts["id"] + (1 - alpha) * parts["text"]

    def diagnostics(
        self, train_data: AbstractDataLoader, valid_data: AbstractDataLoader
    ) -> dict[str, float]:
        """Return how the branches stand to each other, from training and validation rows.

        See `recbole_mm.model.alterrec.diagnostics`.
        """
        return diagnose(self, train_data, valid_data)
