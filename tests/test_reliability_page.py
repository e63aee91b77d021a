"""docs/reliability.md names every point once, and only tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")


def test_every_point_has_a_state_and_something_that_holds_it() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (\w+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert [int(number) for number, *_ in rows] == list(range(1, 63))
    for number, _, state, cell in rows:
        assert state in ("held", "partly", "not"), number
        # What is not held whole says why, beside the tests that there are.
        words = re.sub(r"`[^`]*`", "", cell).strip(" ,;")
        assert "::" in cell if state == "held" else len(words) > 20, number


def test_the_tests_that_it_names_exist() -> None:
    named = set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE))
    assert len(named) > 100
    for file, name in named:
        tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
        assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, (file, name)
