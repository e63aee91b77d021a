"""Search spaces: which keys of a model are tried, and between which values.

A space is a YAML file with one line per key, ``properties/tune/<Model>.yaml``:

.. code-block:: yaml

    learning_rate: {low: 0.0005, high: 0.01, log: true}
    n_layers: {low: 1, high: 3}
    score: {choices: [dot, cosine]}
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from recbole_mm import key_table, yaml_files
from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain
from recbole_mm.keys import Key
from recbole_mm.spec import ModelSpec

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

DEFAULT = "default"
_ENDLESS = float("inf")
_FORM = "{low: 1, high: 3}, {low: 0.001, high: 0.1, log: true} or {choices: [a, b]}"
Number = int | float
Scalar = bool | int | float | str | None


@dataclass(frozen=True)
class Dimension:
    """What is tried of one key: one of ``choices``, or a number from ``low`` to ``high``.

    Whole limits give whole numbers. ``step`` is a distance between numbers, ``log`` spreads them
    evenly over orders of magnitude.
    """

    low: Number = 0
    high: Number = 0
    step: Number | None = None
    log: bool = False
    choices: tuple[Scalar, ...] = ()

    def ends(self) -> tuple[Scalar, ...]:
        """Return the values that a model must accept for the whole dimension to be sound."""
        return self.choices or (self.low, self.high)

    def contains(self, value: object) -> bool:
        """Return whether a value can be tried."""
        if self.choices:
            same = (value == one and type(value) is type(one) for one in self.choices)
            return any(same)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        whole = isinstance(self.low, float) or isinstance(value, int)
        return whole and self.low <= value <= self.high

    def distribution(self) -> BaseDistribution:
        """Return Optuna's form of it."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices:
            return CategoricalDistribution(self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def written(self) -> str:
        """Return it in the words of a table."""
        if self.choices:
            return ", ".join(map(str, self.choices))
        more = ", log" if self.log else f", step {self.step:g}" if self.step else ""
        return f"{self.low:g} to {self.high:g}{more}"


Space = dict[str, Dimension]


def space_of(
    spec: ModelSpec, known: Container[str], folder: str | Path | None = None
) -> tuple[Space, str]:
    """Return the search space of a model and the name of its file.

    Parameters
    ----------
    spec
        The model.
    known
        Keys that the model has; of the default space only these are taken.
    folder
        A folder of the user's, whose files go before those of ``properties/tune``.

    Raises
    ------
    ConfigError
        There is no such folder, or a file of it is wrong.
    """
    folders = [yaml_files.path("tune")]
    if folder is not None:
        if not Path(folder).is_dir():
            raise ConfigError(f"--space={folder} is no folder; expected one with <Model>.yaml.")
        folders.insert(0, Path(folder))
    for name in (spec.name, DEFAULT):
        for place in folders:
            if (file := place / f"{name}.yaml").is_file():
                space = read_space(file)
                if name == DEFAULT:
                    space = {key: one for key, one in space.items() if key in known}
                return space, yaml_files.short(file)
    raise ConfigError(f"there is no {folders[-1] / DEFAULT}.yaml; install recbole_mm again")


def read_space(file: Path) -> Space:
    """Read a search space.

    Raises
    ------
    ConfigError
        A line has not the form of a dimension.
    """
    name = yaml_files.short(file)
    return {
        key: _dimension(value, f"{name}: {key}")
        for key, value in yaml_files.load_yaml(file).items()
    }


def _dimension(value: object, where: str) -> Dimension:
    """Check one line of a space."""
    if not isinstance(value, Mapping) or not set(value) <= set(Dimension.__dataclass_fields__):
        raise _wrong(value, where)
    if "choices" in value:
        return _choice(value, where)
    low, high, step = (value.get(name) for name in ("low", "high", "step"))
    log = value.get("log", False)
    if not _is_number(low) or not _is_number(high) or not isinstance(log, bool):
        raise _wrong(value, where)
    if step is not None and (not _is_number(step) or step <= 0 or log):
        raise _wrong(value, where, "step above 0, and not with log")
    if isinstance(low, float) or isinstance(high, float):
        low, high = float(low), float(high)
    if isinstance(low, int) and isinstance(step, float):
        raise _wrong(value, where, "a whole step between whole numbers")
    if low >= high or (log and low <= 0):
        raise _wrong(value, where, "low below high, and above 0 with log")
    return Dimension(low, high, step, log)


def _choice(value: Mapping[str, object], where: str) -> Dimension:
    choices = value["choices"]
    plain = (type(None), bool, int, float, str)
    if len(value) > 1 or not isinstance(choices, list) or not choices:
        raise _wrong(value, where, "choices alone, a list of one value or more")
    if not all(isinstance(one, plain) for one in choices):
        raise _wrong(value, where, "numbers, text, true, false or ~ as choices")
    return Dimension(choices=tuple(choices))


def _is_number(value: object) -> TypeGuard[Number]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and -_ENDLESS < value < _ENDLESS  # type: ignore[operator]


def _wrong(value: object, where: str, expected: str = _FORM) -> ConfigError:
    return ConfigError(f"{where}: {value!r} is no range of a search; expected {expected}")


def check_space(space: Space, known: Mapping[str, Key], model: str, file: str) -> None:
    """See that the model has every key and accepts the ends of its dimension.

    Parameters
    ----------
    space
        The search space.
    known
        The keys of the model.
    model, file
        Its name, and that of the space's file, for messages.

    Raises
    ------
    ConfigError
        A key that the model does not have, or a value that it does not take.
    """
    for key, dimension in space.items():
        if key not in known:
            raise key_table.unknown_key(key, file, known, model)
        for value in dimension.ends():
            known[key].check(value, file)


def plain(value: object) -> Plain:
    """Return a tried value as it is written: without the dust of a binary step."""
    return float(f"{value:.10g}") if isinstance(value, float) else value  # type: ignore[return-value]
