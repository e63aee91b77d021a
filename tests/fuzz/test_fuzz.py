"""A few hundred damaged files of every format; any number by hand: ``python -m tests.fuzz``."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from recbole_mm.errors import DataError
from tests.fuzz.engine import fuzz, fuzz_command_line
from tests.fuzz.targets import TARGETS, Target, make_folder

if not hasattr(signal, "SIGALRM"):
    pytest.skip("this system cannot interrupt what hangs", allow_module_level=True)

# Inputs of those that read all files of a data set, or train, which takes longer; else 200.
COUNTS = {
    **dict.fromkeys(("inter", "item", "split", "value", "configuration"), 60),
    **dict.fromkeys(("npy", "ids", "plan", "result", "itememb copy"), 100),
    **dict.fromkeys(("table of interactions", "table of items", "Amazon metadata"), 40),
    **dict.fromkeys(("Amazon reviews", "Amazon reviews, packed"), 40),
    **{"resume: config": 20, "resume: last": 8},
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("good"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_good_file_is_read(target: Target, good: Path, tmp_path: Path) -> None:
    """Without this the next test could pass because nothing is read at all."""
    whole = Target(target.name, "value.txt", target.read)
    (tmp_path / "work").mkdir()
    copy = make_folder(tmp_path / "copy") if target.writes else good
    if target.name == "value":
        (copy / "value.txt").write_text("epochs=3")
    assert whole.read(copy) is not None
    (copy / "value.txt").unlink(missing_ok=True)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damage_gives_our_error_or_a_result(target: Target, good: Path, tmp_path: Path) -> None:
    count = COUNTS.get(target.name, 200)
    found = list(fuzz(target, good, tmp_path / "work", count, seed=1))
    assert not found, f"{len(found)} of {count} escaped; the first:\n{found[0][1]}"


def test_every_command_line_ends_with_an_exit_code(good: Path, tmp_path: Path) -> None:
    found = list(fuzz_command_line(good, tmp_path / "work", 300, seed=1))
    assert not found, f"{len(found)} of 300 escaped; the first:\n{found[0][1]}"


def test_the_fuzzer_finds_what_it_looks_for(good: Path, tmp_path: Path) -> None:
    def careless(folder: Path) -> object:
        text = (folder / "ids.txt").read_text(encoding="utf-8")
        if len(text) < 100:
            raise DataError("ours, and none of its business")
        (folder / "plan.json").write_text("gone")
        return text

    target = Target("careless", "ids.txt", careless)
    stories = [story for _, story in fuzz(target, good, tmp_path / "work", 40, seed=1)]
    assert any("UnicodeDecodeError" in story for story in stories)
    assert any("files changed: ['plan.json']" in story for story in stories)
    assert len(stories) < 40
