"""Reading the command line: ``--key=value`` as YAML values, and argparse pieces."""

from __future__ import annotations

import argparse
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_mm import yaml_files
from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain


class Command(NamedTuple):
    """A command: what it does, its options, and ``package.module:function`` of its steps."""

    help: str
    add_options: Callable[[ArgumentParser], None]
    handler: str


def parse_overrides(tokens: Sequence[str]) -> dict[str, Plain]:
    """Read ``--key=value`` and ``--key value`` into plain values (YAML: numbers, lists, true, ~).

    Raises
    ------
    ConfigError
        A token is no option, an option has no value, or a key is given twice with two values.
    """
    overrides: dict[str, Plain] = {}
    waiting = list(tokens)
    while waiting:
        token = waiting.pop(0)
        if not token.startswith("--") or token == "--":
            raise ConfigError(f"command line: '{token}' belongs to no option; write --key=value")
        key, equals, text = token[2:].partition("=")
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise ConfigError(f"command line: {token} has no value; write {token}=<value>")
            text = waiting.pop(0)
        value = yaml_files.parse_value(text, "command line")
        if key in overrides and overrides[key] != value:
            raise ConfigError(
                f"command line: --{key} is given twice, as {overrides[key]!r} and as {value!r}"
            )
        overrides[key] = value
    return overrides


class Once(argparse.Action):
    """Store an option; a second time is accepted only with the same value."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: object,
        option: str | None = None,
    ) -> None:
        """Store the value, or refuse a second one."""
        before = getattr(namespace, self.dest)
        if before not in (self.default, values):
            raise ConfigError(f"command line: {option} is given twice, as {before} and as {values}")
        setattr(namespace, self.dest, values)


class Flat(Once):
    """Like :class:`Once` for options whose several arguments are lists: joins them."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the joined list."""
        super().__call__(parser, namespace, [word for part in values for word in part], option)


def words(text: str) -> list[str]:
    """Split ``"a b"`` into words; quotes keep blanks together."""
    return shlex.split(text)


def files(text: str) -> list[str]:
    """Split ``"a.yaml b.yaml"`` unless a file has just this name."""
    return [text] if Path(text).is_file() else words(text)


def numbers(text: str) -> list[int]:
    """Read ``"0 1 2"`` or ``"0,1,2"``."""
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise ConfigError(f"command line: '{text}' must be whole numbers, as in 0 1 2") from None


def counts(text: str) -> dict[str, int]:
    """Read ``"SRIM=3 SASRec=1"``."""
    found = {}
    for word in text.replace(",", " ").split():
        name, _, number = word.partition("=")
        if not number.isdigit():
            raise ConfigError(f"command line: '{word}' must be Model=number, as in SRIM=3")
        found[name] = int(number)
    return found


def comma_words(text: str) -> list[str]:
    """Read ``"a,b"`` or ``"a b"``."""
    return text.replace(",", " ").split()


def not_negative(text: str) -> float:
    """Read a number of 0 or more."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise ConfigError(f"command line: '{text}' must be a number of 0 or more, as in 50")
    return found


def above_0(text: str) -> float:
    """Read a number above 0."""
    found = not_negative(text)
    if not found:
        raise ConfigError(f"command line: '{text}' must be a number above 0, as in 600")
    return found


def whole_above_0(text: str) -> int:
    """Read a whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"command line: '{text}' must be a whole number of 1 or more, as in 10")
    return int(text)
