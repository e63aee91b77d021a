"""Training in several processes: each computes its rows of every batch, gradients are summed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from recbole.trainer import Trainer
from recbole.utils import ModelType
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from recbole_mm import collectives, processes
from recbole_mm.errors import ConfigError
from recbole_mm.trainer import checkpoint

if TYPE_CHECKING:
    from recbole.data.dataloader import TrainDataLoader
    from recbole.data.interaction import Interaction

    Loss = Tensor | tuple[Tensor, ...]
    LossOf = Callable[[Interaction], Loss]

logger = logging.getLogger(__name__)

# Rows of the first batch that show whether a loss can be split, and what rounding may change. Of
# several numbers of rows, because one may divide evenly what another does not.
_CHECKED, _ROUNDING = (64, 37, 19, 5), 1e-4


class _LossModule(nn.Module):
    """A model's loss as the forward pass of a module, as torch wants it."""

    def __init__(self, model: nn.Module, loss: LossOf) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, rows: Interaction) -> Loss:
        """Return the loss of some rows."""
        return self.loss(rows)


class SplitMixin(Trainer):
    """The part of a trainer that shares batches out among processes.

    Every process draws the same batches, with the same random numbers, and takes rows ``rank``,
    ``rank + world``, ... of each. Its loss counts with its share of the rows, so that the sum of
    the gradients is that of the whole batch. What a loss draws at random is drawn alike in every
    process: exactly as in one process where it does not depend on the number of rows.
    """

    _parallel: DistributedDataParallel | None = None

    def _train_epoch(
        self,
        train_data: TrainDataLoader,
        epoch_idx: int,
        loss_func: LossOf | None = None,
        show_progress: bool = False,
    ) -> float | tuple[float, ...] | None:
        """Train one epoch; return the sum of the batches' losses, part by part, as RecBole does."""
        group = processes.group()
        # Pop and its like learn by counting every row, without a gradient.
        counts = getattr(self.model, "type", None) == ModelType.TRADITIONAL
        if group.world > 1 and not counts:
            loss_func = self._shared_out(loss_func or self.model.calculate_loss)
        total = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress=show_progress)
        if total is None or group.world == 1 or counts:
            return total
        parts = total if isinstance(total, tuple) else (total,)
        means = tuple(part / group.world for part in collectives.summed(parts))
        return means if isinstance(total, tuple) else means[0]

    def _shared_out(self, loss: LossOf) -> LossOf:
        """Return the loss of this process's share of a batch."""
        first = self._parallel is None
        if self._parallel is None:
            self._parallel = self._joined_model(loss)
        self._same_random_numbers()
        pending = [self._check_rows] if first else []

        def own(batch: Interaction) -> Loss:
            while pending:
                pending.pop()(batch, loss)
            found = _weighted(batch, self._parallel or loss)
            self._same_random_numbers()
            return found

        return own

    def _joined_model(self, loss: LossOf) -> DistributedDataParallel:
        """Return the model's loss with gradients that are the mean over all processes."""
        world, model = processes.group().world, type(self.model).__name__
        if any(isinstance(part, _BatchNorm) for part in self.model.modules()):
            raise _unsplit(model, "it takes means over the rows of a batch (batch normalisation)")
        logger.info(f"training in {world} processes, {self.config['train_batch_size']} rows a step")
        collectives.same_weights(self.model)
        with warnings.catch_warnings():
            # torch 2.13 has a new name for what torch 2.6 knows by the first of these alone.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                _LossModule(self.model, loss),
                # Features and graphs are equal on every process, and would be sent at each step.
                broadcast_buffers=False,
                init_sync=False,
                # A branch whose turn it is not has no gradient.
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
            )

    def _same_random_numbers(self) -> None:
        """Let every process draw on as the first does; shares of unequal size draw unequally."""
        state = checkpoint.rng_state() if processes.leads() else None
        if state is not None and self.device.type == "cuda":
            state["own"] = torch.cuda.get_rng_state(self.device)
        state = collectives.of_the_first(state)
        if not processes.leads():
            checkpoint.set_rng_state({**state, "cuda": []})
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(state["own"], self.device)

    @torch.no_grad()
    def _check_rows(self, batch: Interaction, loss: LossOf) -> None:
        """Refuse a model whose loss of a batch is not the weighted mean of those of its shares.

        Raises
        ------
        ConfigError
            Several processes would train something else than one.
        """
        if getattr(self.model, "loss_by_rows", False):
            return
        state = checkpoint.rng_state()
        self.model.eval()  # without dropout
        for rows in (batch[:number] for number in _CHECKED):
            checkpoint.set_rng_state(state)
            with processes.alone():
                whole = _sum(loss(rows))
            checkpoint.set_rng_state(state)
            (shares,) = collectives.summed([_sum(_weighted(rows, loss))])
            shares /= processes.group().world
            if abs(whole - shares) > _ROUNDING * max(1.0, abs(whole)):
                raise _unsplit(
                    type(self.model).__name__,
                    f"its loss looks across the rows of a batch ({len(rows)} rows at once: "
                    f"{whole:.6g}, in shares: {shares:.6g})",
                )
        checkpoint.set_rng_state(state)
        self.model.train()


def _weighted(batch: Interaction, loss: LossOf) -> Loss:
    """Return the loss of this process's rows, weighted so that the processes' mean is right."""
    with processes.sharing(len(batch)) as group:
        # A process without a row takes part all the same, with a loss that counts nothing.
        # By numbers, not by a slice: some models want rows that lie side by side.
        own = list(range(*group.own().indices(len(batch))))
        found = loss(batch[own or [0]])
    weight = group.world * group.own_rows() / len(batch)
    return tuple(weight * part for part in found) if isinstance(found, tuple) else weight * found


def _sum(loss: Loss) -> float:
    return float(sum(loss)) if isinstance(loss, tuple) else float(loss)


def _unsplit(model: str, why: str) -> ConfigError:
    return ConfigError(
        f"{model} cannot be trained in several processes: {why}, so that shares of a batch would "
        "train something else. Start it without torchrun, in one process."
    )
