"""Damaged files and odd inputs of every format; any number by hand: ``python -m tests.fuzz``."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import strategies as st

from recbole_mm.errors import DataError
from tests.fuzz.drawing import Escape, draw
from tests.fuzz.drawn import DRAWN, Drawn
from tests.fuzz.engine import _within, attempt, fresh, fuzz, fuzz_command_line
from tests.fuzz.packs import PACK_TARGETS
from tests.fuzz.targets import TARGETS, Target, make_folder

if not hasattr(signal, "SIGALRM"):
    pytest.skip("this system cannot interrupt what hangs", allow_module_level=True)

# Inputs of those that read all files of a data set, restore a model, or train; else 200.
COUNTS = {
    **dict.fromkeys(("inter", "item", "split", "value", "configuration"), 60),
    **dict.fromkeys(("partition", "packed partition"), 40),
    **dict.fromkeys(("npy", "ids", "plan", "result", "itememb copy"), 100),
    **dict.fromkeys(("table of interactions", "table of items", "Amazon metadata"), 40),
    **dict.fromkeys(("Amazon reviews", "Amazon reviews, packed"), 40),
    **{"resume: config": 20, "resume: last": 8},
    **dict.fromkeys(("pack: model, renewed", "pack: items, renewed", "ids to leave out"), 15),
    **dict.fromkeys((f"sessions: {kind}" for kind in ("csv", "tsv", "jsonl", "parquet")), 25),
    **dict.fromkeys(("new items", "new vectors"), 25),
}
# The same of what hypothesis draws; else 60.
DRAWN_COUNTS = {
    **dict.fromkeys(("pack: description", "pack: items, renewed", "new items"), 20),
    **dict.fromkeys(("sessions: csv", "sessions: tsv", "sessions: jsonl"), 20),
    **{"pack: state": 40, "command line": 100, "configuration": 80, "request": 150},
}
Good = Callable[[Callable[[Path], Path]], Path]
TARGETS_OF_ALL = [*TARGETS, *PACK_TARGETS]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    """Return what gives the folder of good files that a function makes, once."""
    made: dict[Callable[[Path], Path], Path] = {}

    def of(make: Callable[[Path], Path]) -> Path:
        if make not in made:
            made[make] = make(tmp_path_factory.mktemp("good"))
        return made[make]

    return of


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("target", TARGETS_OF_ALL, ids=lambda target: target.name)
def test_a_good_file_is_read(target: Target, good: Good, tmp_path: Path) -> None:
    """Without this the next test could pass because nothing is read at all."""
    copy = fresh(good(target.make), tmp_path / "work")
    if target.name == "value":
        (copy / "value.txt").write_text("epochs=3")
    found = target.read(copy)
    # A command gives its exit code.
    assert found is not None and (found == 0 or not isinstance(found, int))


@pytest.mark.parametrize("target", TARGETS_OF_ALL, ids=lambda target: target.name)
def test_damage_gives_our_error_or_a_result(target: Target, good: Good, tmp_path: Path) -> None:
    count = COUNTS.get(target.name, 200)
    found = list(fuzz(target, good(target.make), tmp_path / "work", count, seed=1))
    assert not found, f"{len(found)} of {count} escaped; the first:\n{found[0][1]}"


@pytest.mark.parametrize("drawn", DRAWN, ids=lambda drawn: drawn.name)
def test_what_is_drawn_gives_our_error_or_a_result(
    drawn: Drawn, good: Good, tmp_path: Path
) -> None:
    if drawn.name == "request":
        pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    count = DRAWN_COUNTS.get(drawn.name, 60)
    # What escapes is raised. A strategy that draws nothing would find nothing.
    assert 0 < draw(drawn, good(drawn.make), tmp_path / "work", count, None) <= count


def test_every_command_line_ends_with_an_exit_code(good: Good, tmp_path: Path) -> None:
    found = list(fuzz_command_line(good(make_folder), tmp_path / "work", 300, seed=1))
    assert not found, f"{len(found)} of 300 escaped; the first:\n{found[0][1]}"


def careless(folder: Path) -> object:
    text = (folder / "ids.txt").read_text(encoding="utf-8")
    if len(text) < 100:
        raise DataError("ours, and none of its business")
    (folder / "plan.json").write_text("gone")
    return text


def test_the_fuzzer_finds_what_it_looks_for(good: Good, tmp_path: Path) -> None:
    target = Target("careless", "ids.txt", careless)
    found = fuzz(target, good(make_folder), tmp_path / "work", 40, seed=1)
    stories = [story for _, story in found]
    assert any("UnicodeDecodeError" in story for story in stories)
    assert any("files changed: ['plan.json']" in story for story in stories)
    assert len(stories) < 40


def test_what_hangs_is_interrupted_and_a_busy_machine_is_no_hang() -> None:
    with pytest.raises(TimeoutError, match="computed longer"), _within(0.2, 600):
        while True:
            pass
    with pytest.raises(TimeoutError, match="waited longer"), _within(600, 0.2):
        time.sleep(600)
    with _within(0.2, 600):
        time.sleep(0.5)


def test_what_is_drawn_and_escapes_is_made_small(good: Good, tmp_path: Path) -> None:
    target = Target("careless", "ids.txt", lambda folder: 1 / len((folder / "ids.txt").read_text()))
    drawn = Drawn(
        "careless", lambda _: st.text("ab").map(str.encode),
        lambda _: nullcontext(lambda good, work, data: attempt(target, good, work, data)),
    )  # fmt: skip
    with pytest.raises(Escape, match=r"ZeroDivisionError(.|\n)*input: b''"):
        draw(drawn, good(make_folder), tmp_path / "work", 50, None)
