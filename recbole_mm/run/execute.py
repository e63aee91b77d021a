"""One run: configuration, data, features, model, training, and a result on disk."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import yaml
from filelock import FileLock, Timeout

from recbole_mm import processes, yaml_files
from recbole_mm.config import MMConfig
from recbole_mm.data.loading import inter_file
from recbole_mm.errors import CheckpointError, ConfigError
from recbole_mm.evaluation.new_items import ranks_among
from recbole_mm.files import CONFIG, LAST, LOG, RESULT, atomic_write, remove_unfinished
from recbole_mm.prepare import ensure_dataset
from recbole_mm.run.floor import floor_of
from recbole_mm.run.members import prepare_run
from recbole_mm.run.memory import memory_explained
from recbole_mm.run.new_items import DIVISION, new_item_metrics
from recbole_mm.run.page import write_page
from recbole_mm.run.prepared import Prepared
from recbole_mm.run.pretrained import start_from_pretrained
from recbole_mm.run.record import Metrics, Record, RunResult, outcome_of, read_result
from recbole_mm.run.studies import after_training
from recbole_mm.trainer.base import MMTrainerMixin, trainer_class

logger = logging.getLogger(__name__)

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def run(
    model: str,
    dataset: str,
    config_files: Sequence[str | Path] = (),
    overrides: Mapping[str, object] | None = None,
    resume: str | Path | None = None,
) -> RunResult:
    """Train a model, select the epoch on validation, test once, and write the result.

    Parameters
    ----------
    model, dataset
        Names, for example ``"SRIM"`` and ``"Cellphones"``. With ``resume`` they may be empty.
    config_files
        YAML files, later ones win.
    overrides
        Single keys, above all files.
    resume
        A run folder: go on after its last whole epoch, with its own configuration; ``overrides``
        may still raise ``epochs``.

    Returns
    -------
    RunResult
        What was written to ``result.json``.

    Raises
    ------
    recbole_mm.errors.MMError
        Wrong configuration, data, features or checkpoint, or a loss that is not finite.
    """
    started = time.perf_counter()
    overrides = dict(overrides or {})
    if resume:
        model, dataset, config_files, overrides = _resumed(Path(resume), overrides)
    config = MMConfig(model, dataset, config_files, overrides)
    folder = Path(resume or run_folder(config))
    config["run_folder"] = str(folder)
    # A wrong name must not leave a run folder behind.
    with processes.joined(config["device"]):
        with processes.leader_first():
            ensure_dataset(config["dataset"], Path(config["data_path"]))
            inter_file(config["dataset"], Path(config["data_path"]))
        return _run_in(folder, config, bool(resume), started)


def _run_in(folder: Path, config: MMConfig, resume: bool, started: float) -> RunResult:
    """Run in a folder; of several processes, the first writes it and looks at the trained model."""
    if not processes.leads():
        with _silent():
            _train(_prepared(config, resume), folder, resume, started)
            processes.wait()
        return RunResult(folder, cast(Record, read_result(folder)))
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder), log_to(folder / LOG, config["state"]):
        prepared = _prepared(config, resume)
        if not resume:
            # Only now: a run that is refused must not lose what an earlier one left here.
            write_config(config, folder)
        trainer, valid, test = _train(prepared, folder, resume, started)
        with processes.alone():
            result = RunResult(folder, _record(prepared, trainer, valid, test))
            result.save()
            write_page(result)
        processes.wait()
    return result


def _prepared(config: MMConfig, resume: bool) -> Prepared:
    """Return all that a run needs; where it begins, with pretrained weights if they are named."""
    prepared = prepare_run(config)
    if not resume:
        start_from_pretrained(prepared)
    return prepared


def run_folder(config: MMConfig) -> Path:
    """Return the folder of a run: the one asked for, or one named by model, settings and seed."""
    if config["run_folder"]:
        return Path(config["run_folder"])
    name = f"{config.hash()[:10]}-s{config['seed']}"
    return Path(config["checkpoint_dir"]) / config["dataset"] / config["model"] / name


def _resumed(
    folder: Path, overrides: dict[str, object]
) -> tuple[str, str, list[Path], dict[str, object]]:
    """Return model, data set, files and overrides of an interrupted run."""
    stored = folder / CONFIG
    if not stored.is_file() or not (folder / LAST).is_file():
        raise CheckpointError(
            f"{folder}: no {CONFIG} and {LAST} there, so nothing to resume. Expected the run "
            "folder that an interrupted run named (saved/<dataset>/<model>/...)."
        )
    plain = yaml_files.load_yaml(stored)
    if not {"model", "dataset"} <= set(plain):
        raise CheckpointError(
            f"{stored} is damaged: it names no model and data set. Start a new run, or put back "
            "the file that the interrupted run wrote."
        )
    other = {key for key in overrides if key not in ("epochs", "show_progress", "stopping_step")}
    if changed := [key for key in other if overrides[key] != plain.get(key)]:
        raise ConfigError(
            f"--resume goes on with the settings of {stored}; only epochs and stopping_step may "
            f"change, not {', '.join(sorted(changed))}. Start a new run for other settings."
        )
    return plain["model"], plain["dataset"], [stored], overrides


def write_config(config: MMConfig, folder: Path) -> None:
    """Write the configuration of a run that begins, and remove what an earlier one left there."""
    if (folder / RESULT).is_file():
        logger.info("%s holds the result of an earlier run of these settings; replacing it", folder)
        (folder / RESULT).unlink()
    elif (folder / LAST).is_file():
        logger.info("%s holds an interrupted run; --resume=%s would continue it", folder, folder)
    for stale in folder.glob("*.safetensors"):
        stale.unlink()
    with atomic_write(folder / CONFIG) as stream:
        yaml.safe_dump(config.to_plain(), stream, sort_keys=True)


def _train(
    prepared: Prepared, folder: Path, resume: bool, started: float
) -> tuple[MMTrainerMixin, Metrics, Metrics]:
    """Fit, and test once with the best weights of validation; return the metrics of both."""
    config = prepared.config
    trainer = trainer_class(prepared.spec, config.model_class)(config, prepared.model)
    trainer.started = started
    if resume:
        trainer.resume(folder)
    progress = config["show_progress"]
    with memory_explained(prepared):
        _, valid = trainer.fit(prepared.train, prepared.valid, show_progress=progress)
        start = time.perf_counter()
        test = trainer.evaluate(prepared.test, load_best_model=True, show_progress=progress)
    trainer.seconds["eval"] += time.perf_counter() - start
    return trainer, valid, test


def _record(prepared: Prepared, trainer: MMTrainerMixin, valid: Metrics, test: Metrics) -> Record:
    """Study the trained model, and return the record of the run."""
    outcome = outcome_of(prepared, trainer, valid, test)
    if prepared.dataset.held_out.any():
        among_new = ranks_among(prepared.model, prepared.test, prepared.dataset.held_out)
        outcome["slices"][DIVISION] = new_item_metrics(prepared, trainer.ranks, among_new)
    record: Record = {**outcome, **after_training(prepared, trainer, trainer.run_folder)}
    if (floor := floor_of(prepared, trainer.ranks)) is not None:
        record["floor"] = floor
    record["seconds"] |= {**trainer.seconds, "total": trainer.elapsed()}
    return record


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep a second process out of a run folder; the system frees the lock of a killed one."""
    try:
        with FileLock(folder / ".lock", timeout=0):
            remove_unfinished(folder)
            yield
    except Timeout as error:
        raise CheckpointError(
            f"{folder}: another process is running there. Wait for it, or name another run_folder."
        ) from error
    except NotImplementedError as error:
        raise CheckpointError(
            f"{folder}: its file system has no locks. Name a run_folder on another disk."
        ) from error


class _PlainFormatter(logging.Formatter):
    """Drops the colour codes that RecBole puts into its messages."""

    def format(self, record: logging.LogRecord) -> str:
        return _ANSI.sub("", super().format(record))


class _RunLog(logging.FileHandler):
    """The log of a run; one that cannot be written ends the run like any other of its files."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        error.filename = error.filename or self.baseFilename
        raise error


@contextmanager
def _silent() -> Iterator[None]:
    """Log nothing: the first process says it all."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, [logging.NullHandler()]
    try:
        yield
    finally:
        root.handlers = before


@contextmanager
def log_to(path: Path, level: str, *, shown: bool = True) -> Iterator[None]:
    """Log to ``path`` and, if ``shown``, to standard error for the time of one run.

    RecBole logs to the root logger, and two runs in one process must not share a file.
    """
    root = logging.getLogger()
    before, threshold = root.handlers[:], root.level
    file = _RunLog(path, encoding="utf-8")
    handlers: list[logging.Handler] = [file]
    if shown:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(_PlainFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    root.handlers, root.level = handlers, logging.getLevelName(str(level).upper())
    try:
        yield
    finally:
        root.handlers, root.level = before, threshold
        with suppress(OSError):  # said when it happened
            file.close()
