"""Some kills of real processes; any number by hand: ``python -m tests.kills``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
@pytest.mark.parametrize(
    ("job", "n"), [("run", 8), ("encode", 5), ("prepare", 4), ("compare", 3), ("tune", 6)]
)
def test_a_killed_job_goes_on_to_the_same_bits(job: str, n: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.kills", f"--n={n}", f"--only={job}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(rf"{job}: {n} kills \((\d+) hit\), 0 lost something", done.stdout)
    assert found is not None and int(found[1]) >= n // 2, done.stdout
