"""The table of configuration keys: type, range, choices and help of each, and the check of values.

Three sources, the first one wins: ``properties/keys.yaml`` (our keys and the RecBole keys in common
use), the model's own YAML (types from the defaults and from RecBole's ``# (int) …`` comments), and
RecBole's YAML files and argument lists.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from recbole_mm import registry, stock, yaml_files
from recbole_mm.errors import ConfigError

_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "list": (list, tuple),
    "dict": (dict,),
}
_COMMENT = re.compile(r"^(\w+)\s*:[^#\n]*#\s*\(([^)\n]*)\)\s*(.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Key:
    """What one configuration key accepts.

    Attributes
    ----------
    types
        Names out of int, float, bool, str, list, dict; empty accepts anything.
    items
        Types of the members of a list. Ranges and choices hold for the members then.
    min, max, above, below
        Range; ``above`` and ``below`` exclude the limit itself.
    choices
        The only values accepted; empty for no such limit.
    length
        Number of members of a list, or None.
    null
        Whether ``~`` is accepted.
    ignore_case
        Whether choices are matched without regard to case (the choice's spelling is kept).
    """

    name: str
    types: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] = ()
    length: int | None = None
    null: bool = False
    ignore_case: bool = False
    help: str = field(default="", compare=False)

    def expected(self) -> str:
        """Return the accepted values in words, such as ``int, at least 1``."""
        words = " or ".join(self.types) or "any value"
        if self.items:
            words += f" of {' or '.join(self.items)}"
        if self.length is not None:
            words += f", {self.length} members"
        limits = (("at least", self.min), ("above", self.above), ("at most", self.max))
        for text, limit in (*limits, ("below", self.below)):
            words += f", {text} {limit:g}" if limit is not None else ""
        if self.choices:
            words += f", one of: {', '.join(_show(choice) for choice in self.choices)}"
        return words + (", or ~ (none)" if self.null else "")

    def check(self, value: Any, source: str) -> Any:
        """Return the value, with ints made floats and choices spelt as declared where asked for.

        Raises
        ------
        ConfigError
            Wrong type, out of range, or not among the choices; names key, value and source.
        """
        if self.null and (value is None or (value == "None" and "str" not in self.types)):
            return None
        if not self.types:
            return value
        fault = _type_fault(value, self.types)
        if fault:
            raise self._error(value, source)
        if isinstance(value, (list, tuple)):
            return self._check_members(value, source)
        return self._check_scalar(value, self.types, value, source)

    def _check_members(self, value: Any, source: str) -> list[Any]:
        """Check each member of a list."""
        if self.length is not None and len(value) != self.length:
            raise self._error(value, source)
        if any(self.items and _type_fault(member, self.items) for member in value):
            raise self._error(value, source)
        return [self._check_scalar(member, self.items, value, source) for member in value]

    def _check_scalar(self, value: Any, types: tuple[str, ...], whole: Any, source: str) -> Any:
        """Check range and choices of one value; ``whole`` is what the message shows."""
        if self.choices:
            value = self._choice(value, whole, source)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        inside = (
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        if not inside:
            raise self._error(whole, source)
        return float(value) if "float" in types and "int" not in types else value

    def _choice(self, value: Any, whole: Any, source: str) -> Any:
        """Return the choice that equals the value."""
        for choice in self.choices:
            same = value == choice and isinstance(value, bool) == isinstance(choice, bool)
            if same or (self.ignore_case and str(value).lower() == str(choice).lower()):
                return choice
        raise self._error(whole, source)

    def _error(self, value: Any, source: str) -> ConfigError:
        """Return the error that names key, value, source and what is accepted."""
        text = f"{source}: {self.name} = {_show(value)} is not accepted; expected {self.expected()}"
        return ConfigError(f"{text}. {self.help}" if self.help else text)


def _show(value: Any) -> str:
    """Return a value as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "~", True: "true", False: "false"}[value]
    return repr(value)


def _type_fault(value: Any, types: tuple[str, ...]) -> bool:
    """Return whether a value has none of the types (a bool is no int; nan is no number)."""
    if isinstance(value, bool):
        return "bool" not in types
    if isinstance(value, float) and value != value:
        return True
    return not any(isinstance(value, _TYPES[name]) for name in types)


def plain(value: Any, key: str) -> Any:
    """Return a value as YAML would give it: no paths, tuples or NumPy scalars.

    Raises
    ------
    ConfigError
        The value is, or holds, an object that YAML cannot write.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [plain(member, key) for member in value]
    if isinstance(value, Mapping):
        return {str(name): plain(member, key) for name, member in value.items()}
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        return value.item()
    raise ConfigError(f"{key}: expected a plain value (number, text, list, dict), got {value!r}")


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
    unknown = set(fields) - set(Key.__dataclass_fields__) | set(types + items) - set(_TYPES)
    if unknown:
        raise ConfigError(f"{source}: the row of '{name}' holds unknown {sorted(unknown)}")
    return Key(name, types=types, items=items, choices=choices, **fields)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """Return a list as a tuple, and a single value as a tuple of one."""
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


@cache
def _declared() -> dict[str, dict[str, Any]]:
    """Read ``keys.yaml``: section -> key -> row."""
    return yaml_files.load_yaml(yaml_files.path("keys.yaml"))


def section(name: str) -> dict[str, Key]:
    """Return one section of ``keys.yaml``: ``overall``, ``shared``, or a model's name."""
    rows = _declared().get(name) or {}
    return {key: from_table(key, row) for key, row in rows.items()}


def inferred(file: Path) -> dict[str, Key]:
    """Return the keys of a YAML of defaults, with types from values and ``# (type)`` comments.

    An int default accepts only ints unless the comment says float; a ``~`` accepts anything.
    """
    comments = {
        name: (words, text) for name, words, text in _COMMENT.findall(file.read_text("utf-8"))
    }
    return {
        name: _infer(name, value, *comments.get(name, ("", "")))
        for name, value in yaml_files.load_yaml(file).items()
    }


def _infer(name: str, value: Any, comment: str, text: str) -> Key:
    """Return the key that accepts the type of a default and the types named in its comment."""
    words = set(re.findall(r"[a-z]+", comment.lower()))
    named = {"list"} if "list of" in comment else words & set(_TYPES)
    if value is None:
        return Key(name, null=True, help=text)
    types = {kind for kind in _TYPES if not _type_fault(value, (kind,))} | named
    if isinstance(value, int) and "float" in types and "float" not in named:
        types.discard("float")
    return Key(name, types=tuple(t for t in _TYPES if t in types), null="none" in words, help=text)


def _recbole_yaml(*parts: str) -> Path:
    """Return a file of RecBole's own ``properties/``."""
    return Path(str(stock.folder()), "properties", *parts)


def _read_in_source(spec: registry.ModelSpec) -> dict[str, Key]:
    """Return the keys a stock model reads from its config, some of which its YAML leaves out."""
    found = stock.source_file(spec.name)
    source = found[1].read_text(encoding="utf-8") if found else ""
    names = set(re.findall(r"config\[\"([a-z]\w*)\"\]", source)) - {"device"}
    return {name: Key(name, null=True) for name in names}


def model_keys(spec: registry.ModelSpec) -> dict[str, Key]:
    """Return the keys that belong to one model: from its YAML, and its section of the table."""
    if spec.origin == "recbole":
        file = _recbole_yaml("model", f"{spec.name}.yaml")
        shared = section("shared")
        rows = inferred(file) if file.is_file() else {}
        keys = {name: _narrow(key, shared.get(name)) for name, key in rows.items()}
    else:
        defaults = registry.defaults_file(spec)
        keys = inferred(defaults) if defaults is not None else {}
    return {**keys, **section(spec.name)}


def _narrow(key: Key, shared: Key | None) -> Key:
    """Return the shared key where it describes the same thing as the model's own default."""
    fits = shared is not None and (not key.types or set(key.types) & set(shared.types))
    return replace(shared, null=key.null) if shared is not None and fits else key


def known_keys(spec: registry.ModelSpec) -> dict[str, Key]:
    """Return every key a user may set for a model. Imports RecBole (and so torch)."""
    from recbole.utils import argument_list

    keys = _read_in_source(spec)
    for group in ("general", "training", "evaluation", "dataset"):
        names = getattr(argument_list, f"{group}_arguments")
        keys.update({name: Key(name, null=True) for name in names})
    for parts in (("overall.yaml",), ("dataset", "sample.yaml")):
        rows = inferred(_recbole_yaml(*parts))
        # RecBole's own YAML files write ~ for "not used" here and there, whatever the type.
        keys.update({name: replace(key, null=True) for name, key in rows.items()})
    return {**keys, **model_keys(spec), **section("overall"), **section(spec.name)}


def models_with(key: str) -> list[str]:
    """Return the models that have a key, among ours, the registered ones and RecBole's."""
    return [name for name in registry.available_models() if key in _names_of(name)]


def _names_of(model: str) -> set[str]:
    """Return the names of a model's own keys, without importing it."""
    names = set(section(model))
    for file in (_recbole_yaml("model", f"{model}.yaml"), registry.known_defaults(model)):
        if file is not None and file.is_file():
            names |= set(yaml_files.load_yaml(file))
    return names


def unknown_key(key: str, source: str, known: Iterable[str], model: str) -> ConfigError:
    """Return the error for a key that nothing reads: source, nearest keys, models that have it."""
    by_lower = {name.lower(): name for name in known}
    wanted = key.lower().replace("-", "_")
    close = difflib.get_close_matches(wanted, by_lower, n=3, cutoff=0.6)
    text = f"{source}: unknown key '{key}'."
    owners = models_with(key)
    if owners:
        text += f" It is a key of {', '.join(owners[:5])}, and {model} does not read it."
    if close:
        text += f" Did you mean {' or '.join(by_lower[name] for name in close)}?"
    return ConfigError(text if owners or close else text + " properties/keys.yaml lists the keys.")
