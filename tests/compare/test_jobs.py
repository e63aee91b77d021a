"""Single runs of a comparison: what is left to do, and how they end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from recbole_mm.compare.jobs import Job, _progress, run_jobs
from recbole_mm.errors import ConfigError

# The least that a reader of results relies on.
RECORD = {
    "status": "ok", "model": "M", "dataset": "d", "seed": 1, "synthetic": False, "leaky": False,
    "fingerprint": {"data": "0", "features": {}}, "counts": {}, "valid": {},
    "config": {"valid_metric": "Hit@1"}, "test": {"hit@1": 1.0},
    "ranks": {"session": ["s"], "rank": [1]}, "epochs_run": 1, "best_epoch": 1, "seconds": {},
}  # fmt: skip


def test_a_killed_run_says_so(tmp_path, monkeypatch):
    job = Job("x", 1, ("--model=none",), tmp_path / "run", tmp_path / "x.log")

    class Killed(subprocess.Popen):
        def __init__(self, command, **options):
            super().__init__(
                [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], **options
            )

    monkeypatch.setattr("recbole_mm.compare.jobs.subprocess.Popen", Killed)
    run_jobs([job])
    assert "killed by SIGKILL" in job.log.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="jobs must be 1 or more"):
        run_jobs([], 0)


def test_runs_side_by_side_get_a_gpu_each(tmp_path, monkeypatch):
    seen = []

    class Started(subprocess.Popen):
        def __init__(self, command, **options):
            seen.append(options["env"].get("CUDA_VISIBLE_DEVICES"))
            super().__init__([sys.executable, "-c", "pass"], **options)

    def devices(count, visible, *arguments):
        monkeypatch.setattr("recbole_mm.compare.jobs.torch.cuda.device_count", lambda: count)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        seen.clear()
        jobs = [
            Job(str(n), n, arguments, tmp_path / f"run{n}", tmp_path / f"{n}.log") for n in (1, 2)
        ]
        run_jobs(jobs, 2)
        return list(seen)

    monkeypatch.setattr("recbole_mm.compare.jobs.subprocess.Popen", Started)
    assert devices(2, "", "--model=M") == ["0", "1"]
    assert devices(2, "5,3", "--model=M") == ["5", "3"]
    assert devices(2, "5,3", "--model=M", "--gpu_id=1") == ["5,3", "5,3"]
    assert devices(1, "4", "--model=M") == ["4", "4"]


def test_a_finished_job_has_nothing_left_to_do(tmp_path):
    job = Job("x", 1, ("--model=M", "--plugins=p"), tmp_path, tmp_path / "x.log")
    assert job.pending() == ["run", "--model=M", "--plugins=p", f"--run_folder={tmp_path}"]
    (tmp_path / "last.safetensors").touch()
    assert job.pending() == ["run", f"--resume={tmp_path}", "--plugins=p"]
    (tmp_path / "result.json").write_text(json.dumps(RECORD))
    assert job.pending() is None


def test_the_time_left_follows_from_the_runs_so_far(monkeypatch):
    monkeypatch.setattr("recbole_mm.compare.jobs.time.monotonic", lambda: 1000.0)
    assert _progress(400.0, 2, 6) == " (6 to go, about 30 min left)"
    assert _progress(400.0, 8, 0) == ""
