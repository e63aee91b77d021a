"""Runs in processes of their own: kept if done, resumed if interrupted, recorded if they fail."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from recbole_mm.compare.results import last_error
from recbole_mm.errors import ConfigError
from recbole_mm.files import LAST
from recbole_mm.run.record import read_result
from recbole_mm.times import time_left

logger = logging.getLogger(__name__)

_POLL = 0.1  # seconds
# How long a process may take to end by itself, then after it was asked to. A run takes SIGTERM for
# Ctrl-C; SIGINT itself is ignored by what a shell has put into the background.
_PATIENCE = ((2, signal.SIGTERM), (60, signal.SIGKILL))


@dataclass(frozen=True)
class Job:
    """One run: its arguments without those of resuming, and where it writes."""

    label: str
    seed: int
    arguments: tuple[str, ...]
    folder: Path
    log: Path

    def command(self) -> list[str]:
        """Return the command that makes this run from the start."""
        return ["recbole-mm", "run", *self.arguments, f"--run_folder={self.folder}"]

    def pending(self) -> list[str] | None:
        """Return the arguments of what is left to do, or None if the run is done."""
        if read_result(self.folder) is not None:
            return None
        if (self.folder / LAST).is_file():
            plugins = [word for word in self.arguments if word.startswith("--plugins=")]
            return ["run", f"--resume={self.folder}", *plugins]
        return self.command()[1:]


def run_jobs(jobs: Sequence[Job], side_by_side: int = 1) -> None:
    """Run what is not done yet, ``side_by_side`` processes at a time.

    A failing run leaves its log and does not stop the others. On Ctrl-C the running processes are
    interrupted too; they keep their last epoch, and the same comparison goes on from there.
    """
    if side_by_side < 1:
        raise ConfigError(f"jobs must be 1 or more, got {side_by_side}.")
    waiting = [job for job in jobs if job.pending() is not None]
    running: dict[Job, subprocess.Popen[bytes]] = {}
    places: dict[Job, int] = {}
    started, done = time.monotonic(), 0
    bar = tqdm(total=len(jobs), initial=len(jobs) - len(waiting), disable=None, unit="run")
    logger.info(f"{len(jobs)} runs, {len(jobs) - len(waiting)} of them done before")
    try:
        with bar, logging_redirect_tqdm():
            while waiting or running:
                while waiting and len(running) < side_by_side:
                    job = waiting.pop(0)
                    taken = {places[other] for other in running}
                    places[job] = min(set(range(side_by_side)) - taken)
                    running[job] = _start(job, side_by_side, places[job])
                for job in [job for job, process in running.items() if process.poll() is not None]:
                    code, done = running.pop(job).returncode, done + 1
                    left = len(waiting) + len(running)
                    _note_end(job, code, _progress(started, done, left))
                    bar.update()
                time.sleep(_POLL)
    except KeyboardInterrupt:
        logger.warning("interrupted; the same command keeps what is done and goes on")
        raise
    finally:
        for process in running.values():
            _stop(process)


def _start(job: Job, side_by_side: int, place: int) -> subprocess.Popen[bytes]:
    """Start a run with its share of the cores and GPUs; what it prints goes to its log."""
    arguments = job.pending() or []
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "ab") as log:
        log.write(f"$ {shlex.join(['recbole-mm', *arguments])}\n".encode())
        log.flush()
        return subprocess.Popen(
            [sys.executable, "-m", "recbole_mm", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**_environment(side_by_side), **_gpu(job, place)},
        )


def _environment(side_by_side: int) -> dict[str, str]:
    """Return the environment of a run: threads, and this very package."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    threads = max(1, cores // side_by_side)
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        threads = min(threads, int(os.environ["OMP_NUM_THREADS"]))
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    share = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return {**os.environ, **share, "PYTHONPATH": path}


def _gpu(job: Job, place: int) -> dict[str, str]:
    """Return which GPU a run sees: one of several for each place, unless the user chose one."""
    count = torch.cuda.device_count()
    if count < 2 or any(word.startswith("--gpu_id=") for word in job.arguments):
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[place % count].strip()}


def _progress(started: float, done: int, left: int) -> str:
    """Say how many runs are left and, as far as those before tell, for how long."""
    if not left:
        return ""
    seconds = (time.monotonic() - started) / done * left
    return f" ({left} to go, {time_left(seconds)})"


def _note_end(job: Job, code: int, progress: str) -> None:
    """Log how a run ended; one that was killed has not said so itself."""
    if code < 0:
        with open(job.log, "a", encoding="utf-8") as log:
            log.write(f"error: killed by {signal.Signals(-code).name} (out of memory?)\n")
    if read_result(job.folder) is not None:
        logger.info(f"{job.label}, seed {job.seed}: done{progress}")
    else:
        logger.error(
            f"{job.label}, seed {job.seed} failed: {last_error(job.log)} ({job.log}){progress}"
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a run softly: after Ctrl-C in a terminal it is interrupted already, so wait first."""
    for seconds, number in _PATIENCE:
        try:
            process.wait(timeout=seconds)
            return
        except subprocess.TimeoutExpired:
            process.send_signal(number)
    process.wait()
