"""The loop: damage, read, and say what got out that should not."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from tests.fuzz.mutate import mutate
from tests.fuzz.targets import OURS, Target, command_line, run_command, values

# Of the processor, which other work on the machine does not use up; what waits for something that
# does not come uses none, and gets WAITED seconds by the clock.
SECONDS, WAITED = 90, 1800
CODES = (0, 1, 2, 3, 130, 141)


@contextlib.contextmanager
def _within(seconds: float, waited: float) -> Iterator[None]:
    """Raise a TimeoutError in what computes or waits longer."""

    def late(number: int, _: object) -> None:
        how, limit = ("waited", waited) if number == signal.SIGALRM else ("computed", seconds)
        raise TimeoutError(f"{how} longer than {limit} s")

    clocks = {signal.SIGPROF: signal.ITIMER_PROF, signal.SIGALRM: signal.ITIMER_REAL}
    before = {number: signal.signal(number, late) for number in clocks}
    for number, limit in ((signal.SIGPROF, seconds), (signal.SIGALRM, waited)):
        signal.setitimer(clocks[number], limit)
    try:
        yield
    finally:
        for number, clock in clocks.items():
            signal.setitimer(clock, 0)
            signal.signal(number, before[number])


def _escape(call: Callable[[], object]) -> str:
    """Return what came out of a call that should not, or the empty text."""
    streams = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    try:
        with streams[0], streams[1], warnings.catch_warnings(), _within(SECONDS, WAITED):
            warnings.simplefilter("ignore")
            call()
    except OURS:
        return ""
    except Exception:
        return traceback.format_exc()
    return ""


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and path.name != ".lock"
    }


def _changed(before: dict[str, str], after: dict[str, str], allowed: tuple[str, ...]) -> list[str]:
    names = {name for name in before | after if before.get(name) != after.get(name)}
    return sorted(n for n in names if not any(fnmatch(n, pattern) for pattern in allowed))


def fresh(good: Path, work: Path) -> Path:
    """Put a copy of a folder of good files into the place of another."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(good, work)
    return work


def attempt(target: Target, good: Path, work: Path, data: bytes) -> str:
    """Read damaged bytes; return what came out that should not, or the empty text.

    Parameters
    ----------
    target
        The format.
    good
        Folder that the target's `make` wrote; it stays as it is.
    work
        A copy of it, which is made anew where reading may have changed it.
    data
        The bytes of the file.
    """
    (work / target.file).write_bytes(data)
    before = _hashes(work)
    story = _escape(lambda: target.read(work))
    changed = _changed(before, _hashes(work), target.writes)
    if changed:
        story += f"\nfiles changed: {changed}"
    if target.writes or changed:
        fresh(good, work)
    return f"{story}\ninput: {data[:400]!r}" if story else ""


def fuzz(target: Target, good: Path, work: Path, n: int, seed: int) -> Iterator[tuple[int, str]]:
    """Damage one format ``n`` times; yield number and story of every escape.

    Parameters
    ----------
    good
        Folder that the target's `make` wrote; it is copied and stays as it is.
    work
        Folder for the copy.
    seed
        Of the damage. Each number has a draw of its own, so that one can be repeated alone.
    """
    fresh(good, work)
    original = _original(target, good)
    for number in range(n):
        draw = random.Random(f"{target.name} {seed} {number}")
        data = original or values(draw).encode()
        # Of values, half stay whole: each is odd enough for some key.
        data = data if not original and draw.random() < 0.5 else mutate(data, draw)
        if story := attempt(target, good, work, data):
            yield number, story


def _original(target: Target, good: Path) -> bytes:
    path = good / target.file
    return path.read_bytes() if path.is_file() else b""


def fuzz_command_line(good: Path, work: Path, n: int, seed: int) -> Iterator[tuple[int, str]]:
    """Give ``n`` command lines; yield number and story of those without a proper end."""
    fresh(good, work)
    for number in range(n):
        argv = command_line(random.Random(f"command line {seed} {number}"))
        if story := attempt_command(argv, good, work):
            yield number, story


def attempt_command(argv: list[str], good: Path, work: Path) -> str:
    """Give one command line in a folder; return why it has no proper end, or the empty text."""
    before, code = _hashes(work), list[int]()
    with _inside(work):
        story = _escape(lambda: code.append(run_command(argv)))
    if code and code[0] not in CODES:
        story += f"\nexit code {code[0]}"
    changed = _changed(before, _hashes(work), ("out/*", "table*", "report*", "saved/*"))
    if changed:
        fresh(good, work)
    return f"{story}\nfiles changed: {changed}\narguments: {argv}" if story or changed else ""


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder; a command's handlers of signals go with it."""
    here = os.getcwd()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.stdout.flush()
