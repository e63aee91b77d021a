"""Finding and reading YAML: the shipped ``properties/`` folder, user files, single values.

Nothing here imports torch or RecBole, so that the command line answers ``--help`` at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain

PACKAGE = Path(__file__).resolve().parent


class PlainLoader(yaml.SafeLoader):
    """Loader of plain values: RecBole's ``1e-3`` is a float, dates stay text, no repeated keys.

    A class of its own, because RecBole changes ``yaml.FullLoader`` for the whole process.
    """

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        """Build a mapping, refusing a key that stands there twice."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value != "<<":
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None,
                        None,
                        f"key '{key_node.value}' stands there twice",
                        key_node.start_mark,
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a point and a sign in "1.0e-3"; people and RecBole write "1e-3".
PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in PlainLoader.yaml_implicit_resolvers.items()
}


def path(*parts: str) -> Path:
    """Return a path inside ``properties/`` (of the clone, or of the installed wheel)."""
    for folder in (PACKAGE / "properties", PACKAGE.parent / "properties"):
        if (folder / "overall.yaml").is_file():
            return folder.joinpath(*parts)
    raise ConfigError(
        f"the folder properties/ with overall.yaml is neither in {PACKAGE} nor in "
        f"{PACKAGE.parent}; install recbole_mm again or restore the folder"
    )


def default_data_path() -> Path:
    """Return the folder of the data sets: ``./atomic_data`` unless only the clone has one."""
    here, clone = Path("atomic_data"), PACKAGE.parent / "atomic_data"
    return clone if clone.is_dir() and not here.is_dir() else here


def default_feature_path(folder: Path, dataset: str) -> Path:
    """Return where a data set's feature files go: beside the data, or into ``./feature_cache``.

    A folder without any write permission is left alone, even by root, to whom it is open.
    """
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    writable = os.access(there, os.W_OK) and there.stat().st_mode & 0o222
    return folder if writable else Path("feature_cache") / dataset


def short(file: str | Path) -> str:
    """Return a file's name for messages: relative to the clone or wheel where it lies in it."""
    full = Path(file)
    for root in (PACKAGE.parent, PACKAGE):
        if full.is_absolute() and full.is_relative_to(root):
            return str(full.relative_to(root))
    return str(file)


def load_yaml(file: str | Path) -> dict[str, Any]:
    """Read a YAML file whose top level is ``key: value``; an empty file gives ``{}``.

    Raises
    ------
    ConfigError
        The file is missing or not readable as plain YAML (tags such as ``!!python/object`` are
        refused), a key is repeated, or the top level is not a mapping.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {file}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration file {file}: {error}") from None
    content = _parse(text, short(file))
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{short(file)}: expected lines 'key: value', got {type(content).__name__}"
        )
    for key in content:
        if not isinstance(key, str):
            raise ConfigError(f"{short(file)}: the key {key!r} must be text; put it in quotes")
    return content


def _parse(text: str, source: str) -> Plain:
    """Parse YAML text into plain values, or raise a ConfigError that names the source and line."""
    try:
        return cast(Plain, yaml.load(text, Loader=PlainLoader))
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(
            f"{source}{_line(error)}: {error.problem}; only plain YAML values are accepted"
        ) from None
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{source}{_line(error)}: not valid YAML: {problem}") from None
    except ValueError as error:
        raise ConfigError(f"{source}: a value cannot be read: {error}") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply; write plain values and lists") from None


def _line(error: yaml.YAMLError) -> str:
    """Return ', line 3, column 7' of a YAML error, or nothing where it carries no place."""
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def parse_value(text: str, source: str = "command line") -> Plain:
    """Read one value as YAML: ``5`` int, ``1e-3`` float, ``[1, 2]`` list, ``true`` bool, else text.

    Text that is no YAML, such as RecBole's interval ``[5,inf)``, stays text.
    """
    try:
        yaml.compose(text, Loader=PlainLoader)
    except yaml.YAMLError:
        return text
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply; write plain values and lists") from None
    return _parse(text, source)


def load_files(files: Sequence[str | Path]) -> dict[str, Any]:
    """Read several files into one mapping; later files win, key by key of the top level."""
    merged: dict[str, Any] = {}
    for file in files:
        merged.update(load_yaml(file))
    return merged
