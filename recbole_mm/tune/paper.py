"""``recbole-mm paper``: a paper's table or figure, on those of its data sets that are there."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_mm import yaml_files
from recbole_mm.compare.execute import compare
from recbole_mm.compare.results import read_rows
from recbole_mm.data.partitions import datasets_in
from recbole_mm.errors import DataError
from recbole_mm.files import Plain
from recbole_mm.tune.paper_spec import Paper, Study, axis, paper_of, without
from recbole_mm.tune.paper_table import write_paper
from recbole_mm.tune.sweep import sweep

logger = logging.getLogger(__name__)


def paper(
    name: str,
    study: str | None = None,
    *,
    datasets: Sequence[str] = (),
    seeds: Sequence[int] = (2020,),
    output: str | Path | None = None,
    config_files: Sequence[str | Path] = (),
    plugins: Sequence[str] = (),
    overrides: Mapping[str, Plain] | None = None,
    jobs: int = 1,
) -> Path:
    """Make a table or figure of a paper, as far as not done yet.

    Parameters
    ----------
    name, study
        The paper, and the study of it; its first one if empty.
    datasets
        Other data sets than the paper's.
    seeds, config_files, plugins, overrides, jobs
        As in `recbole_mm.compare.execute.compare`; ``overrides`` win over the paper's protocol.
    output
        Folder of everything; ``saved/paper/<name>/<study>`` if empty.

    Returns
    -------
    Path
        ``<output>/paper.md`` in the paper's layout; a folder for each data set is beside it.

    Raises
    ------
    ConfigError
        There is no such paper or study, or a key is wrong.
    DataError
        None of the data sets is there; names the commands that make them.
    """
    found = paper_of(name)
    chosen, what = found.study(study)
    folder = Path(output or Path("saved", "paper", name, chosen))
    keys = {**found.protocol, **(overrides or {})}
    there, missing = _parted(found, datasets or list(found.datasets), keys.get("data_path"))
    for line in missing:
        logger.warning("%s", line)
    if not there:
        raise DataError(f"{found.title}: no data set is there. {'; '.join(missing)}")
    for dataset in there:
        _one(
            found, what, dataset, folder / dataset, seeds=seeds, config_files=config_files,
            plugins=plugins, overrides=keys, jobs=jobs,
        )  # fmt: skip
    return write_paper(folder, found, what, there, missing)


def _parted(found: Paper, datasets: Sequence[str], data_path: Plain) -> tuple[list[str], list[str]]:
    """Return the data sets that are there, and a line for each that is not."""
    root = Path(str(data_path)) if data_path else yaml_files.default_data_path()
    known = datasets_in(root)
    there = [name for name in datasets if name in known]
    missing = [
        f"{name} is not in {root}: {found.datasets[name]['make']}"
        if name in found.datasets
        else f"{name} is not in {root}: recbole-mm prepare makes data sets"
        for name in datasets
        if name not in there
    ]
    return there, missing


def _one(
    found: Paper, study: Study, dataset: str, folder: Path, *, overrides: Mapping[str, Plain],
    seeds: Sequence[int], config_files: Sequence[str | Path], plugins: Sequence[str], jobs: int,
) -> None:  # fmt: skip
    """Make a study on one data set."""
    rows, swept = found.rows(study, dataset), axis(study)
    if swept is None:
        compare(
            dataset, rows, seeds, output=folder, config_files=config_files, plugins=plugins,
            overrides=overrides, jobs=jobs,
        )  # fmt: skip
        return
    own = without(rows[0], [swept.key])
    sweep(
        dataset, rows[0].model, [swept], seeds, output=folder, config_files=config_files,
        plugins=plugins, overrides={**own, **overrides}, jobs=jobs,
    )  # fmt: skip


def paper_command(args: argparse.Namespace, overrides: Mapping[str, Plain]) -> int:
    """Run ``recbole-mm paper``; return 1 if a run failed, else 0."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if args.list:
        print(listed(paper_of(args.name)))
        return 0
    if args.data_path:
        overrides = {**overrides, "data_path": args.data_path}
    table = paper(
        args.name, args.study, datasets=args.datasets, seeds=args.seeds or [2020],
        output=args.output, config_files=args.config_files, plugins=args.plugins,
        overrides=overrides, jobs=args.jobs,
    )  # fmt: skip
    print(table.read_text(encoding="utf-8"))
    print(f"written to {table}; a report for each data set is in the folders beside it")
    plans = table.parent.glob("*/plan.json")
    return int(any(row.failed for plan in plans for row in read_rows(plan.parent)[0]))


def listed(found: Paper) -> str:
    """Return the studies and data sets of a paper."""
    studies = [f"  {name:<12} {study['title']}" for name, study in found.studies.items()]
    data = [f"  {name:<20} {one['make']}" for name, one in found.datasets.items()]
    return "\n".join([f"{found.title}: --study=", *studies, "data sets:", *data])
