"""What a comparison consists of: the runs of its rows, and ``plan.json``."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_mm.compare.jobs import Job
from recbole_mm.compare.results import PLAN, Plan, PlannedRow
from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError
from recbole_mm.files import atomic_write, remove_unfinished, sha256_file
from recbole_mm.rows import RowSpec, as_argument, check_rows, parse_rows

BASELINE = "SASRec"


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
    check_rows(specs, overrides, lambda row, keys: MMConfig(row.model, dataset, config_files, keys))
    shared = {key: as_argument(value) for key, value in overrides.items()}
    return [
        (spec, [_job(folder, spec, seed, common, shared, config_files) for seed in chosen])
        for spec, chosen in zip(specs, _seeds(specs, seeds, seeds_for), strict=True)
    ]


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


def _common_arguments(
    dataset: str, config_files: Sequence[str | Path], plugins: Sequence[str]
) -> list[str]:
    arguments = [f"--dataset={dataset}"]
    if config_files:
        arguments.append(f"--config_files={shlex.join(map(str, config_files))}")
    if plugins:
        arguments.append(f"--plugins={','.join(plugins)}")
    return arguments


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
