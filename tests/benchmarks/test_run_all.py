"""Every benchmark runs, with tiny sizes; nothing is timed here, only that both sides agree."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
# Run by themselves: what the others share, and what needs real sessions.
ALONE = {"common", "run_all", "batches"}

if not hasattr(os, "fork"):
    pytest.skip(
        "quick benchmarks copy their process, which this system cannot", allow_module_level=True
    )


@pytest.fixture(scope="module")
def run_all() -> ModuleType:
    """Load the script as a module."""
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("run_all", FOLDER / "run_all.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(FOLDER))
    return module


def test_no_script_is_forgotten(run_all: ModuleType) -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*run_all.SCRIPTS, *ALONE}


@pytest.mark.parametrize(
    "script", sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ALONE)
)
def test_a_script_runs(run_all: ModuleType, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tables = run_all.tables_of(script, quick=True)
    found = list(run_all.numbers(script, tables))
    places = [run_all._place(one) for one in found]
    assert found and len(set(places)) == len(places), "two numbers have one name"
    assert all(isinstance(one["value"], int | float) for one in found)


def test_two_sides_that_differ_are_refused(run_all: ModuleType) -> None:
    run_all.common.agree("equal", {"a": 1.0, "b": 1.00001})
    with pytest.raises(SystemExit, match="first losses differ"):
        run_all.common.agree("other", {"a": 1.0, "b": 1.01})


def test_one_table_and_the_one_before(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "run_all.py"), "--quick", "--only=chunked_loss"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, f"--output={tmp_path / 'a'}"], check=True, env=environment)
    first: dict[str, Any] = json.loads((tmp_path / "a" / "results.json").read_text())
    assert first["quick"] and first["machine"]["threads"] == "1"
    assert first["machine"]["matrix product GFLOP/s"] > 0
    assert {one["script"] for one in first["numbers"]} == {"chunked_loss"}
    for one in first["numbers"]:
        one["value"] *= 2
    (tmp_path / "old.json").write_text(json.dumps(first))
    more = [f"--output={tmp_path / 'b'}", f"--against={tmp_path / 'old.json'}"]
    subprocess.run([*command, *more], check=True, env=environment)
    table = (tmp_path / "b" / "results.md").read_text().splitlines()
    assert "| script | table | row | column | value | before | value / before |" in table
    assert sum(line.startswith("| chunked_loss |") for line in table) == len(first["numbers"])


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "run_all.py"), "--only=nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "no script nothing" in done.stderr
    assert not list(tmp_path.iterdir())
