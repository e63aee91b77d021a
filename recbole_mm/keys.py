"""A configuration key: what it accepts, what it means, and the check of its values."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from recbole_mm.errors import ConfigError

TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "list": (list, tuple),
    "dict": (dict,),
}

# The largest whole number of a key that names no limit: PyTorch's sizes go no further.
_LARGEST = 2**31 - 1
# Characters of a value that a message shows whole.
_SHOWN = 200


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
    choices: tuple[object, ...] = ()
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

    def check(self, value: object, source: str) -> object:
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
        fault = type_fault(value, self.types)
        if fault:
            raise self._error(value, source)
        if isinstance(value, (list, tuple)):
            return self._check_members(value, source)
        return self._check_scalar(value, self.types, value, source)

    def _check_members(self, value: Sequence[object], source: str) -> list[object]:
        """Check each member of a list."""
        if self.length is not None and len(value) != self.length:
            raise self._error(value, source)
        if any(self.items and type_fault(member, self.items) for member in value):
            raise self._error(value, source)
        return [self._check_scalar(member, self.items, value, source) for member in value]

    def _check_scalar(
        self, value: object, types: tuple[str, ...], whole: object, source: str
    ) -> object:
        """Check range and choices of one value; ``whole`` is what the message shows."""
        if self.choices:
            value = self._choice(value, whole, source)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return value
        if self.max is None and isinstance(value, int) and abs(value) > _LARGEST:
            raise self._error(whole, source, f" and at most {_LARGEST}")
        inside = (
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        if not inside:
            raise self._error(whole, source)
        return float(value) if "float" in types and "int" not in types else value

    def _choice(self, value: object, whole: object, source: str) -> object:
        """Return the choice that equals the value."""
        for choice in self.choices:
            same = value == choice and isinstance(value, bool) == isinstance(choice, bool)
            if same or (self.ignore_case and str(value).lower() == str(choice).lower()):
                return choice
        raise self._error(whole, source)

    def _error(self, value: object, source: str, more: str = "") -> ConfigError:
        """Return the error that names key, value, source and what is accepted."""
        shown, expected = _show(value), self.expected() + more
        text = f"{source}: {self.name} = {shown} is not accepted; expected {expected}"
        return ConfigError(f"{text}. {self.help}" if self.help else text)


def _show(value: object) -> str:
    """Return a value as it is written in YAML, cut where it is long."""
    if value is None or isinstance(value, bool):
        return "~" if value is None else str(value).lower()
    return reprlib.repr(value) if len(str(value)) > _SHOWN else repr(value)


def type_fault(value: object, types: tuple[str, ...]) -> bool:
    """Return whether a value has none of the types (a bool is no int; nan is no number)."""
    if isinstance(value, bool):
        return "bool" not in types
    if isinstance(value, float) and value != value:
        return True
    return not any(isinstance(value, TYPES[name]) for name in types)


def plain(value: object, key: str) -> object:
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
    scalar = getattr(value, "item", None)
    if callable(scalar) and getattr(value, "ndim", None) == 0:
        return scalar()
    raise ConfigError(f"{key}: expected a plain value (number, text, list, dict), got {value!r}")
