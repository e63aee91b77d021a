"""The training loop of every model, ours and RecBole's own.

:class:`MMTrainerMixin` stands before a RecBole trainer in the method order. Batches, losses,
evaluation and early stopping stay RecBole's; the mixin adds checkpoints that can be resumed bit by
bit, the rank of every target, and errors that say what to do.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from recbole.trainer import Trainer
from recbole.utils import ModelType, early_stopping, get_trainer
from torch import Tensor, nn

from recbole_mm import compat, processes
from recbole_mm.errors import ConfigError, TrainingError
from recbole_mm.evaluation.hooks import HasLossNames, HasStartEpoch
from recbole_mm.files import BEST, LAST
from recbole_mm.model.deferred import loss_over_items
from recbole_mm.model.sampled import ItemSampler
from recbole_mm.times import time_left
from recbole_mm.trainer.evaluating import EvaluationMixin
from recbole_mm.trainer.history import EpochRecord
from recbole_mm.trainer.split import SplitMixin
from recbole_mm.trainer.state import CheckpointMixin

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader

    from recbole_mm.spec import ModelSpec
    from recbole_mm.trainer.split import LossOf

__all__ = ["MMTrainerMixin", "trainer_class"]

logger = logging.getLogger(__name__)

_SILENCE = 60.0  # seconds


class MMTrainerMixin(CheckpointMixin, SplitMixin, EvaluationMixin):
    """Training, validation and checkpoints over any RecBole trainer that keeps RecBole's ``fit``.

    Composed as ``type("SASRecRun", (MMTrainerMixin, Trainer), {})``, see :func:`trainer_class`.

    Parameters
    ----------
    config
        RecBole's configuration. Read here: ``run_folder`` (``checkpoint_dir`` if empty),
        ``tensorboard``, ``part_metrics``, and what RecBole's trainer reads.
    model
        The model; see :mod:`recbole_mm.evaluation.hooks` for what it may offer.

    Attributes
    ----------
    ranks
        Rank of the target of each row of the last evaluation, in row order (from 1).
    tied
        Number of those targets that share their score with another candidate.
    history
        One record per epoch. With ``part_metrics: epoch`` also ``parts``, and epoch 0, the
        untrained model. A trainer may add plain values in `_track`; ``branch`` shades the curves
        of the run.
    best_epoch
        Epoch of ``best.safetensors``, counted from 0; -1 before the first.
    seconds
        Time spent so far in ``train``, in validation (``eval``) and, where there are any, in
        ``studies`` of the score's parts, over resumed parts too; ``total`` is that of the whole run
        when its newest checkpoint was written.
    started
        When this run began, by `time.perf_counter`; the trainer's own beginning unless set.
    earlier
        Seconds of the parts of the run before it was resumed.
    stopped
        True once early stopping ended the training.
    """

    cur_step: int
    best_valid_score: float
    eval_step: int

    def __init__(self, config: Config, model: nn.Module) -> None:
        self.run_folder = Path(config["run_folder"] or config["checkpoint_dir"])
        shows = config["tensorboard"] and processes.leads()
        tensorboard = self.run_folder / "tensorboard" if shows else None
        # RecBole's constructor makes the folder that it finds here, wherever the run writes.
        values = config.final_config_dict
        stock_folder, values["checkpoint_dir"] = values["checkpoint_dir"], str(self.run_folder)
        try:
            with compat.private_tensorboard(tensorboard):
                super().__init__(config, model)
        finally:
            values["checkpoint_dir"] = stock_folder
        if not config["single_spec"]:
            raise ConfigError(
                "RecBole's own way to several devices is not used: its evaluation weighs the "
                "devices by batches, not rows. Start the run with torchrun instead."
            )
        if processes.group().world > 1 and self.enable_scaler:
            raise ConfigError(
                "enable_scaler does not go with several processes: RecBole clips gradients before "
                "it scales them back. Leave it out; enable_amp goes without it on newer GPUs."
            )
        # Pop and its like train one epoch whatever the configuration says.
        self.eval_step = min(self.eval_step, self.epochs)
        self.saved_model_file = str(self.run_folder / BEST)
        self.ranks: np.ndarray = np.empty(0, dtype=np.int64)
        self.tied = 0
        self.history: list[EpochRecord] = []
        self.seconds = {"train": 0.0, "eval": 0.0}
        self.started, self.earlier = time.perf_counter(), 0.0
        self._told = self.started
        self.best_epoch = -1
        self.stopped = False
        self._epoch = self._batch = self._batches = 0
        self._epoch_started = self.started
        self._identity = self._identify(None)
        self._loss: LossOf | None = None

    def fit(
        self,
        train_data: TrainDataLoader,
        valid_data: FullSortEvalDataLoader | None = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train until ``epochs`` or early stopping; the parameters are RecBole's.

        Returns
        -------
        tuple
            Best validation score and the metrics of that epoch (``None`` without validation).

        Raises
        ------
        TrainingError
            A loss, weight or score is not finite, or the model left training mode.
        CheckpointError
            The resumed checkpoint belongs to other data.
        """
        self._begin(train_data)
        self._validate_untrained(valid_data)
        progress = show_progress and sys.stderr.isatty()
        try:
            for epoch in range(self.start_epoch, self.epochs):
                if self.stopped:
                    break
                score = self._run_epoch(epoch, train_data, valid_data, verbose, saved, progress)
                if callback_fn and score is not None:
                    callback_fn(epoch, score)
        except KeyboardInterrupt:
            self._report_interrupt()
            raise
        if saved and not self._kept:
            self._save(max(self.start_epoch, self.epochs) - 1, best=True)
        self._fill_new_items(valid_data, saved)
        self._fit_late(valid_data, saved)
        return self.best_valid_score, self.best_valid_result

    def _begin(self, train_data: TrainDataLoader) -> None:
        """Look at the training data before the first epoch, and finish a resume with it."""
        if self.config["train_neg_sample_args"].get("dynamic", False):
            train_data.get_model(self.model)
        self._meet(train_data)

    def _run_epoch(
        self,
        epoch: int,
        train: TrainDataLoader,
        valid: FullSortEvalDataLoader | None,
        verbose: bool,
        saved: bool,
        progress: bool,
    ) -> float | None:
        """Train, validate and save one epoch; return its validation score, if it has one."""
        record: EpochRecord = {"epoch": epoch + 1, "loss": self._train(train, epoch, progress)}
        self.history.append(record)
        level = logging.INFO if verbose else logging.DEBUG
        logger.log(level, f"epoch {epoch + 1}: training {_numbers(record['loss'])}")
        validates = bool(valid) and self.eval_step > 0
        # As RecBole: without validation the newest weights are the result.
        improved, score = not validates, None
        if validates and (epoch + 1) % self.eval_step == 0:
            self._tune(valid)
            score, improved = self._validate(valid, epoch, record, progress)
            logger.log(level, self._validation_line(epoch, record["valid"]))
            self._add_parts(valid, record)
        self._track(epoch, record)
        self.seconds["total"] = self.elapsed()
        if saved:
            self._save(epoch, best=improved)
        return score

    def elapsed(self) -> float:
        """Return the seconds that the run has taken so far, over its resumed parts."""
        return self.earlier + time.perf_counter() - self.started

    def _train(self, train_data: TrainDataLoader, epoch: int, progress: bool) -> dict[str, float]:
        """Train one epoch and return the mean loss per batch, by part."""
        start = time.perf_counter()
        self._epoch, self._batch, self._batches = epoch, 0, len(train_data)
        if isinstance(self.model, HasStartEpoch):
            self.model.start_epoch(epoch)
        # RecBole's SINE turns anomaly detection on for everybody when it is imported, and any
        # sequential model of RecBole imports it: about twice the time for a check we make anyway.
        with torch.autograd.set_detect_anomaly(False):
            total = self._train_epoch(
                train_data, epoch, self._loss_of(train_data), show_progress=progress
            )
        self._check_mode()
        self.seconds["train"] += time.perf_counter() - start
        return self._loss_means(total)

    def _loss_of(self, train_data: TrainDataLoader) -> LossOf:
        """Return the loss to train with: the model's, its softmax over items in chunks or a sample.

        Raises
        ------
        ConfigError
            ``sampled_softmax`` asks for more items than there are.
        """
        if self._loss is None:
            dataset, n = train_data.dataset, self.config["sampled_softmax"]
            counts, alpha = dataset.train_counts, self.config["sampled_softmax_alpha"]
            learns = getattr(self.model, "type", None) != ModelType.TRADITIONAL
            sampler = ItemSampler(counts, n, alpha) if n and learns else None
            loss = compat.loss_function(self.model) or self.model.calculate_loss
            self._loss = loss_over_items(self.model, loss, dataset.item_num, sampler)
        return self._loss

    def _loss_means(self, total: float | tuple[float, ...] | None) -> dict[str, float]:
        """Turn RecBole's sums over the batches of an epoch into means, by name of the part."""
        parts = total if isinstance(total, tuple) else (total or 0.0,)
        names = tuple(self.model.loss_names or ()) if isinstance(self.model, HasLossNames) else ()
        if len(names) != len(parts):
            names = tuple(f"loss{i + 1}" for i in range(len(parts))) if parts[1:] else ("loss",)
        return {
            name: float(part) / max(self._batch, 1) for name, part in zip(names, parts, strict=True)
        }

    def _validate(
        self, valid_data: FullSortEvalDataLoader, epoch: int, record: EpochRecord, progress: bool
    ) -> tuple[float, bool]:
        """Validate once; return the score and whether it is the best so far.

        Early stopping is RecBole's: an equal score counts as an improvement.
        """
        start = time.perf_counter()
        score, record["valid"] = self._valid_epoch(valid_data, show_progress=progress)
        self.seconds["eval"] += time.perf_counter() - start
        best, self.cur_step, self.stopped, improved = early_stopping(
            score,
            self.best_valid_score,
            self.cur_step,
            max_step=self.stopping_step,
            bigger=self.valid_metric_bigger,
        )
        self.best_valid_score = float(best)
        if improved:
            self.best_valid_result = record["valid"]
        return score, improved

    def _validation_line(self, epoch: int, result: dict[str, float]) -> str:
        state = f"{self.cur_step} of {self.stopping_step + 1} validations without improvement"
        if self.stopped:
            state += "; training stops"
        return f"epoch {epoch + 1}: validation {_numbers(result)} ({state})"

    def _track(self, epoch: int, record: EpochRecord) -> None:
        """Hand an epoch's numbers to TensorBoard and W&B where they are turned on.

        Comes before the checkpoint: what a trainer adds to the record here is stored with it.
        """
        self.wandblogger.log_metrics({"epoch": epoch, **record["loss"]}, head="train")
        if "valid" in record:
            self.wandblogger.log_metrics({"epoch": epoch, **record["valid"]}, head="valid")
        if not self.config["tensorboard"]:
            return
        for group, values in (("loss", record["loss"]), ("valid", record.get("valid", {}))):
            for name, value in values.items():
                self.tensorboard.add_scalar(f"{group}/{name}", value, epoch)
        self.tensorboard.flush()

    def _report_interrupt(self) -> None:
        if (self.run_folder / LAST).exists():
            logger.warning(
                f"interrupted in epoch {self._epoch + 1}; the last whole epoch is kept. "
                f"Go on with --resume={self.run_folder}"
            )
        else:
            logger.warning("interrupted before the first whole epoch; there is nothing to resume.")

    def _check_nan(self, loss: Tensor) -> None:
        """Check one batch; RecBole's loop calls this with each loss before its backward pass."""
        self._batch += 1
        self._say_where(loss)
        self._check_mode()
        if bool(torch.isfinite(loss).all()):
            return
        raise TrainingError(
            f"the training loss of {type(self.model).__name__} is {loss.detach().cpu().tolist()} "
            f"in epoch {self._epoch + 1}, batch {self._batch} of {self._batches} "
            f"(learning rate {self._learning_rate()}). {self._last_good()} Try a smaller "
            "learning_rate, clip_grad_norm={max_norm: 5}, enable_amp=False, and look for extreme "
            "values in the features with `recbole-mm audit`."
        )

    def _say_where(self, loss: Tensor) -> None:
        """Say a word once a minute within a long epoch."""
        now = time.perf_counter()
        if self._batch == 1:
            self._told = self._epoch_started = now
        if self._batch == 1 or now - self._told < _SILENCE:
            return
        self._told = now
        left = (now - self._epoch_started) / (self._batch - 1) * (self._batches - self._batch + 1)
        logger.info(
            f"epoch {self._epoch + 1}: batch {self._batch} of {self._batches}, "
            f"loss {float(loss.detach().mean()):.6g}, {time_left(left)} of the epoch"
        )

    def _check_mode(self) -> None:
        if not self.model.training:
            raise TrainingError(
                f"{type(self.model).__name__} is not in training mode in epoch {self._epoch + 1}, "
                f"batch {self._batch}: dropout would be off. Expected model.training to be True "
                "in every training batch; a call of eval() in the model lacks its train()."
            )


def trainer_class(spec: ModelSpec, model_class: type) -> type:
    """Compose the trainer of a model: the mixin before RecBole's trainer or the model's own.

    Parameters
    ----------
    spec
        The model's registry entry (:class:`recbole_mm.spec.ModelSpec`).
    model_class
        The model's class.

    Returns
    -------
    type
        A class to be called with ``(config, model)``.

    Raises
    ------
    ConfigError
        The model's trainer has a training procedure of its own and no :class:`MMTrainerMixin`.
    """
    stock: type[Trainer] = spec.load_trainer() or get_trainer(
        getattr(model_class, "type", None), model_class.__name__
    )
    if issubclass(stock, MMTrainerMixin):
        return stock
    if not issubclass(stock, Trainer) or stock.fit is not Trainer.fit:
        raise ConfigError(
            f"{model_class.__name__} is trained by {stock.__name__}, whose procedure of its own "
            "cannot be resumed here. Expected a trainer that keeps the fit() of RecBole's Trainer "
            "or is a subclass of recbole_mm.trainer.base.MMTrainerMixin; choose another model."
        )
    return type(f"{model_class.__name__}Run", (MMTrainerMixin, stock), {})


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in values.items())
