"""A sweep: one model with every value of a key, or every pair of values of two keys.

It is a comparison whose rows differ in these keys, so that what is done is kept, and a command
given again goes on.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_mm.compare.execute import compare
from recbole_mm.compare.plan import file_name
from recbole_mm.compare.report import write_report
from recbole_mm.compare.results import read_rows
from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain
from recbole_mm.rows import RowSpec, as_argument
from recbole_mm.tune.sweep_report import PICTURE, Axis, read_axes, write_axes, write_sweep
from recbole_mm.yaml_files import parse_value

_RESERVED = ("seed", "run_folder", "dataset", "model")


def sweep(
    dataset: str,
    model: str,
    axes: Sequence[Axis],
    seeds: Sequence[int],
    *,
    output: str | Path | None = None,
    config_files: Sequence[str | Path] = (),
    plugins: Sequence[str] = (),
    overrides: Mapping[str, Plain] | None = None,
    jobs: int = 1,
) -> Path:
    """Run a model with every value of one key or two, as far as not done yet, and write the tables.

    Parameters
    ----------
    dataset, model
        Names.
    axes
        One key with its values, or two.
    seeds
        Seeds of every setting.
    output
        Folder of everything; ``saved/sweep/<dataset>/<model>-<keys>`` if empty.
    config_files, plugins, overrides, jobs
        As in `recbole_mm.compare.execute.compare`.

    Returns
    -------
    Path
        ``<output>/sweep.md``; ``sweep.csv`` and ``sweep.png`` stand beside it, and the files of the
        comparison.

    Raises
    ------
    ConfigError
        A key or value is wrong; found before anything is run.
    DataError
        There is no such data set.
    """
    _check(axes, overrides or {})
    folder = Path(output or default_folder(dataset, model, axes))
    rows = rows_of(model, axes)
    compare(
        dataset, rows, seeds, output=folder, config_files=config_files, plugins=plugins,
        overrides=overrides, jobs=jobs,
    )  # fmt: skip
    write_axes(folder, model, axes)
    return write_sweep(folder)


def default_folder(dataset: str, model: str, axes: Sequence[Axis]) -> Path:
    """Return the folder of a sweep that names none."""
    return Path(
        "saved", "sweep", dataset, "-".join([file_name(model), *(axis.key for axis in axes)])
    )


def rows_of(model: str, axes: Sequence[Axis]) -> list[RowSpec]:
    """Return one row per setting, labelled ``n_layers=1`` or ``n_layers=1, n_heads=2``."""
    settings = itertools.product(*([(axis.key, text) for text in axis.values] for axis in axes))
    return [RowSpec(label_of(keys), model, keys) for keys in settings]


def label_of(keys: Sequence[tuple[str, str]]) -> str:
    """Return the label of a setting."""
    return ", ".join(f"{key}={text}" for key, text in keys)


def axis_of(key: str, values: Sequence[str]) -> Axis:
    """Return an axis from the command line, its values written as the settings store them."""
    return Axis(key, tuple(as_argument(parse_value(text, key)) for text in values))


def _check(axes: Sequence[Axis], overrides: Mapping[str, Plain]) -> None:
    """Refuse what makes no sweep."""
    for axis in axes:
        if axis.key in _RESERVED:
            raise ConfigError(f"--key={axis.key}: a sweep itself decides it; name another key")
        if axis.key in overrides:
            raise ConfigError(f"--{axis.key} is given and swept; leave one of them out")
        if not axis.values or len(set(axis.values)) < len(axis.values):
            raise ConfigError(
                f"the values of {axis.key} must be different ones, got "
                f"'{' '.join(axis.values)}'; write --values=\"0 1 2\""
            )
    keys = [axis.key for axis in axes]
    if not keys or len(keys) > 2 or len(set(keys)) < len(keys):
        raise ConfigError(f"a sweep has one key, or two different ones, got '{' '.join(keys)}'")


def _axes(args: argparse.Namespace) -> list[Axis]:
    """Return the axes that the command line names."""
    if not args.key:
        raise ConfigError('which key? Give for example --key=n_layers --values="0 1 2"')
    if bool(args.key2) != bool(args.values2):
        raise ConfigError("--key2 and --values2 belong together; give both or none")
    axes = [axis_of(args.key, args.values)]
    return axes + ([axis_of(args.key2, args.values2)] if args.key2 else [])


def sweep_command(args: argparse.Namespace, overrides: Mapping[str, Plain]) -> int:
    """Run ``recbole-mm sweep``; return 1 if a run failed, else 0."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if args.table_only:
        folder = Path(args.output) if args.output else _named(args)
        read_axes(folder)  # a folder of something else is answered before anything is written
        write_report(folder)
        table = write_sweep(folder)
    else:
        if not args.model:
            raise ConfigError("which model? Give --model, for example --model=SRIM")
        table = sweep(
            args.dataset, args.model, _axes(args), args.seeds or [2020], output=args.output,
            config_files=args.config_files, plugins=args.plugins, overrides=overrides,
            jobs=args.jobs,
        )  # fmt: skip
    print(table.read_text(encoding="utf-8"))
    print(f"written to {table}, .csv and {PICTURE}")
    return int(any(row.failed for row in read_rows(table.parent)[0]))


def _named(args: argparse.Namespace) -> Path:
    return default_folder(args.dataset, args.model or "", _axes(args))
