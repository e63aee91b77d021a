"""Fixtures shared by all tests."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
from hypothesis import settings

# One thread: the numbers must not depend on the machine, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# At home hypothesis looks further each time; CI repeats the same examples.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("home", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "home")


class InProcess:
    """Stands for a process of a comparison's run; that they are real, tests/compare shows."""

    def __init__(self, command: list[str], stdout: IO[bytes], **more: object) -> None:
        from recbole_mm import cli

        assert command[:3] == [sys.executable, "-m", "recbole_mm"]
        with io.TextIOWrapper(os.fdopen(os.dup(stdout.fileno()), "wb")) as log:
            with redirect_stdout(log), redirect_stderr(log):
                self.returncode = cli.main(command[3:])
        self.stdin = None

    def poll(self) -> int:
        return self.returncode


@pytest.fixture(scope="session")
def ninety_sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data set toy, small enough to train on in less than a second."""
    folder = tmp_path_factory.mktemp("data")
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for session in range(90):
        for step in range(2 + session % 4):
            seconds = 1_600_000_000 + 1000 * session + 60 * step
            lines.append(f"s{session}\ti{(session + step * (1 + session % 3)) % 25}\t{seconds}")
    (folder / "toy").mkdir()
    (folder / "toy" / "toy.inter").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the runs of comparisons in the process of the test, which saves imports."""
    here = SimpleNamespace(Popen=InProcess, PIPE=None, STDOUT=None)
    monkeypatch.setattr("recbole_mm.compare.jobs.subprocess", here)
