"""A study on disk: one model's trials, which several processes share.

Optuna keeps the trials in a journal of JSON lines, its `JournalStorage`. A process holds the lock
of a trial while it works on it; the system frees the lock of a killed one, and the next process
goes on with that trial.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from filelock import FileLock, Timeout

from recbole_mm.errors import ConfigError, DataError
from recbole_mm.files import Plain
from recbole_mm.tune.space import Space, plain

if TYPE_CHECKING:
    import optuna

JOURNAL = "journal.log"
# Names of what is noted of a trial in the journal.
SECONDS, EPOCHS, BEST_EPOCH, ERROR, TIME_UP = "seconds", "epochs", "best_epoch", "error", "time_up"
_SETTINGS = "settings"
# Trials drawn at random before the sampler learns, among them the defaults; and trials that must
# have ended, and epochs that a trial has, before the median prunes.
_RANDOM, _UNPRUNED, _WARM_UP = 6, 4, 5


@dataclass(frozen=True)
class Budget:
    """What every model gets: trials, and seconds of training over all of them (None: any)."""

    trials: int
    seconds: float | None = None


@dataclass
class Begun:
    """A trial that this process works on, and the lock that says so."""

    trial: optuna.Trial
    lock: FileLock
    folder: Path

    @property
    def keys(self) -> dict[str, Plain]:
        """Return the settings that are tried."""
        return {key: plain(value) for key, value in self.trial.params.items()}


class Study:
    """One model's search on disk.

    Parameters
    ----------
    folder
        Folder of the journal and of the trials.
    space
        What is tried; an empty one makes one trial.
    defaults
        The model's own settings: the first trial, as far as the space holds them.
    budget
        Trials and seconds.
    seed
        Seed of the sampler. With one process the trials follow from it, killed and begun again or
        not.
    settings
        What the study rests on; a study that was begun with others is refused.

    Raises
    ------
    ConfigError
        The folder holds a study with other settings.
    DataError
        The journal is damaged.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        defaults: Mapping[str, object],
        budget: Budget,
        seed: int,
        settings: Mapping[str, str],
    ) -> None:
        self.folder, self.space, self.seed = folder, space, seed
        self.budget = Budget(1 if not space else budget.trials, budget.seconds)
        self._distributions = {key: one.distribution() for key, one in space.items()}
        folder.mkdir(parents=True, exist_ok=True)
        with self._choosing():
            self._study = _open(folder)
            self._check(settings)
            if not self.trials():
                kept = {k: v for k, v in defaults.items() if k in space and space[k].contains(v)}
                self._study.enqueue_trial(kept)

    def begin(self) -> Begun | None:
        """Return the next trial, or one whose process was killed; None if nothing is left to do."""
        with self._choosing():
            from optuna.trial import TrialState

            for known in self.trials():
                lock = self._claimed(known.number) if known.state == TrialState.RUNNING else None
                if lock is not None:
                    return self._begun(known, lock)
            if self._is_spent():
                return None
            self._seeded(sum(known.state != TrialState.WAITING for known in self.trials()))
            trial = self._study.ask(self._distributions)
            lock = self._claimed(trial.number)
            assert lock is not None, "a new trial is nobody's"
            return Begun(trial, lock, self.trial_folder(trial.number))

    def _begun(self, known: optuna.trial.FrozenTrial, lock: FileLock) -> Begun:
        """Take over a trial; what a process killed at its very beginning has not drawn is drawn."""
        import optuna

        self._seeded(known.number)
        trial = optuna.Trial(self._study, known._trial_id)
        for key, distribution in self._distributions.items():
            if key not in trial.params:
                _suggest(trial, key, distribution)
        return Begun(trial, lock, self.trial_folder(known.number))

    def should_end(self, begun: Begun, epoch: int, score: float, seconds: float) -> bool:
        """Note a validation; return whether the time is up.

        Raises
        ------
        optuna.TrialPruned
            The trial lies below the median of the others.
        """
        import optuna

        trial = begun.trial
        seen = self._frozen(trial.number).intermediate_values
        if epoch not in seen:
            trial.report(score, epoch)
            trial.set_user_attr(SECONDS, seconds)
        if trial.should_prune():
            raise optuna.TrialPruned
        others = self.spent() - self._frozen(trial.number).user_attrs.get(SECONDS, 0.0)
        up = self.budget.seconds is not None and others + seconds >= self.budget.seconds
        if up:
            trial.set_user_attr(TIME_UP, True)
        return up

    def end(
        self, begun: Begun, value: float | None = None, noted: Mapping[str, Plain] | None = None
    ) -> None:
        """Note that a trial has ended: with a value, pruned, or with an ``error``."""
        from optuna.trial import TrialState

        noted = noted or {}
        for name, thing in noted.items():
            begun.trial.set_user_attr(name, thing)
        state = TrialState.COMPLETE if value is not None else TrialState.PRUNED
        self._study.tell(begun.trial, value, TrialState.FAIL if ERROR in noted else state)

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """Return all trials, the oldest first."""
        return self._study.get_trials(deepcopy=False)

    def spent(self) -> float:
        """Return the seconds of all trials so far."""
        return float(sum(trial.user_attrs.get(SECONDS, 0.0) for trial in self.trials()))

    def trial_folder(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.folder / "trials" / f"{number:04d}"

    def _is_spent(self) -> bool:
        from optuna.trial import TrialState

        begun = sum(trial.state != TrialState.WAITING for trial in self.trials())
        seconds = self.budget.seconds
        return begun >= self.budget.trials or (seconds is not None and self.spent() >= seconds)

    def _frozen(self, number: int) -> optuna.trial.FrozenTrial:
        return self.trials()[number]

    def _seeded(self, number: int) -> None:
        """Take a sampler of the trial's own seed: a process that begins anew draws no trial twice.

        With the liar, processes side by side do not try the same place.
        """
        from optuna.samplers import TPESampler

        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        self._study.sampler = TPESampler(
            n_startup_trials=_RANDOM, seed=seed, multivariate=True, constant_liar=True
        )

    def _choosing(self) -> FileLock:
        """Return the lock under which trials are given out."""
        return FileLock(self.folder / ".choosing.lock")

    def _claimed(self, number: int) -> FileLock | None:
        """Return the lock of a trial, held; None if another process holds it."""
        lock = FileLock(self.folder / f".trial-{number:04d}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock

    def _check(self, settings: Mapping[str, str]) -> None:
        """Keep the settings of a new study, and refuse others later."""
        stored = self._study.user_attrs.get(_SETTINGS)
        if stored is None:
            self._study.set_user_attr(_SETTINGS, dict(settings))
            return
        differing = [
            f"{key} was {stored.get(key, 'not there')}, now {settings.get(key, 'not there')}"
            for key in sorted({*stored, *settings})
            if stored.get(key) != settings.get(key)
        ]
        if differing:
            raise ConfigError(
                f"{self.folder} holds a search with other settings: {'; '.join(differing)}. Give "
                "those again, name another --output, or remove the folder."
            )


def _open(folder: Path) -> optuna.Study:
    """Open or make the study of a folder.

    Raises
    ------
    DataError
        The journal cannot be read.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    path = folder / JOURNAL
    # A file lock instead of Optuna's own: the system frees that of a killed process at once.
    lock = FileLock(folder / ".journal.lock")
    with lock:
        _mend(path)
    try:
        storage = JournalStorage(JournalFileBackend(str(path), lock_obj=cast(Any, lock)))
        return optuna.create_study(
            storage=storage,
            study_name="study",
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(_UNPRUNED, _WARM_UP),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}). Put back a good copy, or remove {folder} to begin anew."
        ) from error


def _mend(journal: Path) -> None:
    """Drop a last line that a full disk or a lost machine left unfinished."""
    if not journal.is_file():
        return
    data = journal.read_bytes()
    if data and not data.endswith(b"\n"):
        with open(journal, "r+b") as stream:
            stream.truncate(data.rfind(b"\n") + 1)


def _suggest(trial: optuna.Trial, key: str, distribution: object) -> None:
    """Draw one setting of a trial."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        one = distribution
        trial.suggest_int(key, one.low, one.high, step=one.step, log=one.log)
    elif isinstance(distribution, FloatDistribution):
        one_float = distribution
        trial.suggest_float(
            key, one_float.low, one_float.high, step=one_float.step, log=one_float.log
        )
