"""The table of configuration keys: type, range, choices and help of each.

Sources, the first one wins: ``properties/keys.yaml`` (keys of every run, and the RecBole keys in
common use), the settings class of a model of ours, a model's YAML (types from the defaults and from
RecBole's ``# (int) …`` comments), and RecBole's YAML files and argument lists.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from recbole_mm import registry, stock, yaml_files
from recbole_mm.errors import ConfigError
from recbole_mm.keys import TYPES, Key, type_fault
from recbole_mm.spec import ModelSpec

_WHERE_KEYS_STAND = "`--explain` lists the keys of a model and data set."
_COMMENT = re.compile(r"^(\w+)\s*:[^#\n]*#\s*\(([^)\n]*)\)\s*(.*?)\s*$", re.MULTILINE)


def from_table(name: str, row: Mapping[str, Any], source: str = "keys.yaml") -> Key:
    """Build a key from its row in ``keys.yaml``.

    Raises
    ------
    ConfigError
        The row holds a field or a type that is not known.
    """
    # YAML reads the word null as "no value", also where it is a field's name.
    fields = {"null" if part is None else part: value for part, value in row.items()}
    types = _as_tuple(fields.pop("type", ()))
    items = _as_tuple(fields.pop("items", ()))
    choices = tuple(fields.pop("choices", ()))
    unknown = set(fields) - set(Key.__dataclass_fields__) | set(types + items) - set(TYPES)
    if unknown:
        raise ConfigError(f"{source}: the row of '{name}' holds unknown {sorted(unknown)}")
    return Key(name, types=types, items=items, choices=choices, **fields)


def _as_tuple(value: object) -> tuple[Any, ...]:
    """Return a list as a tuple, and a single value as a tuple of one."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


@cache
def _declared() -> dict[str, dict[str, Any]]:
    """Read ``keys.yaml``: section -> key -> row."""
    return yaml_files.load_yaml(yaml_files.path("keys.yaml"))


def section(name: str) -> dict[str, Key]:
    """Return one section of ``keys.yaml``, ``overall`` or ``shared``."""
    return {key: from_table(key, row) for key, row in _declared()[name].items()}


def removed(model: str) -> dict[str, str]:
    """Return the keys that a model once had, and what became of each."""
    return dict(_declared()["removed"].get(model, {}))


def inferred(file: Path) -> dict[str, Key]:
    """Return the keys of a YAML of defaults, with types from values and ``# (type)`` comments.

    An int default accepts only ints unless the comment says float; a ``~`` without such a comment
    accepts anything.
    """
    comments = {
        name: (words, text) for name, words, text in _COMMENT.findall(file.read_text("utf-8"))
    }
    return {
        name: _infer(name, value, *comments.get(name, ("", "")))
        for name, value in yaml_files.load_yaml(file).items()
    }


def _infer(name: str, value: object, comment: str, text: str) -> Key:
    """Return the key that accepts the type of a default and the types named in its comment."""
    words = set(re.findall(r"[a-z]+", comment.lower()))
    named = {"list"} if "list of" in comment else words & set(TYPES)
    if value is None:
        return Key(name, types=tuple(t for t in TYPES if t in named), null=True, help=text)
    types = {kind for kind in TYPES if not type_fault(value, (kind,))} | named
    if isinstance(value, int) and "float" in types and "float" not in named:
        types.discard("float")
    return Key(name, types=tuple(t for t in TYPES if t in types), null="none" in words, help=text)


def _recbole_yaml(*parts: str) -> Path:
    """Return a file of RecBole's own ``properties/``."""
    return Path(str(stock.folder()), "properties", *parts)


def _read_in_source(spec: ModelSpec) -> dict[str, Key]:
    """Return the keys a stock model reads from its config, some of which its YAML leaves out."""
    found = stock.source_file(spec.name)
    source = found[1].read_text(encoding="utf-8") if found else ""
    names = set(re.findall(r"config\[\"([a-z]\w*)\"\]", source)) - {"device"}
    return {name: Key(name, null=True) for name in names}


def model_keys(spec: ModelSpec, preset: str = "sound") -> dict[str, Key]:
    """Return the keys that belong to one model: from its YAML, and from its settings.

    A preset that is a class of its own may leave no choice of some of the model's keys.
    """
    if spec.origin == "recbole":
        file = _recbole_yaml("model", f"{spec.name}.yaml")
        shared = section("shared")
        rows = inferred(file) if file.is_file() else {}
        return {name: _narrow(key, shared.get(name)) for name, key in rows.items()}
    defaults = registry.defaults_file(spec)
    keys = inferred(defaults) if defaults is not None else {}
    own = keys_of_settings(spec, preset)
    left_out = set(keys_of_settings(spec)) - set(own)
    return {**{name: key for name, key in keys.items() if name not in left_out}, **own}


def keys_of_settings(spec: ModelSpec, preset: str = "sound") -> dict[str, Key]:
    """Return the keys of a model's settings class; empty for a model without one."""
    settings = spec.load_settings(preset)
    return settings.keys() if settings else {}


def _narrow(key: Key, shared: Key | None) -> Key:
    """Return the shared key where it describes the same thing as the model's own default."""
    fits = shared is not None and (not key.types or set(key.types) & set(shared.types))
    return replace(shared, null=key.null) if shared is not None and fits else key


def known_keys(spec: ModelSpec, preset: str = "sound") -> dict[str, Key]:
    """Return every key a user may set for a model and preset, without importing RecBole."""
    keys = _read_in_source(spec)
    keys.update({name: Key(name, null=True) for name in stock.argument_names()})
    for parts in (("overall.yaml",), ("dataset", "sample.yaml")):
        rows = inferred(_recbole_yaml(*parts))
        # RecBole's own YAML files write ~ for "not used" here and there, whatever the type.
        keys.update({name: replace(key, null=True) for name, key in rows.items()})
    return {
        **keys,
        **model_keys(spec, preset),
        **section("overall"),
        **keys_of_settings(spec, preset),
    }


def checked(
    given: Mapping[str, tuple[object, str]], known: Mapping[str, Key], model: str, preset: str
) -> dict[str, object]:
    """Return the values of keys, each checked against what its key accepts.

    Parameters
    ----------
    given
        ``{key: (value, source)}``.
    known
        What `known_keys` returns.
    model, preset
        For the message.

    Raises
    ------
    ConfigError
        A key is unknown, or a value is not accepted.
    """
    for key, (_, source) in given.items():
        if key not in known:
            raise unknown_key(key, source, known, model, preset)
    values = {key: value for key, (value, _) in given.items()}
    if isinstance(parts := values.get("score_parts"), str):
        # As names of models are given to compare: --score_parts="transitions own_items".
        values["score_parts"] = parts.split()
    return {key: known[key].check(value, given[key][1]) for key, value in values.items()}


def models_with(key: str) -> list[str]:
    """Return the models that have a key, among ours, the registered ones and RecBole's."""
    return [name for name in registry.available_models() if key in _names_of(name)]


def _names_of(model: str) -> set[str]:
    """Return the names of a model's own keys, without importing it."""
    spec = registry.ours(model)
    names = set(keys_of_settings(spec)) if spec else set()
    for file in (_recbole_yaml("model", f"{model}.yaml"), registry.known_defaults(model)):
        if file is not None and file.is_file():
            names |= set(yaml_files.load_yaml(file))
    return names


def unknown_key(
    key: str, source: str, known: Iterable[str], model: str, preset: str = "sound"
) -> ConfigError:
    """Return the error for a key that nothing reads: source, nearest keys, models that have it."""
    if key in _declared()["instead"]:
        return ConfigError(f"{source}: '{key}' is not used here: {_declared()['instead'][key]}")
    text = f"{source}: unknown key '{key}'."
    if key in removed(model):
        return ConfigError(f"{source}: {model} has no key '{key}' any more: {removed(model)[key]}")
    owners = models_with(key)
    if model in owners:
        return ConfigError(
            f"{source}: {key} is not accepted; with preset: {preset} the code decides it. Leave it "
            f"out, or choose another preset of {model}."
        )
    by_lower = {name.lower(): name for name in known}
    wanted = key.lower().replace("-", "_")
    close = difflib.get_close_matches(wanted, by_lower, n=3, cutoff=0.6)
    if owners:
        text += f" It is a key of {', '.join(owners[:5])}, and {model} does not read it."
    if close:
        text += f" Did you mean {' or '.join(by_lower[name] for name in close)}?"
    return ConfigError(text if owners or close else text + f" {_WHERE_KEYS_STAND}")
