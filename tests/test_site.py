"""The site of the docs: every page has its place in it, and it builds without a complaint."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def named(entry: object) -> list[str]:
    """Return the pages below an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in named(part)]


def test_every_page_stands_in_the_navigation_once() -> None:
    pages = named(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"])
    assert len(pages) == len(set(pages))
    here = {path.name for path in (ROOT / "docs").glob("*.md")}
    elsewhere = {"index.md", "contributing.md", "changelog.md", "security.md", "benchmarks.md"}
    elsewhere |= {"tutorial.md"}
    assert here | elsewhere == {page for page in pages if "/" not in page}


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs is missing: install recbole_mm[docs]; .ci/run builds the site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "index.html").read_text("utf-8")
    assert 'href="own_data/"' in home and "docs/own_data.md" not in home.split("<pre")[0]
    assert "Train a model, select the epoch" in (tmp_path / "reference/index.html").read_text(
        "utf-8"
    )
