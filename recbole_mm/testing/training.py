"""Checks of a model's training: mode, gradients, seeds, checkpoints, memory, honesty."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatch

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recbole_mm.evaluation.hooks import HasLateFit, HasStartEpoch
from recbole_mm.files import BEST, LAST
from recbole_mm.model.parts.late_model import LateSum
from recbole_mm.testing.case import (
    OTHER_TEST,
    WIDE,
    Case,
    Failed,
    backward,
    changed,
    scores,
    step,
    total,
)
from recbole_mm.trainer.base import trainer_class

_NO_GRADIENTS = "the model is not trained by gradients"
_GRADIENT_BATCHES = 5
_LEARNT = 50


def check_train_mode(case: Case) -> str | None:
    """Demand training mode in every batch of every epoch, and evaluation mode in prediction.

    Two epochs with an evaluation in between: a model that stays in evaluation mode trains without
    dropout from the second on.
    """
    fit = case.first
    if fit.error is None and (not fit.training or not fit.evaluating):
        raise Failed("calculate_loss or full_sort_predict was never called", "calls of both")
    wrong = [number for number, mode in enumerate(fit.training) if not mode]
    if wrong:
        raise Failed(
            f"model.training is False in training batch {wrong[0] // 2 + 1}",
            "True in every batch of both epochs",
        )
    if any(fit.evaluating):
        raise Failed("model.training is True in full_sort_predict", "False")
    return None


def check_epochs(case: Case) -> str | None:
    """Run two epochs; the loss of every batch and all validation metrics must be finite."""
    fit = case.trained
    wrong = [loss for loss in fit.losses if not all(map(math.isfinite, loss))]
    if wrong or not fit.losses:
        raise Failed(f"losses {wrong[:1]} in {len(fit.losses)} batches", "finite losses")
    for epoch in fit.trainer.history:
        if not all(map(math.isfinite, epoch["valid"].values())):
            raise Failed(f"validation metrics {epoch['valid']}", "finite metrics")
    return None


def check_same_seed(case: Case) -> str | None:
    """Compare losses and scores of runs with one seed (equal bits) and of two (different)."""
    fit, again = case.trained, case.fit()
    if fit.losses != again.losses:
        raise Failed("two runs with one seed have different losses", "equal bits")
    batch = case.batch()
    if not torch.equal(scores(fit.model.eval(), batch), scores(again.model.eval(), batch)):
        raise Failed("two runs with one seed give different scores", "equal bits")
    if not case.learns:
        return "the same seed gives the same; another seed changes nothing, nothing is drawn"
    other = case.fit(seed=fit.prepared.config["seed"] + 1, epochs=1)
    if other.losses == fit.losses[: len(other.losses)]:
        raise Failed("a run with another seed has the same losses", "different losses")
    return None


def check_save_load(case: Case) -> str | None:
    """Load the checkpoint into a new model; weights and scores must have equal bits."""
    fit, other = case.trained, case.prepare(seed=77)
    trainer = trainer_class(other.spec, type(other.model))(other.config, other.model)
    # What is fitted after training is kept with the best weights, and the model has these then.
    newest = BEST if isinstance(fit.model, HasLateFit) else LAST
    trainer.load_model(fit.trainer.run_folder / newest, other.train)
    loaded = other.model.eval()
    weights = fit.model.state_dict()
    different = [k for k, v in loaded.state_dict().items() if not torch.equal(v, weights[k])]
    if different:
        raise Failed(f"loaded weights differ: {', '.join(different[:5])}", "equal bits")
    batch = case.batch()
    if not torch.equal(scores(loaded, batch), scores(fit.model.eval(), batch)):
        raise Failed(
            "the loaded model gives other scores",
            "equal bits; state outside of parameters and buffers belongs into other_parameter_name",
        )
    return None


def check_gradients(case: Case) -> str | None:
    """Demand a gradient for every trainable parameter within five batches, or a declaration.

    Each batch is taken for one of an epoch of its own: a model may train its parts in turns.
    """
    if not case.learns:
        return _NO_GRADIENTS
    model = case.twin().train()
    for epoch, batch in enumerate(case.train_batches()[:_GRADIENT_BATCHES]):
        if isinstance(model, HasStartEpoch):
            model.start_epoch(epoch)
        backward(total(model.calculate_loss(batch)))
    frozen = set(getattr(model, "frozen_parameters", ()))
    dead = [
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and (weight.grad is None or not bool(weight.grad.any()))
    ]
    stale = [p for p in case.known_unused if not any(fnmatch(name, p) for name in dead)]
    if stale:
        raise Failed(f"known_unused names {stale}, which get gradients or do not exist", "no such")
    dead = [n for n in dead if n not in frozen and not _matches(n, case.known_unused)]
    if dead:
        raise Failed(
            f"no gradient reaches {', '.join(dead)}",
            "a gradient, requires_grad=False, or its name in model.frozen_parameters",
        )
    return None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def check_overfits(case: Case) -> str | None:
    """Train on 50 sessions until they are known by heart: their targets come first."""
    if not case.learns:
        return _NO_GRADIENTS
    goal, model, rows = case.overfit, case.twin(), _made_up_rows(case)
    if isinstance(model, LateSum):
        model.late = {}  # What was fitted on other rows is not learnt here.
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, goal.learning_rate)
    hit = 0.0
    for epoch in range(goal.epochs):
        model.train()
        if isinstance(model, HasStartEpoch):
            model.start_epoch(epoch)
        for batch in case.train_batches(rows):
            step(model, batch, optimizer)
        if epoch % 10 == 9:
            hit = _hit_at_1(model.eval(), case, rows)
            if hit >= goal.hit:
                return None
    raise Failed(
        f"Hit@1 = {hit:.2f} on {len(rows)} learnt sessions after {goal.epochs} epochs",
        f"at least {goal.hit:g}; a larger learning rate or more epochs are given by overfit=",
    )


def _made_up_rows(case: Case) -> Interaction:
    """Return 50 rows: three items of one half of the catalogue, then one of the other half.

    Where an item can be both history and target, models that score by inner products inside one
    table cannot learn every set of sessions: ``a -> b`` and ``b -> a`` contradict each other.
    """
    prepared, fields = case.trained.prepared, case.fields
    rows = prepared.train.dataset.inter_feat
    _, first = np.unique(rows[fields.session].numpy(), return_index=True)
    rows, random = rows[first[:_LEARNT]], np.random.default_rng(5)
    half = prepared.dataset.item_num // 2
    history = torch.zeros_like(rows[fields.history])
    for row in history:
        row[:3] = torch.from_numpy(1 + random.permutation(half - 1)[:3])
    target = torch.from_numpy(random.integers(half, prepared.dataset.item_num, len(rows)))
    columns = {fields.history: history, fields.target: target}
    return changed(rows, **columns, **{fields.length: torch.full_like(rows[fields.length], 3)})


def _hit_at_1(model: AbstractRecommender, case: Case, rows: Interaction) -> float:
    """Return the share of rows whose target has the highest score."""
    batch = case.batch(rows)
    table = scores(model, batch)
    table[:, 0] = -torch.inf
    return float((table.argmax(dim=1) == batch[case.fields.target]).float().mean())


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest dense storage that any operation returns inside the block.

    Attributes
    ----------
    numel
        Its number of elements.
    what
        The operation and the shape it returned.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel, self.what = 0, "nothing"

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                numel = leaf.untyped_storage().nbytes() // leaf.element_size()
                if numel > self.numel:
                    self.numel, self.what = numel, f"{func} {tuple(leaf.shape)}"
        return out


def check_no_dense_square(case: Case) -> str | None:
    """Watch building, one training step and one prediction for tensors of n_items^2 elements.

    On about 900 items and batches of 64 rows; choose sizes that stay below on purpose, such as a
    small hidden size, so that what is found is a square of items.
    """
    prepared = case.prepare(WIDE)
    n_items = prepared.dataset.item_num
    with LargestTensor() as largest:
        model: AbstractRecommender = type(prepared.model)(prepared.config, prepared.train.dataset)
        batch = next(iter(prepared.train))
        loss = total(model.train().calculate_loss(batch))
        if case.learns:
            backward(loss)
        scores(model.eval(), next(iter(prepared.valid))[0])
    if largest.numel >= n_items**2:
        raise Failed(
            f"{largest.what} holds {largest.numel} elements",
            f"less than {n_items}^2 = {n_items**2} for {n_items} items",
        )
    return None


def check_no_test_information(case: Case) -> str | None:
    """Change the sessions of validation and test; start weights, buffers and losses must not."""
    fit = case.trained
    if getattr(fit.model, "leaky", False):
        return "the model declares itself leaky, and its results are marked so"
    before, after = _tensors(case.prepare().model), _tensors(case.prepare(OTHER_TEST).model)
    different = [k for k in before if k not in after or not torch.equal(before[k], after[k])]
    if different:
        raise Failed(
            f"{', '.join(different[:5])} changed with the sessions of validation and test",
            "built from dataset.train_sessions only",
        )
    other = case.fit(OTHER_TEST, epochs=1)
    # The first epoch only: a transform may draw random numbers for validation rows, too.
    if other.losses != fit.losses[: len(other.losses)]:
        raise Failed("training losses changed with validation and test", "equal bits")
    return None


def _tensors(model: AbstractRecommender) -> dict[str, Tensor]:
    """Return all parameters and buffers, those outside of the state dict too."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().to_dense() for name, value in named}
