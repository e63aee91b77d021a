"""Several models over several seeds on one split, each run in a process of its own.

A row is written ``Model``, ``Model:key=value,key=value`` or ``label=Model:key=value``. Every run
has a folder named by label, seed and a hash of its settings, so that a comparison given again
keeps what is done, resumes what was interrupted, and runs what failed or has changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_mm import yaml_files
from recbole_mm.compare.jobs import Job, run_jobs
from recbole_mm.compare.results import PLAN, read_rows
from recbole_mm.compare.tables import write_report
from recbole_mm.errors import ConfigError
from recbole_mm.files import atomic_write, sha256_file

BASELINE = "SASRec"


@dataclass(frozen=True)
class Spec:
    """A row as the user wrote it: label, model, and its own keys as text."""

    label: str
    model: str
    keys: tuple[tuple[str, str], ...]


def parse_row(text: str) -> Spec:
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
    return Spec(label or text, model, keys)


def compare(
    dataset: str,
    models: Sequence[str],
    seeds: Sequence[int],
    *,
    seeds_for: Mapping[str, int] | None = None,
    output: str | Path | None = None,
    config_files: Sequence[str | Path] = (),
    plugins: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    jobs: int = 1,
    baseline: str | None = None,
) -> Path:
    """Run every row with every seed, as far as not done yet, and write the tables.

    Parameters
    ----------
    dataset
        Name of the data set.
    models
        Rows, see :func:`parse_row`.
    seeds
        Seeds of every row.
    seeds_for
        Number of seeds of single rows, by label or model: that many of ``seeds`` from the left.
    output
        Folder of plan, runs, logs and tables; ``saved/compare/<dataset>`` if empty.
    config_files, plugins, overrides
        Given to every run. A row's own keys win over ``overrides``.
    jobs
        Runs side by side; each gets its share of the processor's cores.
    baseline
        Label of the row the others are tested against; ``SASRec`` if there is such a row.

    Returns
    -------
    Path
        ``<output>/table.md``; ``table.csv`` is beside it. Failed runs are rows there, too.

    Raises
    ------
    ConfigError
        A row, label, seed or key is wrong (found before anything is run), or the runs did not
        rank the same rows with the same features.
    """
    folder = Path(output or Path("saved", "compare", dataset))
    common = _common_arguments(dataset, config_files, plugins)
    specs = _parse_rows(models)
    shared = {key: as_argument(value) for key, value in (overrides or {}).items()}
    for spec in specs:
        _check_row(spec, dataset, config_files, shared)
    plan = [
        (spec, [_job(folder, spec, seed, common, shared, config_files) for seed in chosen])
        for spec, chosen in zip(specs, _seeds(specs, seeds, seeds_for or {}), strict=True)
    ]
    _write_plan(folder, plan, _baseline(specs, baseline))
    run_jobs([job for _, row in plan for job in row], jobs)
    return write_report(folder)


def _parse_rows(models: Sequence[str]) -> list[Spec]:
    specs = [parse_row(text) for text in models]
    labels = [spec.label for spec in specs]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated or not specs:
        what = f"rows named twice: {', '.join(repeated)}" if repeated else "no rows"
        raise ConfigError(f'{what}. Give for example --models="SASRec SRIM wide=SRIM:n_layers=2"')
    return specs


def _seeds(
    specs: Sequence[Spec], seeds: Sequence[int], seeds_for: Mapping[str, int]
) -> list[list[int]]:
    """Return the seeds of each row."""
    unknown = set(seeds_for) - {name for spec in specs for name in (spec.label, spec.model)}
    if unknown:
        raise ConfigError(f"seeds_for names {', '.join(sorted(unknown))}, which is no row.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds must be different whole numbers, got {list(seeds)}.")
    counts = [seeds_for.get(spec.label, seeds_for.get(spec.model, len(seeds))) for spec in specs]
    if not all(1 <= count <= len(seeds) for count in counts):
        raise ConfigError(f"seeds_for must lie between 1 and the {len(seeds)} seeds given.")
    return [list(seeds[:count]) for count in counts]


def _baseline(specs: Sequence[Spec], wanted: str | None) -> str | None:
    labels = [spec.label for spec in specs]
    if wanted and wanted not in labels:
        raise ConfigError(f"baseline {wanted!r} is no row; the rows are {', '.join(labels)}.")
    return wanted or (BASELINE if BASELINE in labels else None)


def _check_row(
    spec: Spec, dataset: str, config_files: Sequence[str | Path], shared: Mapping[str, str]
) -> None:
    """Find a misspelt model, key or value now rather than hours later."""
    from recbole_mm.config import MMConfig

    values = {
        key: yaml_files.parse_value(text, spec.label)
        for key, text in {**shared, **dict(spec.keys)}.items()
    }
    try:
        MMConfig(spec.model, dataset, config_files, values)
    except ConfigError as error:
        raise ConfigError(f"row {spec.label}: {error}") from error


def _common_arguments(
    dataset: str, config_files: Sequence[str | Path], plugins: Sequence[str]
) -> list[str]:
    arguments = [f"--dataset={dataset}"]
    if config_files:
        arguments.append(f"--config_files={shlex.join(map(str, config_files))}")
    if plugins:
        arguments.append(f"--plugins={','.join(plugins)}")
    return arguments


def as_argument(value: Any) -> str:
    """Return text that the command line reads back as ``value``."""
    if isinstance(value, str) and yaml_files.parse_value(value) == value:
        return value
    return json.dumps(value)


def _job(
    folder: Path,
    spec: Spec,
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
    name = f"{re.sub(r'[^A-Za-z0-9._-]+', '_', spec.label)[:60]}-s{seed}-{digest}"
    return Job(spec.label, seed, arguments, folder / "runs" / name, folder / "logs" / f"{name}.log")


def _write_plan(
    folder: Path, plan: Sequence[tuple[Spec, Sequence[Job]]], baseline: str | None
) -> None:
    rows = [
        {
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
        for spec, jobs in plan
    ]
    with atomic_write(folder / PLAN) as stream:
        json.dump({"baseline": baseline, "rows": rows}, stream, indent=1)


def compare_command(args: Any, overrides: Mapping[str, Any]) -> int:
    """Run ``recbole-mm compare``; return 1 if a run failed, else 0.

    ``--table_only`` writes the tables again from the result files, without running anything.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    output = Path(args.output or Path("saved", "compare", args.dataset))
    if args.table_only:
        table = write_report(output, args.baseline)
    else:
        table = compare(
            args.dataset,
            args.models,
            args.seeds or [2020],
            seeds_for=args.seeds_for,
            output=output,
            config_files=args.config_files,
            plugins=args.plugins,
            overrides=overrides,
            jobs=args.jobs,
            baseline=args.baseline,
        )
    print(table.read_text(encoding="utf-8"))
    print(f"written to {table} and {table.with_suffix('.csv')}")
    return int(any(row.failed for row in read_rows(output)[0]))
