"""Files: whole or not at all, JSON that is no JSON, names that are no names."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TypedDict

import pytest

from recbole_mm.errors import ConfigError
from recbole_mm.files import atomic_write, checked_name, fits, read_json, remove_unfinished


def test_a_failed_write_leaves_the_old_file_and_names_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(OSError) as failure, atomic_write(path) as stream:
        stream.write("new")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert failure.value.filename == str(path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "last.safetensors"):
        (temporary,) = tmp_path.iterdir()
        (tmp_path / "kept").write_text(temporary.name)
        raise KeyboardInterrupt
    name = (tmp_path / "kept").read_text()
    others = [".lock", ".notes.txt", "last.safetensors", ".best.safetensors.abcd1234"]
    for one in (name, *others):
        (tmp_path / one).touch()
    remove_unfinished(tmp_path, "last.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {*others, "kept"}
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others[:3], "kept"}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5000 + b"x"])
def test_what_is_no_json_is_a_value_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        read_json(path)


class Inner(TypedDict):
    n: int


class Outer(TypedDict, total=False):
    rows: list[Inner]
    by_name: dict[str, float]


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        ({"n": 1, "more": None}, Inner, True),
        ({"n": True}, Inner, False),
        ({"n": 1.0}, Inner, False),
        ({}, Inner, False),
        ([], Inner, False),
        ({}, Outer, True),
        ([{"n": 1}, {"n": "1"}], list[Inner], False),
        ({"a": 1, "b": 2.5}, dict[str, float], True),
        ({"a": "x"}, dict[str, float], False),
        (None, str | None, True),
        (3, str | None, False),
        ("x", str, True),
    ],
)
def test_shapes(value: object, hint: object, expected: bool) -> None:
    assert fits(value, hint) is expected


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "a\0b", "a\nb"])
def test_a_name_is_not_a_path(name: str) -> None:
    with pytest.raises(ConfigError, match="dataset = .* expected a plain name"):
        checked_name(name, "dataset")
    assert checked_name("Amazon_M2_DE-1.0", "dataset") == "Amazon_M2_DE-1.0"
