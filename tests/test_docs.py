"""The commands of README and docs run as they stand there.

Commands in ``bash`` fences are executed on a part of the data, with one epoch where they train (the
README's two opening commands are executed whole by ``.ci/run``). Commands in ``text`` fences
are too long for a test; their options, models and keys are checked.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from recbole_mm import cli, options
from recbole_mm.config import MMConfig
from recbole_mm.rows import parse_row

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks/README.md"]
TRAINS = ("run", "compare", "tune", "sweep")
# Sessions before this one are left out of the data that the commands get.
FIRST = "S2700"


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
# A command that stands on two pages is run once.
COMMANDS = [
    (page, command)
    for command, page in {c: p for p, c in fences("bash")}.items()
    # The page on adding a model has files of its own; tests/test_testing.py runs it as a whole.
    if command not in OPENING and page != "adding_a_model.md" and "benchmarks/" not in command
]
PROGRAMS = (
    ["recbole-mm"],
    ["python", "-m", "recbole_mm"],
    ["python", "run_recbole_mm.py"],
    ["torchrun", "--nproc_per_node=2", "run_recbole_mm.py"],
    ["torchrun", "--nproc_per_node=2", "-m", "recbole_mm"],
)


def arguments(command: str) -> list[str] | None:
    """Return the arguments of one of our programs, ``run`` made explicit; None for others."""
    words = shlex.split(command)
    for program in PROGRAMS:
        if words[: len(program)] == program:
            return (["run"] if "run_recbole_mm.py" in program else []) + words[len(program) :]
    return None


LONG = [(p, c) for p, c in fences("text") if arguments(c)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with a part of the data, in which commands can build on one another."""
    here = tmp_path / "project"
    shutil.copytree(ROOT / "atomic_data", here / "atomic_data")
    file = here / "atomic_data" / "Cellphones" / "Cellphones.inter"
    head, *rows = file.read_text("utf-8").splitlines(keepends=True)
    file.write_text(head + "".join(row for row in rows if row > FIRST), "utf-8")
    return here


def test_the_readme_opens_with_the_two_commands_that_ci_runs() -> None:
    assert "run_recbole_mm.py --model=SRIM --dataset=ml-100k" in OPENING[0]
    assert OPENING[1].endswith("python -m pytest -q")
    for command in OPENING:
        assert command.startswith("python3 -m venv .venv && . .venv/bin/activate && pip install")
    assert (ROOT / "README.md").read_text("utf-8").split("```bash", 1)[0].count("\n") <= 3


@pytest.mark.usefixtures("in_process")
def test_commands_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One test for all, because a command may need what the ones before it have made."""
    monkeypatch.chdir(folder)
    assert len(COMMANDS) > 20
    for page, command in COMMANDS:
        code = execute(command)
        shown = capfd.readouterr()
        assert code == 0, f"{page}: {command}\n{shown.out}\n{shown.err}"


def execute(command: str) -> int:
    """Run one command, ours in this process, and return its exit code."""
    words = arguments(command)
    if words is None:
        return subprocess.run(["bash", "-euo", "pipefail", "-c", command], timeout=600).returncode
    if words[0] in TRAINS and "--epochs=" not in command and "--table_only" not in words:
        words.append("--epochs=1")
    return cli.main(words)


@pytest.mark.parametrize(("page", "command"), LONG, ids=[c[:60] for _, c in LONG])
def test_long_commands_name_known_options_models_and_keys(page: str, command: str) -> None:
    args, rest = cli.build_parser().parse_known_args(arguments(command))
    overrides = options.parse_overrides(rest)
    if not hasattr(args, "dataset") or args.command == "prepare":
        # Has no keys; what it does not know is left over.
        assert not overrides, page
        return
    rows = getattr(args, "models", None) or [getattr(args, "model", None) or "Pop"]
    for row in map(parse_row, rows):
        own = options.parse_overrides([f"--{name}={value}" for name, value in row.keys])
        config = MMConfig(row.model, args.dataset, (), {**overrides, **own})
        assert config["model"] == row.model, page
