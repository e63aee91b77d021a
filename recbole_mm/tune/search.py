"""The search for the best settings of several models under one budget.

Every model gets the same number of trials and the same seconds. A trial is trained and validated;
nothing of the test part is computed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_mm import key_table
from recbole_mm.compare.plan import file_name
from recbole_mm.config import NOT_HASHED, MMConfig
from recbole_mm.data.loading import inter_file
from recbole_mm.errors import ConfigError, TrainingError
from recbole_mm.exits import is_out_of_memory
from recbole_mm.files import Plain, sha256_file
from recbole_mm.prepare import ensure_dataset
from recbole_mm.rows import RowSpec, as_argument, parse_row
from recbole_mm.run.prepared import ready_files
from recbole_mm.tune.report import CSV, Searched, best_file, write_report
from recbole_mm.tune.space import Space, check_space, space_of
from recbole_mm.tune.study import (
    BEST_EPOCH,
    EPOCHS,
    ERROR,
    SECONDS,
    Begun,
    Budget,
    Study,
)
from recbole_mm.tune.trial import remove_checkpoints, train
from recbole_mm.yaml_files import parse_value

logger = logging.getLogger(__name__)

TRIALS = 20
_SEED = 2020


@dataclass(frozen=True)
class Subject:
    """A model that is tuned: its row, what the user has fixed of it, and its search space."""

    row: RowSpec
    keys: dict[str, Plain]
    config: MMConfig
    space: Space
    space_file: str


def tune(
    dataset: str,
    models: Sequence[str],
    *,
    trials: int = TRIALS,
    seconds: float | None = None,
    output: str | Path | None = None,
    space: str | Path | None = None,
    config_files: Sequence[str | Path] = (),
    overrides: Mapping[str, Plain] | None = None,
) -> Path:
    """Search the best settings of every model, as far as not done yet, and write the report.

    Parameters
    ----------
    dataset
        Name of the data set.
    models
        Rows, see :func:`recbole_mm.rows.parse_row`. A row's own keys are not searched.
    trials
        Trials of each model; one where its search space is empty.
    seconds
        Seconds of each model, over all its trials; None sets no limit. The trial that crosses it
        ends after its next validation and counts.
    output
        Folder of everything; ``saved/tune/<dataset>`` if empty.
    space
        Folder of search spaces of your own, ``<Model>.yaml``.
    config_files, overrides
        Given to every trial. Keys set there are not searched.

    Returns
    -------
    Path
        ``<output>/table.md``; ``trials.csv`` and ``<row>.yaml`` with the best settings stand
        beside it.

    Raises
    ------
    ConfigError
        A row, key, space or budget is wrong, or the folder holds a search with other settings.
    DataError
        There is no such data set.
    """
    if trials < 1 or (seconds is not None and seconds <= 0):
        raise ConfigError(
            f"trials = {trials}, seconds = {seconds}: expected 1 trial or more, and seconds above 0"
        )
    folder = Path(output or Path("saved", "tune", dataset))
    subjects = subjects_of(dataset, models, space, config_files, overrides or {})
    for subject in subjects:
        ensure_dataset(subject.config["dataset"], Path(subject.config["data_path"]))
        inter_file(subject.config["dataset"], Path(subject.config["data_path"]))
        ready_files(subject.config)
    budget = Budget(trials, seconds)
    done: list[Searched] = []
    for subject in subjects:
        study = _study(subject, folder, dataset, budget, config_files)
        metric = subject.config["valid_metric"]
        done.append(Searched(subject.row, subject.keys, study, subject.space_file, metric))
        _search(subject, study, dataset, config_files)
        table = write_report(folder, dataset, done, budget)
    return table


def subjects_of(
    dataset: str,
    models: Sequence[str],
    space: str | Path | None,
    config_files: Sequence[str | Path],
    overrides: Mapping[str, Plain],
) -> list[Subject]:
    """Return what is tuned, checked before anything is trained."""
    rows = [parse_row(text) for text in models]
    names = [file_name(row.label) for row in rows]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated or not rows:
        what = f"rows named twice: {', '.join(repeated)}" if repeated else "no models"
        raise ConfigError(f'{what}. Give for example --models="SRIM SASRec"')
    return [_subject(row, dataset, space, config_files, overrides) for row in rows]


def _subject(
    row: RowSpec,
    dataset: str,
    folder: str | Path | None,
    config_files: Sequence[str | Path],
    overrides: Mapping[str, Plain],
) -> Subject:
    keys = {**overrides, **{key: parse_value(text, row.label) for key, text in row.keys}}
    try:
        config = MMConfig(row.model, dataset, config_files, keys)
    except ConfigError as error:
        raise ConfigError(f"row {row.label}: {error}") from error
    known = key_table.known_keys(config.spec, config["preset"])
    space, file = space_of(config.spec, known, folder)
    given = config.given()
    space = {key: one for key, one in space.items() if key not in given}
    check_space(space, known, row.model, file)
    return Subject(row, keys, config, space, file)


def _study(
    subject: Subject,
    folder: Path,
    dataset: str,
    budget: Budget,
    config_files: Sequence[str | Path],
) -> Study:
    """Open the study of a model."""
    fixed = {key: as_argument(v) for key, v in subject.keys.items() if key not in NOT_HASHED}
    tried = {f"range of {key}": one.written() for key, one in subject.space.items()}
    files = {f"file {n}": sha256_file(file)[:12] for n, file in enumerate(config_files, start=1)}
    settings = {"model": subject.row.model, "dataset": dataset, **fixed, **files, **tried}
    seed = int(subject.keys.get("seed", _SEED))  # type: ignore[arg-type]
    plain = subject.config.to_plain()
    place = folder / "studies" / file_name(subject.row.label)
    return Study(place, subject.space, plain, budget, seed, settings)


def _search(
    subject: Subject, study: Study, dataset: str, config_files: Sequence[str | Path]
) -> None:
    """Make the trials of one model that are left."""
    while (begun := study.begin()) is not None:
        with begun.lock:
            keys = {**subject.keys, **begun.keys}
            _try(subject.row, study, begun, dataset, config_files, keys)
            remove_checkpoints(begun.folder)
    for trial in study.trials():
        if trial.state.is_finished():  # A process killed in between has left them.
            remove_checkpoints(study.trial_folder(trial.number))


def _try(
    row: RowSpec,
    study: Study,
    begun: Begun,
    dataset: str,
    config_files: Sequence[str | Path],
    keys: Mapping[str, Plain],
) -> None:
    """Make one trial; what goes wrong with its settings alone is noted of it."""
    from optuna import TrialPruned

    number = begun.trial.number
    try:
        config = MMConfig(row.model, dataset, config_files, keys)
        found = train(
            config,
            begun.folder,
            lambda epoch, score, seconds: study.should_end(begun, epoch, score, seconds),
        )
    except TrialPruned:
        study.end(begun)
        _told(row, number, "pruned")
    except (TrainingError, ConfigError, RuntimeError) as error:
        fault = isinstance(error, (TrainingError, ConfigError)) or is_out_of_memory(error)
        if not fault or (isinstance(error, ConfigError) and number == 0):
            raise  # the defaults themselves are refused: nothing of it is the trial's
        study.end(begun, noted={ERROR: str(error).splitlines()[0]})
        _told(row, number, f"failed: {error}")
    else:
        noted: dict[str, Plain] = {
            SECONDS: found.seconds, EPOCHS: found.epochs, BEST_EPOCH: found.best_epoch
        }  # fmt: skip
        study.end(begun, found.value, noted)
        _told(row, number, f"{config['valid_metric']} {found.value:.4f}, {found.seconds:.1f} s")


def _told(row: RowSpec, number: int, what: str) -> None:
    logger.info("%s, trial %d: %s", row.label, number, what)


def tune_command(args: argparse.Namespace, overrides: Mapping[str, Plain]) -> int:
    """Run ``recbole-mm tune``; return 1 if a model has no trial that ended well, else 0."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        table = tune(
            args.dataset,
            args.models,
            trials=args.trials,
            seconds=args.seconds,
            output=args.output,
            space=args.space,
            config_files=args.config_files,
            overrides=overrides,
        )
    except KeyboardInterrupt:
        logger.warning("interrupted; the same command goes on with the trial that was begun")
        raise
    print(table.read_text(encoding="utf-8"))
    print(f"written to {table}; all trials: {table.with_name(CSV)}")
    best = [best_file(table.parent, parse_row(text).label) for text in args.models]
    return int(not all(file.is_file() for file in best))
