"""What a comparison consists of: rows as they are asked for, their runs, and ``plan.json``.

A row is written ``Model``, ``Model:key=value,key=value`` or ``label=Model:key=value``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from recbole_mm import yaml_files
from recbole_mm.compare.jobs import Job
from recbole_mm.compare.results import PLAN, KnockOut, Plan, PlannedRow
from recbole_mm.errors import ConfigError
from recbole_mm.files import atomic_write, remove_unfinished, sha256_file

BASELINE = "SASRec"


@dataclass(frozen=True)
class RowSpec:
    """A row as the user wrote it: label, model, and its own keys as text.

    ``tuned`` names the file of settings that were searched and stand among the keys; ``knock_out``
    says what the row lacks, if it was made of another one.
    """

    label: str
    model: str
    keys: tuple[tuple[str, str], ...]
    tuned: str = ""
    knock_out: KnockOut | None = field(default=None, hash=False)


def parse_row(text: str) -> RowSpec:
    """Read ``Model``, ``Model:key=value,key=value`` or ``label=Model:key=value``.

    A comma divides two keys only if ``name=`` follows, so ``SRIM:topk=[5,10],n_layers=2`` has two.

    Raises
    ------
    ConfigError
        Something else, or a key of the comparison itself.
    """
    head, colon, tail = text.partition(":")
    label, equals, model = head.rpartition("=")
    parts = [part.partition("=") for part in re.split(r",(?=\w+=)", tail)] if colon else []
    if not model or (equals and not label) or not all(name and eq for name, eq, _ in parts):
        raise ConfigError(
            f"row {text!r} cannot be read. Expected Model, Model:key=value,key=value or "
            "label=Model:key=value, for example SRIM:n_layers=2,learning_rate=0.001"
        )
    keys = tuple((name, value) for name, _, value in parts)
    for name, _ in keys:
        if name in ("seed", "run_folder", "dataset", "model"):
            raise ConfigError(f"row {text!r} sets {name}, which the comparison itself decides.")
    return RowSpec(label or text, model, keys)


def make_plan(
    folder: Path,
    dataset: str,
    models: Sequence[str | RowSpec],
    seeds: Sequence[int],
    seeds_for: Mapping[str, int],
    *,
    config_files: Sequence[str | Path] = (),
    plugins: Sequence[str] = (),
    overrides: Mapping[str, object],
) -> list[tuple[RowSpec, list[Job]]]:
    """Return the rows and the runs of each; the parameters are those of ``compare``.

    Raises
    ------
    ConfigError
        A row, label, seed or key is wrong.
    """
    common = _common_arguments(dataset, config_files, plugins)
    specs = parse_rows(models)
    shared = {key: as_argument(value) for key, value in overrides.items()}
    for spec in specs:
        _check_row(spec, specs, dataset, config_files, shared)
    return [
        (spec, [_job(folder, spec, seed, common, shared, config_files) for seed in chosen])
        for spec, chosen in zip(specs, _seeds(specs, seeds, seeds_for), strict=True)
    ]


def parse_rows(models: Sequence[str | RowSpec]) -> list[RowSpec]:
    """Read all rows of a comparison; those that are read already stay as they are.

    Raises
    ------
    ConfigError
        There are none, or two of one name.
    """
    specs = [row if isinstance(row, RowSpec) else parse_row(row) for row in models]
    labels = [spec.label for spec in specs]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated or not specs:
        what = f"rows named twice: {', '.join(repeated)}" if repeated else "no rows"
        raise ConfigError(f'{what}. Give for example --models="SASRec SRIM wide=SRIM:n_layers=2"')
    return specs


def _seeds(
    specs: Sequence[RowSpec], seeds: Sequence[int], seeds_for: Mapping[str, int]
) -> list[list[int]]:
    """Return the seeds of each row."""
    names = {spec: (_origin(spec), spec.model) for spec in specs}
    unknown = set(seeds_for) - {name for both in names.values() for name in both}
    if unknown:
        raise ConfigError(f"seeds_for names {', '.join(sorted(unknown))}, which is no row.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be different whole numbers, got {list(seeds)}.")
    counts = [
        next((seeds_for[name] for name in names[spec] if name in seeds_for), len(seeds))
        for spec in specs
    ]
    if not all(1 <= count <= len(seeds) for count in counts):
        raise ConfigError(f"seeds_for must lie between 1 and the {len(seeds)} seeds given.")
    return [list(seeds[:count]) for count in counts]


def _origin(spec: RowSpec) -> str:
    """Return the label of a row, or of the row that it was made of."""
    return spec.knock_out["of"] if spec.knock_out else spec.label


def baseline_of(specs: Sequence[RowSpec], wanted: str | None) -> str | None:
    """Return the label of the row that the others are tested against, or None.

    Raises
    ------
    ConfigError
        There is no row of the wanted label.
    """
    labels = [spec.label for spec in specs]
    if wanted and wanted not in labels:
        raise ConfigError(f"baseline {wanted!r} is no row; the rows are {', '.join(labels)}.")
    return wanted or (BASELINE if BASELINE in labels else None)


def _check_row(
    spec: RowSpec,
    specs: Sequence[RowSpec],
    dataset: str,
    config_files: Sequence[str | Path],
    shared: Mapping[str, str],
) -> None:
    """Find a misspelt model, key or value now rather than hours later."""
    try:
        _configure(spec, dataset, config_files, shared)
    except ConfigError as error:
        hint = _per_row_hint(spec, specs, dataset, config_files, shared)
        raise ConfigError(f"row {spec.label}: {error}{hint}") from error


def _per_row_hint(
    spec: RowSpec,
    specs: Sequence[RowSpec],
    dataset: str,
    config_files: Sequence[str | Path],
    shared: Mapping[str, str],
) -> str:
    """Say how a key is given to single rows, if all get it, one cannot take it, and another can."""
    for key, text in shared.items():
        takes = [row.model for row in specs if _accepts(row, dataset, config_files, {key: text})]
        if takes and spec.model not in takes:
            return f' Give it to the rows that have it: --models="{takes[0]}:{key}={text} ..."'
    return ""


def _accepts(
    spec: RowSpec, dataset: str, config_files: Sequence[str | Path], keys: Mapping[str, str]
) -> bool:
    """Tell whether a row's model takes these keys."""
    try:
        _configure(spec, dataset, config_files, keys)
    except ConfigError:
        return False
    return True


def _configure(
    spec: RowSpec, dataset: str, config_files: Sequence[str | Path], shared: Mapping[str, str]
) -> None:
    """Read a row's keys, and those that all rows have, as its runs will; raise what is wrong."""
    from recbole_mm.config import MMConfig

    values = {
        key: yaml_files.parse_value(text, spec.label)
        for key, text in {**shared, **dict(spec.keys)}.items()
    }
    MMConfig(spec.model, dataset, config_files, values)


def _common_arguments(
    dataset: str, config_files: Sequence[str | Path], plugins: Sequence[str]
) -> list[str]:
    arguments = [f"--dataset={dataset}"]
    if config_files:
        arguments.append(f"--config_files={shlex.join(map(str, config_files))}")
    if plugins:
        arguments.append(f"--plugins={','.join(plugins)}")
    return arguments


def as_argument(value: object) -> str:
    """Return text that the command line reads back as ``value``."""
    if isinstance(value, str) and yaml_files.parse_value(value) == value:
        return value
    return json.dumps(value)


def _job(
    folder: Path,
    spec: RowSpec,
    seed: int,
    common: Sequence[str],
    shared: Mapping[str, str],
    config_files: Sequence[str | Path],
) -> Job:
    keys = {**shared, **dict(spec.keys)}
    arguments = (
        f"--model={spec.model}",
        *common,
        f"--seed={seed}",
        *(f"--{key}={text}" for key, text in keys.items()),
    )
    # The content of the configuration files counts, their names do not.
    settings = [spec.label, *arguments, *(sha256_file(file) for file in config_files)]
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    name = f"{file_name(spec.label)}-s{seed}-{digest}"
    return Job(spec.label, seed, arguments, folder / "runs" / name, folder / "logs" / f"{name}.log")


def file_name(label: str) -> str:
    """Return a row's label as a part of file names."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label)[:60]


def write_plan(
    folder: Path, plan: Sequence[tuple[RowSpec, Sequence[Job]]], baseline: str | None
) -> None:
    """Write ``plan.json``, from which the tables know rows, runs and logs."""
    rows = [_planned(folder, spec, jobs) for spec, jobs in plan]
    written: Plan = {"baseline": baseline, "rows": rows}
    remove_unfinished(folder, PLAN)
    with atomic_write(folder / PLAN) as stream:
        json.dump(written, stream, indent=1)


def _planned(folder: Path, spec: RowSpec, jobs: Sequence[Job]) -> PlannedRow:
    """Return a row as it stands in ``plan.json``."""
    row: PlannedRow = {
        "label": spec.label,
        "model": spec.model,
        "runs": [
            {
                "seed": job.seed,
                "folder": job.folder.relative_to(folder).as_posix(),
                "log": job.log.relative_to(folder).as_posix(),
                "command": job.command(),
            }
            for job in jobs
        ],
    }
    if spec.tuned:
        row["tuned"] = spec.tuned
    if spec.knock_out:
        row["knock_out"] = spec.knock_out
    return row
