"""Fuzz by hand: ``python -m tests.fuzz --n=10000 [--only=NAME] [--seed=1]``.

Files are damaged byte by byte (each escape is printed), and inputs are drawn by hypothesis, which
stops a kind at its first escape and makes it small.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.fuzz.drawing import Escape, draw
from tests.fuzz.drawn import DRAWN, Drawn
from tests.fuzz.engine import fuzz, fuzz_command_line
from tests.fuzz.packs import PACK_TARGETS
from tests.fuzz.targets import TARGETS, make_folder

Job = Callable[[Path, Path, int, int], Iterator[tuple[int, str]]]
Make = Callable[[Path], Path]


def _drawn(drawn: Drawn, good: Path, work: Path, n: int, seed: int) -> Iterator[tuple[int, str]]:
    try:
        draw(drawn, good, work, n, seed)
    except Escape as escape:
        yield 0, str(escape)


def _jobs() -> dict[str, tuple[Make, Job]]:
    """Return what there is to fuzz, by name, and what makes its good files."""
    jobs: dict[str, tuple[Make, Job]] = {
        one.name: (one.make, partial(fuzz, one)) for one in (*TARGETS, *PACK_TARGETS)
    }
    jobs["command line"] = make_folder, fuzz_command_line
    return jobs | {f"drawn: {one.name}": (one.make, partial(_drawn, one)) for one in DRAWN}


def main() -> int:
    """Fuzz every format, print each escape, and return 1 if there was any."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--n", type=int, default=300, help="inputs per format (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default 0)")
    parser.add_argument("--only", default="", help="formats whose name holds this")
    args = parser.parse_args()
    logging.disable()
    total = escapes = 0
    made: dict[Make, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, job) in _jobs().items():
            if args.only not in name:
                continue
            if make not in made:
                made[make] = make(Path(folder, f"good{len(made)}"))
            start, found = time.perf_counter(), 0
            for number, story in job(made[make], Path(folder, "work"), args.n, args.seed):
                found += 1
                print(f"---- {name}, number {number}\n{story}")
            total, escapes = total + args.n, escapes + found
            seconds = time.perf_counter() - start
            print(f"{name}: {args.n} inputs, {found} escapes, {seconds:.1f} s", flush=True)
    print(f"{total} inputs, {escapes} escapes")
    return int(escapes > 0)


if __name__ == "__main__":
    sys.exit(main())
