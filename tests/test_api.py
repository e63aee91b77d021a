"""The public interface: what the pages show runs, and importing the package stays cheap."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_mm
from recbole_mm.serve.recommender import Recommender

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "atomic_data", here / "atomic_data")
    return here


def test_what_the_pages_show_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pack that docs/serve.md loads is the one that docs/api.md makes."""
    monkeypatch.chdir(folder)
    shown = [*blocks("api.md"), *blocks("serve.md")]
    assert len(shown) == 2
    names: dict[str, object] = {}
    for block in shown:
        exec(compile(block, "docs", "exec"), names)
    assert "SASRec" in capsys.readouterr().out
    later = names["later"]
    assert isinstance(later, Recommender) and later.items.tokens[-1] == "NEW1"
    found = later.recommend([["NEW1"]], k=3)[0]
    assert len(found.items) == 3 and found.note == "" and found.skipped == 0


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, recbole_mm; assert 'torch' not in sys.modules; print(recbole_mm.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == recbole_mm.__version__, done.stderr


def test_rooms_are_modules_and_jobs() -> None:
    from recbole_mm import api

    for name in ("run", "compare", "encode", "tune"):
        assert inspect.ismodule(getattr(recbole_mm, name)) and callable(getattr(recbole_mm, name))
        assert "**" in str(inspect.signature(getattr(api, name)))
    with pytest.raises(recbole_mm.MMError, match="Did you mean SRIM"):
        recbole_mm.run("SRIMM", "Cellphones")
    with pytest.raises(AttributeError):
        _ = recbole_mm.runn
