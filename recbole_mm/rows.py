"""Rows of a comparison as they are asked for, before any run of them.

A row is written ``Model``, ``Model:key=value,key=value`` or ``label=Model:key=value``. Neither
torch nor RecBole is imported here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from recbole_mm import yaml_files
from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain


class KnockOut(TypedDict):
    """What a row lacks: the row it was made of, the modality, and what was done to it."""

    of: str
    modality: str
    how: str


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


def as_argument(value: object) -> str:
    """Return text that the command line reads back as ``value``."""
    if isinstance(value, str) and yaml_files.parse_value(value) == value:
        return value
    return json.dumps(value)


# Reads a row's model and keys as its runs will, and raises what is wrong.
Configure = Callable[[RowSpec, Mapping[str, Plain]], object]


def check_rows(
    specs: Sequence[RowSpec], overrides: Mapping[str, object], configure: Configure
) -> None:
    """Find a misspelt model, key or value now rather than hours later.

    Parameters
    ----------
    specs
        The rows.
    overrides
        Keys that all of them have; a row's own keys win.
    configure
        Raises a ConfigError for a row whose keys are wrong.

    Raises
    ------
    ConfigError
        Names the row, and rows that could take a key that it cannot.
    """
    shared = {key: as_argument(value) for key, value in overrides.items()}
    for spec in specs:
        try:
            configure(spec, _keys(spec, shared))
        except ConfigError as error:
            hint = _per_row_hint(spec, specs, shared, configure)
            raise ConfigError(f"row {spec.label}: {error}{hint}") from error


def _per_row_hint(
    spec: RowSpec, specs: Sequence[RowSpec], shared: Mapping[str, str], configure: Configure
) -> str:
    """Say how a key is given to single rows, if all get it, one cannot take it, and another can."""
    for key, text in shared.items():
        takes = [row.model for row in specs if _accepts(row, {key: text}, configure)]
        if takes and spec.model not in takes:
            return f' Give it to the rows that have it: --models="{takes[0]}:{key}={text} ..."'
    return ""


def _accepts(spec: RowSpec, keys: Mapping[str, str], configure: Configure) -> bool:
    """Tell whether a row's model takes these keys."""
    try:
        configure(spec, _keys(spec, keys))
    except ConfigError:
        return False
    return True


def _keys(spec: RowSpec, shared: Mapping[str, str]) -> dict[str, Plain]:
    """Return a row's keys, and those that all rows have."""
    return {
        key: yaml_files.parse_value(text, spec.label)
        for key, text in {**shared, **dict(spec.keys)}.items()
    }
