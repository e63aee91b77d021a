"""The commands of README and docs run as they stand there.

Commands in ``bash`` fences are executed in a copy of the project, with one epoch where they train
(the README's two opening commands are executed whole by ``.ci/run``). Commands in ``text`` fences
are too long for a test; their options, models and keys are checked.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_mm import cli, options
from recbole_mm.compare.plan import parse_row
from recbole_mm.config import MMConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks/README.md"]
TRAINS = ("run", "compare")


def fences(language: str) -> list[tuple[str, str]]:
    """Return (page, command) of every line of every fence of a language; comments left out."""
    found = []
    for page in PAGES:
        blocks = re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.S | re.M)
        for block in blocks:
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line) for line in lines if line and not line.startswith("#")]
    return found


OPENING = [command for page, command in fences("bash") if page == "README.md"][:2]
COMMANDS = [
    (page, command)
    for page, command in fences("bash")
    # The page on adding a model has files of its own; tests/test_testing.py runs it as a whole.
    if command not in OPENING and page != "adding_a_model.md" and "benchmarks/" not in command
]
PROGRAMS = (["recbole-mm"], ["python", "-m", "recbole_mm"], ["python", "run_recbole_mm.py"])
LONG = [(p, c) for p, c in fences("text") if c.startswith(("recbole-mm", "python"))]


def arguments(command: str) -> list[str] | None:
    """Return the arguments of one of our programs, ``run`` made explicit; None for others."""
    words = shlex.split(command)
    for program in PROGRAMS:
        if words[: len(program)] == program:
            return (["run"] if "run_recbole_mm.py" in program else []) + words[len(program) :]
    return None


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project in which the commands of a page can build on one another."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("run_recbole_mm.py", "recbole_mm", "properties", "atomic_data"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder


def test_the_readme_opens_with_the_two_commands_that_ci_runs() -> None:
    assert "run_recbole_mm.py --model=SRIM --dataset=ml-100k" in OPENING[0]
    assert OPENING[1].endswith("python -m pytest -q")
    for command in OPENING:
        assert command.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install")
    assert (ROOT / "README.md").read_text("utf-8").split("```bash", 1)[0].count("\n") <= 3


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[c for _, c in COMMANDS])
def test_commands_run(page: str, command: str, copy: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "2"}
    script, words = command, arguments(command)
    if words is not None:
        if words[0] in TRAINS and "--epochs=" not in command and "--table_only" not in words:
            words.append("--epochs=1")
        script = shlex.join([sys.executable, "-m", "recbole_mm", *words])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=copy, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{page}: {command}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("page", "command"), LONG, ids=[c[:60] for _, c in LONG])
def test_long_commands_name_known_options_models_and_keys(page: str, command: str) -> None:
    args, rest = cli.build_parser().parse_known_args(arguments(command))
    overrides = options.parse_overrides(rest)
    if args.command == "prepare":  # has no keys; what it does not know is left over
        assert not overrides, page
        return
    rows = getattr(args, "models", None) or [getattr(args, "model", None) or "Pop"]
    for row in map(parse_row, rows):
        own = options.parse_overrides([f"--{name}={value}" for name, value in row.keys])
        config = MMConfig(row.model, args.dataset, (), {**overrides, **own})
        assert config["model"] == row.model, page
