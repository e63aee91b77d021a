"""Several models over several seeds on one split, each run in a process of its own.

Every run has a folder named by label, seed and a hash of its settings, so that a comparison given
again keeps what is done, resumes what was interrupted, and runs what failed or has changed.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_mm.compare.jobs import Job, run_jobs
from recbole_mm.compare.knock_out import knocked_out
from recbole_mm.compare.plan import baseline_of, make_plan, write_plan
from recbole_mm.compare.report import PAGE, write_report
from recbole_mm.compare.results import read_rows
from recbole_mm.compare.tuned import tuned_rows
from recbole_mm.config import MMConfig
from recbole_mm.data.loading import inter_file
from recbole_mm.errors import MMError
from recbole_mm.prepare import ensure_dataset
from recbole_mm.rows import RowSpec, parse_rows
from recbole_mm.run.prepared import ready_files
from recbole_mm.yaml_files import parse_value

logger = logging.getLogger(__name__)


def compare(
    dataset: str,
    models: Sequence[str | RowSpec],
    seeds: Sequence[int],
    *,
    seeds_for: Mapping[str, int] | None = None,
    output: str | Path | None = None,
    config_files: Sequence[str | Path] = (),
    plugins: Sequence[str] = (),
    overrides: Mapping[str, object] | None = None,
    jobs: int = 1,
    baseline: str | None = None,
    tuned: str | Path | None = None,
    knock_out: str | None = None,
) -> Path:
    """Run every row with every seed, as far as not done yet, and write the tables.

    Parameters
    ----------
    dataset
        Name of the data set.
    models
        Rows, see :func:`recbole_mm.rows.parse_row`.
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
        Label of the row the others are tested against; ``SASRec`` if there is such a row, else
        the floor.
    tuned
        Output folder of ``recbole-mm tune``: rows take their best settings from there.
    knock_out
        ``modalities`` adds rows with each modality left out, shuffled and random.

    Returns
    -------
    Path
        ``<output>/table.md``; ``table.csv``, ``table.tex`` and ``report.html`` are beside it.
        Failed runs are rows there, too.

    Raises
    ------
    ConfigError
        A row, label, seed or key is wrong (found before anything is run), or the runs did not
        rank the same rows with the same features.
    DataError
        There is no such data set (found before anything is run).
    """
    folder = Path(output or Path("saved", "compare", dataset))
    rows = parse_rows(models)
    if tuned is not None:
        rows = tuned_rows(rows, tuned, overrides or {})
    if knock_out is not None:
        rows += knocked_out(
            rows, knock_out, lambda row: _config(row, dataset, config_files, overrides or {})
        )
    plan = make_plan(
        folder,
        dataset,
        rows,
        seeds,
        seeds_for or {},
        config_files=config_files,
        plugins=plugins,
        overrides=overrides or {},
    )
    against = baseline_of([row for row, _ in plan], baseline)
    configs = [_config(row, dataset, config_files, overrides or {}) for row, _ in plan]
    for config in configs:
        ensure_dataset(config["dataset"], Path(config["data_path"]))
        inter_file(config["dataset"], Path(config["data_path"]))
    write_plan(folder, plan, against)
    _encode_first(plan, configs)
    run_jobs([job for _, planned in plan for job in planned], jobs)
    return write_report(folder)


def _config(
    row: RowSpec, dataset: str, config_files: Sequence[str | Path], overrides: Mapping[str, object]
) -> MMConfig:
    """Return the configuration of a row's runs, but for the seed."""
    own = {key: parse_value(text, row.label) for key, text in row.keys}
    return MMConfig(row.model, dataset, config_files, {**overrides, **own})


def _encode_first(
    plan: Sequence[tuple[RowSpec, Sequence[Job]]], configs: Sequence[MMConfig]
) -> None:
    """Make the feature files that rows need, before runs side by side ask for them.

    What is wrong with a row's features is left for its run to say.
    """
    for (row, jobs), config in zip(plan, configs, strict=True):
        if all(job.pending() is None for job in jobs):
            continue
        try:
            ready_files(config)
        except MMError as error:
            logger.debug("%s: %s", row.label, error)


def compare_command(args: argparse.Namespace, overrides: Mapping[str, object]) -> int:
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
            tuned=args.tuned,
            knock_out=args.knock_out,
        )
    print(table.read_text(encoding="utf-8"))
    print(f"written to {table}, .csv and .tex; to look at: {table.with_name(PAGE)}")
    return int(any(row.failed for row in read_rows(output)[0]))
