"""What can be refused before torch and RecBole are imported, which takes seconds.

A misspelt key or a wrong value is answered here with the words of `recbole_mm.config.MMConfig`,
which checks again all of this, and what only the data or RecBole know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_mm import key_table, registry, rows, yaml_files
from recbole_mm.files import Plain, checked_name

COMMAND_LINE = "command line"


def check_keys(
    model: str,
    dataset: str,
    config_files: Sequence[str | Path] = (),
    overrides: Mapping[str, object] | None = None,
) -> None:
    """Check the keys that a user gives, in files and on the command line.

    Raises
    ------
    ConfigError
        An unknown model, preset or key, or a value of the wrong type or out of range.
    """
    spec = registry.resolve(model)
    checked_name(dataset, "dataset")
    layers = [(yaml_files.short(file), yaml_files.load_yaml(file)) for file in config_files]
    layers.append((COMMAND_LINE, dict(overrides or {})))
    given = {key: (value, source) for source, layer in layers for key, value in layer.items()}
    preset = str(given["preset"][0] if "preset" in given else _preset_of(dataset))
    registry.defaults_file(spec, preset)
    key_table.checked(given, key_table.known_keys(spec, preset), spec.name, preset)


def check_rows(
    asked: Sequence[rows.RowSpec],
    dataset: str,
    config_files: Sequence[str | Path],
    overrides: Mapping[str, object],
) -> None:
    """Check the keys of the rows of a comparison or a search.

    Raises
    ------
    ConfigError
        See `check_keys`; names the row.
    """

    def configure(row: rows.RowSpec, keys: Mapping[str, Plain]) -> None:
        check_keys(row.model, dataset, config_files, keys)

    rows.check_rows(asked, overrides, configure)


def _preset_of(dataset: str) -> object:
    """Return the preset that the data set's YAML asks for."""
    file = yaml_files.path("dataset", f"{dataset}.yaml")
    layer = yaml_files.load_yaml(file) if file.is_file() else {}
    return layer.get("preset", "sound")
