"""The tutorial runs from its first cell to its last, and ends where it says."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def test_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    ranks = names["ranks"]
    # A tea pot is nearer to baskets of tea than a bike trailer is, and the other way round.
    assert ranks["new1", "tea"] < ranks["new1", "bike"]
    assert ranks["new2", "bike"] < ranks["new2", "tea"]
    found = names["found"]
    assert [bool(one.note) for one in found] == [False, False, True]
    assert len(names["figure"].axes) == 2
    assert "floor" in names["runs"]["SRIM"].record
    # Nothing of the place where it was run is kept in the page.
    assert "/tmp/" not in NOTEBOOK.read_text("utf-8") and "/root" not in NOTEBOOK.read_text("utf-8")
