"""What a search found: a table of models, all trials, and the best settings as YAML."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from filelock import FileLock

from recbole_mm.compare.plan import file_name
from recbole_mm.compare.tables import markdown_table
from recbole_mm.files import Plain, atomic_write, remove_unfinished
from recbole_mm.rows import RowSpec
from recbole_mm.tune.space import plain
from recbole_mm.tune.study import BEST_EPOCH, EPOCHS, ERROR, SECONDS, TIME_UP, Budget, Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

TABLE, CSV = "table.md", "trials.csv"
_STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


@dataclass(frozen=True)
class Searched:
    """A model, what was fixed of it, its study, the file of its search space, and the metric."""

    row: RowSpec
    keys: Mapping[str, Plain]
    study: Study
    space_file: str
    metric: str

    def trials(self) -> list[FrozenTrial]:
        """Return the trials that were begun."""
        return [trial for trial in self.study.trials() if trial.state.name in _STATES]

    def best(self) -> FrozenTrial | None:
        """Return the trial with the highest value, the first of equal ones."""
        done = [trial for trial in self.trials() if trial.state.name == "COMPLETE"]
        return max(done, key=lambda trial: (trial.value, -trial.number)) if done else None


def best_file(folder: Path, label: str) -> Path:
    """Return where the best settings of a row stand."""
    return folder / f"{file_name(label)}.yaml"


def write_report(folder: Path, dataset: str, searched: Sequence[Searched], budget: Budget) -> Path:
    """Write ``table.md``, ``trials.csv`` and ``<row>.yaml`` of every row; return the first."""
    texts = {
        best_file(folder, one.row.label): _best_yaml(one, best, dataset)
        for one in searched
        if (best := one.best()) is not None
    }
    texts[folder / CSV] = _comma_separated(searched)
    texts[folder / TABLE] = _markdown(dataset, searched, budget)
    with FileLock(folder / ".report.lock"):
        for path, text in texts.items():
            remove_unfinished(folder, path.name)
            with atomic_write(path) as stream:
                stream.write(text)
    return folder / TABLE


def _settings(one: Searched, trial: FrozenTrial) -> dict[str, Plain]:
    """Return what makes a trial's model: what was fixed of it, and what was tried."""
    fixed: dict[str, Plain] = {key: one.keys[key] for key, _ in one.row.keys}
    return {**fixed, **{key: plain(value) for key, value in trial.params.items()}}


def _best_yaml(one: Searched, best: FrozenTrial, dataset: str) -> str:
    """Return the best settings as a file for ``--config_files``."""
    seconds = f"{one.study.spent():.1f} s"
    head = (
        f"# {one.row.label} on {dataset}: trial {best.number} of {len(one.trials())}, {seconds} in "
        f"all; {one.metric} {best.value:.4f} on validation.\n"
    )
    settings = {"model": one.row.model, **_settings(one, best)}
    return head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _comma_separated(searched: Sequence[Searched]) -> str:
    """Return all trials, one line each, with a column for each key."""
    lines = [_line(one, trial) for one in searched for trial in one.trials()]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(one: Searched, trial: FrozenTrial) -> dict[str, object]:
    noted = trial.user_attrs
    keys = {key: json.dumps(value) for key, value in _settings(one, trial).items()}
    return {
        "row": one.row.label,
        "trial": trial.number,
        "state": _state(trial),
        "value": trial.value,
        "best_epoch": noted.get(BEST_EPOCH, ""),
        "epochs": noted.get(EPOCHS, max(trial.intermediate_values, default=0)),
        "seconds": noted.get(SECONDS, ""),
        "error": noted.get(ERROR, ""),
        **keys,
    }


def _state(trial: FrozenTrial) -> str:
    state = _STATES[trial.state.name]
    return "time up" if state == "done" and trial.user_attrs.get(TIME_UP) else state


def _markdown(dataset: str, searched: Sequence[Searched], budget: Budget) -> str:
    """Return the report."""
    time = "any time" if budget.seconds is None else f"{budget.seconds:g} seconds"
    head = (
        f"# Tuning on {dataset}\n\nBudget of every model: {budget.trials} trials, {time}. Values "
        "are those of the metric on validation; nothing of the test part is computed. The first "
        "trial has the model's defaults, as far as the search space holds them."
    )
    parts = [head, _models_table(searched), *(_trials_table(one) for one in searched)]
    return "\n\n".join(parts) + "\n"


def _models_table(searched: Sequence[Searched]) -> str:
    head = ["model", "trials", "pruned", "failed", "seconds", "metric", "defaults", "best"]
    return markdown_table([*head, "trial", "best settings"], map(_model_cells, searched))


def _model_cells(one: Searched) -> list[str]:
    trials, best = one.trials(), one.best()
    states = [_state(trial) for trial in trials]
    first = trials[0].value if trials else None
    keys = "no trial ended well"
    if best is not None:
        named = _settings(one, best).items()
        keys = ", ".join(f"{key} {value}" for key, value in named) or "nothing to tune"
    return [
        one.row.label,
        str(len(trials)),
        str(states.count("pruned")),
        str(states.count("failed")),
        f"{one.study.spent():.1f}",
        one.metric,
        _number(first),
        _number(best.value if best else None),
        str(best.number) if best else "-",
        keys,
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _trials_table(one: Searched) -> str:
    """Return all trials of one model, and what was tried."""
    tried = [f"{key}: {dimension.written()}" for key, dimension in one.study.space.items()]
    space = f"Search space ({one.space_file}): {'; '.join(tried) or 'empty'}."
    keys = list(dict.fromkeys(key for trial in one.trials() for key in _settings(one, trial)))
    lines = [_trial_cells(one, trial, keys) for trial in one.trials()]
    head = ["trial", "state", one.metric, "epochs", "seconds", *keys]
    return f"## {one.row.label}\n\n{space}\n\n{markdown_table(head, lines)}"


def _trial_cells(one: Searched, trial: FrozenTrial, keys: Sequence[str]) -> list[str]:
    line, settings = _line(one, trial), _settings(one, trial)
    seconds = trial.user_attrs.get(SECONDS)
    return [
        str(trial.number),
        _state(trial),
        _number(trial.value),
        str(line["epochs"]),
        "-" if seconds is None else f"{seconds:.1f}",
        *(str(settings.get(key, "-")) for key in keys),
    ]
