"""Settings of a model: a frozen dataclass, which is also the model's part of the key table.

A field's annotation says what is accepted, `option` its range and what it means:

>>> @dataclass(frozen=True)
... class ToySettings(ModelSettings):
...     n_layers: int = option(1, "Propagation steps; 0 uses no graph.", min=0)
...     pool: Literal["last", "mean"] = option("last", "Session vector.")
>>> ToySettings.keys()["n_layers"].expected()
'int, at least 0'

Nothing here or in a model's ``settings.py`` imports torch: the command line reads the key table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain
from recbole_mm.keys import Key

S = TypeVar("S", bound="ModelSettings")
_LIMITS = ("min", "max", "above", "below")


def option(default: object, help: str, **limits: float) -> Any:
    """Declare a key that a user may set.

    Parameters
    ----------
    default
        Its value in the preset ``sound``.
    help
        What it does and its unit, in one line.
    limits
        ``min``, ``max``, ``above``, ``below``; the last two exclude the limit itself. For a list
        they hold for its members.
    """
    if unknown := set(limits) - set(_LIMITS):
        raise TypeError(f"unknown limits {sorted(unknown)}; known are {', '.join(_LIMITS)}")
    return field(default=default, metadata={"help": help, **limits})


def fixed(value: object) -> Any:
    """Declare what a variant of a model leaves no choice of: its code reads it, no key sets it."""
    return field(default=value, init=False)


def require_heads(n_heads: int, width: int, key: str) -> None:
    """Check that the heads of an attention divide the width that ``key`` names.

    Raises
    ------
    ConfigError
        They do not; names a number that would.
    """
    if width % n_heads:
        raise ConfigError(
            f"n_heads={n_heads} does not divide {key}={width}; choose a divisor, for example "
            f"--n_heads={math.gcd(n_heads, width)}"
        )


@dataclass(frozen=True)
class ModelSettings:
    """What a model reads of its configuration; subclasses add the fields.

    Raises
    ------
    ConfigError
        Settings that contradict each other (from ``__post_init__``).
    """

    @classmethod
    def of(cls: type[S], config: Mapping[str, object]) -> S:
        """Read the settings from a configuration; lists become tuples.

        Raises
        ------
        ConfigError
            A value that is not accepted, or values that contradict each other.
        """
        given = {name: key.check(config[name], "settings") for name, key in cls.keys().items()}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})

    @classmethod
    def keys(cls) -> dict[str, Key]:
        """Return the keys of these settings: type, range, choices and meaning of each."""
        hints = get_type_hints(cls)
        return {one.name: _key(one, hints[one.name]) for one in fields(cls) if one.init}

    def feature_files(self, available: Sequence[str]) -> tuple[str, ...]:
        """Return the modalities whose feature files these settings read.

        Parameters
        ----------
        available
            The modalities that the data set has.
        """
        return ()

    def knock_outs(self, available: Sequence[str]) -> dict[str, dict[str, Plain]]:
        """Return the keys that leave a modality out, by modality, as far as there are such keys.

        A modality is a feature file or a column of the items, such as ``price``.

        Parameters
        ----------
        available
            The modalities that the data set has a feature file of.
        """
        return {}


@dataclass(frozen=True)
class TrainedSettings(ModelSettings):
    """What the models of this package that train by gradient have in common."""

    train_own_items: Literal["keep", "mask"] = option(
        "keep",
        "Items of a row's history in the softmax of training: classes like any other, or struck "
        "out unless they are the target.",
    )


def _key(one: Field[Any], annotation: object) -> Key:
    """Return the key of a field."""
    parts = _alternatives(annotation)
    plain = [part for part in parts if part is not NoneType]
    listed = [part for part in plain if get_origin(part) is tuple]
    members = [inner for part in listed for inner in _alternatives(get_args(part)[0])]
    return Key(
        one.name,
        types=("list",) if listed else _names(plain),
        items=_names(members),
        choices=tuple(choice for part in members or plain for choice in _choices(part)),
        null=NoneType in parts,
        **one.metadata,
    )


def _alternatives(annotation: object) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation alone."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _choices(annotation: object) -> tuple[object, ...]:
    """Return the values of a ``Literal``, none for another annotation."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _names(annotations: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of plain types, those of a ``Literal``'s values among them."""
    kinds = [type(value) for part in annotations for value in _choices(part)]
    kinds += [part for part in annotations if not _choices(part)]
    return tuple(dict.fromkeys(kind.__name__ for kind in kinds))
