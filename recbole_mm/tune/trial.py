"""One trial: a training that is validated and never tested."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recbole_mm.config import MMConfig
from recbole_mm.files import LAST, LOG
from recbole_mm.run.execute import alone_in, log_to, write_config
from recbole_mm.run.members import prepare_run
from recbole_mm.run.pretrained import start_from_pretrained
from recbole_mm.trainer.base import MMTrainerMixin, trainer_class

# Told epoch (from 1), score and seconds so far at each validation; True ends the training, with
# what it has reached.
Watch = Callable[[int, float, float], bool]


@dataclass(frozen=True)
class Trained:
    """What a trial reached on validation.

    Attributes
    ----------
    value
        ``valid_metric`` of the best epoch.
    best_epoch, epochs
        That epoch, counted from 1, and the epochs trained.
    seconds
        Seconds of the whole trial, over its resumed parts.
    """

    value: float
    best_epoch: int
    epochs: int
    seconds: float


def train(config: MMConfig, folder: Path, watch: Watch) -> Trained:
    """Train and validate; go on after the last whole epoch where the folder holds a checkpoint.

    Parameters
    ----------
    config
        Its ``run_folder`` is set here.
    folder
        Folder of log, configuration and checkpoints.
    watch
        Asked after each validation, those of an interrupted part among them. What it raises ends
        the training.

    Raises
    ------
    recbole_mm.errors.MMError
        Data, features or settings are wrong, or a loss is not finite.
    """
    started = time.perf_counter()
    config["run_folder"] = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    resume = (folder / LAST).is_file()
    with alone_in(folder), log_to(folder / LOG, config["state"], shown=False):
        prepared = prepare_run(config)
        if not resume:
            start_from_pretrained(prepared)
            write_config(config, folder)
        trainer = trainer_class(prepared.spec, config.model_class)(config, prepared.model)
        trainer.started = started
        if resume:
            trainer.resume(folder)
            _repeat(trainer, watch)

        def watched(epoch: int, score: float) -> None:
            if watch(epoch + 1, score, trainer.elapsed()):
                trainer.stopped = True

        score, _ = trainer.fit(prepared.train, prepared.valid, callback_fn=watched)
        epochs = sum(record["epoch"] > 0 for record in trainer.history)
        return Trained(float(score), trainer.best_epoch + 1, epochs, trainer.elapsed())


def _repeat(trainer: MMTrainerMixin, watch: Watch) -> None:
    """Tell the validations of the part before an interruption."""
    for record in trainer.history:
        if record["epoch"] and "valid" in record:
            score = record["valid"][trainer.valid_metric.lower()]
            trainer.stopped |= watch(record["epoch"], score, trainer.elapsed())


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a trial that is over."""
    for file in folder.glob("*.safetensors"):
        file.unlink()
