"""How commands end when the system refuses something, in real second processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

resource = pytest.importorskip("resource", reason="this system has no limits and no SIGHUP")
ROOT = Path(__file__).parents[1]
DATA = f"--data_path={ROOT / 'atomic_data'}"
POP = ["run", "--model=Pop", "--dataset=Cellphones", DATA, "--floor=false"]


def start(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "recbole_mm", *arguments]
    return subprocess.run(command, env=environment, text=True, **streams)  # type: ignore[call-overload,no-any-return]


def at_most(size: int) -> Callable[[], None]:
    """Return what makes every file of a process end at a size, as a full disk or a quota does."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    ("arguments", "size", "file"),
    [
        (POP, 500, "run.log"),
        (POP, 1800, "config.yaml"),
        (POP, 8000, "best.safetensors"),
        (["export", "--dataset=Cellphones", DATA], 1000, "Cellphones.train.inter"),
        (["prepare", "synthetic"], 1000, "Cellphones"),
        (["compare", "--models=Pop", "--dataset=Cellphones", DATA], 100, "plan.json"),
    ],
)
def test_a_full_disk_is_named_with_the_file(
    arguments: list[str], size: int, file: str, tmp_path: Path
) -> None:
    place = {"run": "run_folder", "compare": "output"}.get(arguments[0], "out")
    done = start(*arguments, f"--{place}={tmp_path / 'here'}", preexec_fn=at_most(size))
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert last.startswith(f"error: {tmp_path / 'here'}") and file in last
    assert "File too large" in last and "free some space" in last
    # Nothing half-written under a final name, and no temporary file.
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith((".best", ".config"))]


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for command in (
        [*POP, f"--run_folder={tmp_path / 'file'}"],
        ["export", "--dataset=Cellphones", DATA, f"--out={tmp_path / 'file'}"],
        ["prepare", "synthetic", f"--out={tmp_path / 'file'}"],
        ["compare", "--models=Pop", "--dataset=Cellphones", DATA, f"--output={tmp_path / 'file'}"],
    ):
        done = start(*command)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert str(tmp_path / "file") in done.stderr.splitlines()[-1]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_takes_nothing() -> None:
    with open("/dev/full", "w") as full:
        done = start("doctor", stdout=full)
        assert done.returncode == 2
        assert done.stderr.startswith("error: the output: No space left on device")
        assert done.stderr.count("\n") == 1
        assert start("doctor", stdout=full, stderr=full).returncode == 2
        assert start("encode", stderr=full).returncode == 2


def test_a_closed_output_is_no_error() -> None:
    assert start("doctor", preexec_fn=lambda: os.close(1), stdout=None).returncode == 0


WAITS = """
import sys, time
from recbole_mm import exits

def command():
    print("started", flush=True)
    time.sleep(60)
    return 0

sys.exit(exits.guarded(command))
"""


def ask_to_end(number: int, **options: object) -> tuple[int, str]:
    """Send a signal to a command that waits; return its exit code and what it said."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, "-c", WAITS], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=2 if options else 30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return 0, "goes on"
    return process.returncode, said


def hears() -> None:
    """Let a process hear SIGHUP, even where the tests themselves run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_request_to_end_is_like_ctrl_c(name: str) -> None:
    assert ask_to_end(getattr(signal, name), preexec_fn=hears) == (130, "interrupted\n")


def test_nohup_is_respected() -> None:
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    assert ask_to_end(signal.SIGHUP, **ignoring) == (0, "goes on")


def test_a_lost_terminal_keeps_the_last_epoch(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    keys = ["--hidden_size=8", "--inner_size=8", "--n_layers=1", "--epochs=9000"]
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "recbole_mm", "run", "--model=SASRec", "--dataset=Cellphones",
         DATA, *keys, "--stopping_step=9000", f"--run_folder={folder}"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=hears,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not (folder / "last.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130 and f"--resume={folder}" in said, said
