"""The training of AlterRec: two optimisers and two schedules of learning rates, used in turns."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from recbole_mm.model.alterrec.model import AlterRec
from recbole_mm.model.alterrec.settings import BranchName
from recbole_mm.trainer.base import MMTrainerMixin
from recbole_mm.trainer.history import EpochRecord
from recbole_mm.trainer.state import Stateful

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import TrainDataLoader

    from recbole_mm.trainer.split import LossOf

logger = logging.getLogger(__name__)


class AlterRecTrainer(MMTrainerMixin):
    """Gives each epoch to the branch that the model's plan names.

    Only that branch's optimiser steps, so the other branch's weights and momenta stay as they are,
    and only its learning rate decays. Both optimisers and schedules are in every checkpoint.

    Parameters
    ----------
    config
        Read besides the mixin's keys: ``learning_rate``.
    model
        Its settings hold the branches' own learning rates.

    Attributes
    ----------
    optimizers, schedulers
        One per trained branch.
    """

    def __init__(self, config: Config, model: AlterRec) -> None:
        super().__init__(config, model)
        chosen = model.settings
        self.optimizers = {name: self._optimizer_of(model, name) for name in chosen.branches}
        self.schedulers = {
            name: StepLR(optimizer, chosen.of_branch(name).lr_step_size, chosen.lr_gamma)
            for name, optimizer in self.optimizers.items()
        }
        self.optimizer = self.optimizers[self.model.plan.branch]
        self._rate = 0.0
        self._warn_of_early_stop()

    def _optimizer_of(self, model: AlterRec, name: BranchName) -> Optimizer:
        """Make the optimiser of a branch."""
        own = model.settings.of_branch(name).learning_rate
        rate = self.config["learning_rate"] if own is None else own
        return self._build_optimizer(params=model.network(name).parameters(), learning_rate=rate)

    def _warn_of_early_stop(self) -> None:
        """Say so if a branch's turn could be cut off because its partner makes no progress."""
        patience = self.stopping_step * self.eval_step
        cycles = 4 * self.model.schedule.block
        if len(self.optimizers) == 2 and patience < cycles:
            logger.warning(
                f"stopping_step={self.stopping_step} waits {patience} epochs, less than two turns "
                f"of both branches ({cycles} epochs at alternation_epochs="
                f"{self.model.schedule.block}); training may stop before a branch's turn comes."
            )

    def stateful(self) -> dict[str, Stateful]:
        """Return both optimisers and both schedules."""
        optimizers = {f"{name}_optimizer": thing for name, thing in self.optimizers.items()}
        return {**optimizers, **{f"{name}_schedule": s for name, s in self.schedulers.items()}}

    def _train_epoch(
        self,
        train_data: TrainDataLoader,
        epoch_idx: int,
        loss_func: LossOf | None = None,
        show_progress: bool = False,
    ) -> float | tuple[float, ...] | None:
        """Train the branch whose turn it is, and move its learning rate on."""
        branch, negatives = self.model.plan
        # Gradients left from its partner's last step would count in clip_grad_norm.
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        self.optimizer = self.optimizers[branch]
        self._rate = float(self.optimizer.param_groups[0]["lr"])
        logger.info(
            f"epoch {epoch_idx + 1}: branch {branch}, {negatives} negatives, "
            f"learning rate {self._rate:g}"
        )
        total = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        self.schedulers[branch].step()
        return total

    def _track(self, epoch: int, record: EpochRecord) -> None:
        """Note in an epoch's record which branch was trained, and how."""
        branch, negatives = self.model.plan
        record["branch"], record["negatives"] = branch, negatives
        record["learning_rate"] = self._rate
        super()._track(epoch, record)
