"""Rows that take the settings which a search has found best, from the folder of that search."""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from dataclasses import replace
from pathlib import Path

from recbole_mm.compare.plan import file_name
from recbole_mm.errors import ConfigError
from recbole_mm.rows import RowSpec, as_argument
from recbole_mm.yaml_files import load_yaml

logger = logging.getLogger(__name__)


def tuned_rows(rows: Sequence[RowSpec], folder: str | Path, given: Container[str]) -> list[RowSpec]:
    """Give each row the best settings of its label, or else of its model.

    Parameters
    ----------
    rows
        The rows of a comparison. Their own keys win.
    folder
        Output folder of ``recbole-mm tune``. A row without a file there stays as it is, and a
        warning names it.
    given
        Keys that all runs get from the command line; they win, too.

    Raises
    ------
    ConfigError
        The folder has no file of any row, or one of another model.
    """
    found = [_tuned(row, Path(folder), given) for row in rows]
    left = [row.label for row in found if not row.tuned]
    if len(left) == len(rows):
        names = ", ".join(f"{file_name(row.label)}.yaml" for row in rows)
        raise ConfigError(
            f"--tuned={folder} has none of {names}; expected the --output folder of "
            "recbole-mm tune with these models."
        )
    if left:
        logger.warning("not tuned, as %s has no file of them: %s", folder, ", ".join(left))
    return found


def _tuned(row: RowSpec, folder: Path, given: Container[str]) -> RowSpec:
    for name in (file_name(row.label), row.model):
        if (file := folder / f"{name}.yaml").is_file():
            break
    else:
        return row
    settings = load_yaml(file)
    model = settings.pop("model", row.model)
    if model != row.model:
        raise ConfigError(f"{file} holds settings of {model}; the row {row.label} is {row.model}.")
    own = dict(row.keys)
    searched = {key: value for key, value in settings.items() if key not in own}
    keys = [(key, as_argument(value)) for key, value in searched.items() if key not in given]
    return replace(row, keys=(*keys, *row.keys), tuned=str(file))
