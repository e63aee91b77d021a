"""Fuzz by hand: ``python -m tests.fuzz --n=10000 [--only=NAME] [--seed=1]``."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.fuzz.engine import fuzz, fuzz_command_line
from tests.fuzz.targets import TARGETS, make_folder


def main() -> int:
    """Fuzz every format, print each escape, and return 1 if there was any."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--n", type=int, default=300, help="inputs per format (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage (default 0)")
    parser.add_argument("--only", default="", help="formats whose name holds this")
    args = parser.parse_args()
    logging.disable()
    total = escapes = 0
    with tempfile.TemporaryDirectory() as folder:
        good, work = make_folder(Path(folder, "good")), Path(folder, "work")
        jobs = {one.name: partial(fuzz, one) for one in TARGETS}
        jobs["command line"] = fuzz_command_line
        for name, job in jobs.items():
            if args.only not in name:
                continue
            start, found = time.perf_counter(), 0
            for number, story in job(good, work, args.n, args.seed):
                found += 1
                print(f"---- {name}, number {number}\n{story}")
            total, escapes = total + args.n, escapes + found
            seconds = time.perf_counter() - start
            print(f"{name}: {args.n} inputs, {found} escapes, {seconds:.1f} s", flush=True)
    print(f"{total} inputs, {escapes} escapes")
    return int(escapes > 0)


if __name__ == "__main__":
    sys.exit(main())
