"""Kill by hand: ``python -m tests.kills --n=200 [--only=run] [--seed=1]``.

Each job is killed (SIGKILL) right before and right after each of its renames, and at seeded
moments, with all processes that it started; what must be whole at any moment is looked at; then the
command is given again, and must end with the same bits as if nothing had been.
One process imports everything and forks, so that a kill costs about a second.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.kills.jobs import JOBS, Job, execute

# Moment of a kill: ("before", 3), ("after", 3): a rename; ("at", 0.4): seconds.
Moment = tuple[str, float]


def _forked(call: Callable[[], int], log: Path) -> int:
    """Run a call in a process of its own; return its exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        with open(log, "ab", buffering=0) as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        os._exit(call())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what a killed comparison left running
    return code


def _watched(argv: list[str], count: Path, moment: Moment | None) -> int:
    """Run a command that notes each rename, and dies at the moment."""
    rename = os.replace

    def noted(old: str, new: str) -> None:
        with open(count, "ab") as stream:
            stream.write(b".")
        number = count.stat().st_size
        if moment == ("before", number):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(old, new)
        if moment == ("after", number):
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = noted  # type: ignore[assignment]
    if moment and moment[0] == "at":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process without a word
        signal.setitimer(signal.ITIMER_REAL, moment[1])
    return execute(argv)


def _checked(job: Job, place: Path) -> int:
    try:
        job.check(place)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _fresh(data: Path, place: Path) -> Path:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(data, place)
    return place


def _moments(renames: int, seconds: float, n: int, draw: random.Random) -> list[Moment]:
    exact: list[Moment] = [(w, k) for k in range(1, renames + 1) for w in ("before", "after")]
    draw.shuffle(exact)
    timed: list[Moment] = [("at", draw.uniform(0.01, seconds)) for _ in range(n)]
    half = min(len(exact), (n + 1) // 2)
    return [*exact[:half], *timed[: n - half]]


def kill(job: Job, data: Path, place: Path, n: int, draw: random.Random) -> list[str]:
    """Kill a job ``n`` times; return a line for each time that it did not end as it should."""
    count, log = place.with_name("renames"), place.with_name("log")
    start = time.perf_counter()
    _fresh(data, place)
    count.write_bytes(b"")
    code = _forked(lambda: _watched(job.arguments(place), count, None), log)
    seconds, expected = time.perf_counter() - start, job.outcome(place)
    assert code == 0, log.read_text("utf-8")[-3000:]
    faults, died = [], 0
    for moment in _moments(count.stat().st_size, seconds, n, draw):
        _fresh(data, place)
        count.write_bytes(b"")
        log.write_bytes(b"")
        code = _forked(lambda moment=moment: _watched(job.arguments(place), count, moment), log)  # type: ignore[misc]
        died += code != 0
        whole = _forked(lambda: _checked(job, place), log)
        again = _forked(lambda: execute(job.arguments(place)), log)
        if whole != 0 or again != 0 or job.outcome(place) != expected:
            faults.append(
                f"{job.name}, killed {moment}: exit codes {code}, {whole}, {again}\n"
                f"expected {expected[-600:]}\nfound    {job.outcome(place)[-600:]}\n"
                + log.read_text("utf-8", "replace")[-1500:]
            )
    print(f"{job.name}: {n} kills ({died} hit), {len(faults)} lost something", flush=True)
    return faults


def main() -> int:
    """Kill every job, print what was lost, and return 1 if anything was."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--n", type=int, default=20, help="kills per job (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default 0)")
    parser.add_argument("--only", default="", help="jobs whose name holds this")
    args = parser.parse_args()
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for job in JOBS:
            if args.only in job.name:
                data = Path(folder, job.name)
                made = _forked(lambda job=job, data=data: job.make(data) or 0, Path(folder, "log"))  # type: ignore[misc]
                assert made == 0, Path(folder, "log").read_text("utf-8")[-3000:]
                draw = random.Random(f"{job.name} {args.seed}")
                faults += kill(job, data, Path(folder, "work"), args.n, draw)
    print("\n".join(faults) or "nothing was lost")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
