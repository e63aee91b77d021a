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
from typing import Any

import torch
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.errors import ConfigError
from recbole_mm.model.alterrec import diagnostics as alterrec_report
from recbole_mm.model.alterrec import negatives
from recbole_mm.model.alterrec.branches import (
    Branch,
    initialise,
    make_items,
    make_session,
)
from recbole_mm.model.alterrec.schedule import Plan, Schedule
from recbole_mm.model.alterrec.settings import AlterRecSettings
from recbole_mm.model.base import MMSequentialRecommender

BRANCHES = ("id", "text")
OTHER = {"id": "text", "text": "id"}
# They go with parameter_init: uniform, which makes short vectors.
RELEASED_TEMPERATURES = {"id": 1.0, "text": 0.07}


class AlterRec(MMSequentialRecommender):
    """Two networks trained in turns, ``score = alpha a + (1 - alpha) b`` (eq. 12).

    Parameters
    ----------
    config
        The keys of properties/model/AlterRec.yaml, explained in properties/keys.yaml.
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
        If switches contradict each other.
    FeatureError
        If the text features are missing.
    """

    Settings = AlterRecSettings
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings: Any = config
        self.size = int(config["hidden_size"])
        names = _trained(config)
        self.schedule = Schedule(
            str(config["schedule_policy"]),
            int(config["warmup_epochs"]),
            int(config["alternation_epochs"]),
            names,
            str(config["negative_sampling"]),
        )
        self.plan: Plan = self.schedule.plan(0)
        self.sampler = negatives.NegativeSampler(config, self.n_items - 1)
        self.n_borrowed = self._n_borrowed()
        self.loss_names = ("main", "augmented") if self.n_borrowed else ("main",)
        alpha = float(config["fusion_weight"])
        self.fusion = {"id": alpha, "text": 1.0 - alpha} if len(names) == 2 else {names[0]: 1.0}
        self.branches = nn.ModuleDict({name: self._branch(name) for name in names})
        self._teacher: Tensor | None = None
        self.to(self.device)

    def _n_borrowed(self) -> int:
        """Return how many positives each row borrows in hard epochs."""
        config = self.settings
        if not config["positive_augmentation"]:
            return 0
        if self.schedule.negatives != "hard":
            raise ConfigError(
                "positive_augmentation=true has no effect with "
                f"negative_sampling={self.schedule.negatives}: positives are borrowed in epochs of "
                "hard negatives. Set --negative_sampling=hard or --positive_augmentation=false."
            )
        return min(int(config["num_augmented_positives"]), self.n_items - 1)

    def _branch(self, name: str) -> Branch:
        """Make one network and draw its weights."""
        config = self.settings
        items = make_items(
            config, self.n_items, self.feature("text")[0] if name == "text" else None
        )
        branch = Branch(items, make_session(config, name), self._temperature(name))
        initialise(branch, str(config["parameter_init"]), self.size)
        return branch

    def _temperature(self, name: str) -> float:
        """Return what a branch's scores are divided by."""
        given = self.settings[f"{name}_temperature"]
        if given is not None:
            return float(given)
        # Norms of scale 1 give vectors of length sqrt(d), and scores of unit spread after this.
        normal = self.settings["parameter_init"] == "normal"
        return math.sqrt(self.size) if normal else RELEASED_TEMPERATURES[name]

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

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights; drops the teacher's item table."""
        self._teacher = None
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast the model; drops the teacher's item table."""
        self._teacher = None
        return super()._apply(*args, **kwargs)

    # ---- Training ----

    def calculate_loss(self, interaction: Any) -> Tensor | tuple[Tensor, ...]:
        """Return the loss of the branch whose turn it is, a scalar or the parts `loss_names`."""
        with self.full_precision():
            item_seq, lengths = self.inputs(interaction)
            target = interaction[self.ITEM_ID].unsqueeze(1)
            branch = self._network(self.plan.branch)
            table = branch.table()
            scores = branch.query(table, item_seq, lengths) @ table.T
            hard = self.plan.negatives == "hard"
            teacher = self._teacher_scores(item_seq, lengths) if hard else None
            drawn = self._draw(scores, teacher)
            history = item_seq if self.settings["mask_history_negatives"] else None
            mass = negatives.negative_mass(scores, drawn, target, history)
            main = negatives.positive_loss(mass, scores, target).mean()
            if not self.n_borrowed:
                return main
            return main, self._augmented(mass, scores, teacher, target)

    def _network(self, name: str) -> Branch:
        branch: Any = self.branches[name]
        return branch

    @torch.no_grad()
    def _teacher_scores(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """Return the idle branch's scores ``(B, N)``.

        It is not trained within its partner's epochs, so its item table is computed once.
        """
        teacher = self._network(OTHER[self.plan.branch])
        if self._teacher is None:
            self._teacher = teacher.table()
        return teacher.query(self._teacher, item_seq, lengths) @ self._teacher.T

    def _draw(self, scores: Tensor, teacher: Tensor | None) -> negatives.Drawn:
        """Return the negatives of a batch."""
        if teacher is not None:
            return self.sampler.hard(teacher)
        full = self.plan.negatives == "full"
        return negatives.Drawn() if full else self.sampler.uniform(scores.detach())

    def _augmented(
        self, mass: Tensor, scores: Tensor, teacher: Tensor | None, target: Tensor
    ) -> Tensor:
        """Return ``beta`` times the loss of borrowed positives, 0 in epochs without a teacher."""
        if teacher is None:
            return scores.new_zeros(())
        config = self.settings
        borrowed = negatives.top_items(self._lender(scores, teacher), self.n_borrowed)
        terms = negatives.positive_loss(mass, scores, borrowed)
        counted = torch.ones_like(borrowed, dtype=torch.bool)
        if config["augmentation_exclude_target"]:
            counted = borrowed != target
        reduced = negatives.borrowed_loss(terms, counted, str(config["augmentation_reduction"]))
        return float(config["augmentation_weight"]) * reduced

    def _lender(self, scores: Tensor, teacher: Tensor) -> Tensor:
        """Return the scores whose best items are borrowed as positives."""
        source = self.settings["augmentation_source"]
        other = source == "other" or (source == "id" and self.plan.branch == "text")
        return teacher if other else scores.detach()

    # ---- Prediction ----

    def item_tables(self) -> dict[str, Tensor]:
        """Return each branch's item vectors ``(N, d)`` and all ``"candidates"`` side by side."""
        tables = {name: self._network(name).table() for name in self.branches}
        return {**tables, "candidates": torch.cat(list(tables.values()), dim=1)}

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the branches' weighted session vectors side by side, ``(B, D)``."""
        parts = [
            weight * self._network(name).query(tables[name], item_seq, item_seq_len)
            for name, weight in self.fusion.items()
        ]
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def score_parts(self, interaction: Any) -> dict[str, Tensor]:
        """Return the scores ``(B, n_items)`` of each trained branch alone; padding has ``-inf``."""
        tables, (item_seq, lengths) = self.current_tables(), self.inputs(interaction)
        parts = {}
        with self.full_precision():
            for name in self.branches:
                query = self._network(name).query(tables[name], item_seq, lengths)
                parts[name] = query @ tables[name].T
                parts[name][:, 0] = -math.inf
        return parts

    def score_variants(self, interaction: Any) -> Iterator[tuple[str, Tensor]]:
        """Yield ``("fusion_weight=0.1", scores)`` to 0.9, as one model trained once gives them."""
        parts = self.score_parts(interaction)
        if len(parts) < 2:
            return
        for tenths in range(1, 10):
            alpha = tenths / 10
            yield f"fusion_weight={alpha:g}", alpha * parts["id"] + (1 - alpha) * parts["text"]

    def diagnostics(self, train_data: Any, valid_data: Any) -> dict[str, float]:
        """Return how the branches stand to each other, from training and validation rows.

        See `recbole_mm.model.alterrec.diagnostics`.
        """
        return alterrec_report.diagnostics(self, train_data, valid_data)


def _trained(config: Any) -> tuple[str, ...]:
    """Return the branches that are trained, ID first."""
    return tuple(name for name in BRANCHES if name in config["train_branches"])
