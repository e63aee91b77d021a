"""A wheel carries all that an installed package needs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and unpack it, as an installation would."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    # A copy, because building writes into the source folder.
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation",
         "-w", str(folder), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_module_and_yaml_file(site: Path) -> None:
    def names(root: Path, pattern: str) -> set[str]:
        found = {str(path.relative_to(root)) for path in root.rglob(pattern)}
        return {name for name in found if "__pycache__" not in name}

    inside = site / "recbole_mm"
    assert names(inside / "properties", "*.yaml") == names(ROOT / "properties", "*.yaml")
    modules = {n for n in names(inside, "*.py") if not n.startswith("properties")}
    assert modules == names(ROOT / "recbole_mm", "*.py")
    assert (inside / "py.typed").is_file()


def test_the_installed_package_runs_with_its_own_properties(site: Path, tmp_path: Path) -> None:
    code = "import recbole_mm.yaml_files as y; print(y.path('overall.yaml'))"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    found = subprocess.run([sys.executable, "-c", code], **run)  # type: ignore[call-overload]
    assert found.stdout.startswith(str(site)), found.stderr
    audit = [sys.executable, "-m", "recbole_mm", "audit", "--dataset=Cellphones"]
    done = subprocess.run([*audit, f"--data_path={ROOT / 'atomic_data'}"], **run)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stdout and "passed: no session stands in two parts" in done.stdout
    # Without the clone around it, the data are looked for in the current folder.
    lost = subprocess.run(audit, **run)  # type: ignore[call-overload]
    assert lost.returncode == 2 and "Cellphones.inter: no such file" in lost.stderr
