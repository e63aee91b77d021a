"""The rooms of the package: imports go one way, and docs/architecture.md names what is there."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import recbole_mm

PACKAGE = Path(recbole_mm.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
# An import points to the left in this order, or stays in its room.
ORDER = (
    "data", "graph", "prepare", "encode", "model", "evaluation", "page", "trainer", "run",
    "compare", "tune", "serve", "testing",
)  # fmt: skip
LONGEST_FILE = 400


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Return the package's modules that a file imports anywhere, for types alone too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write the import of {node.module} from the top"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inside = names & set(FILES)
            found |= inside | ({str(node.module)} if names - inside else set())
    return (found & set(FILES)) - {module_name(path)}


GRAPH = {name: imports(path) for name, path in FILES.items()}


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ORDER else None


def test_no_circle_of_imports() -> None:
    order = list(TopologicalSorter(GRAPH).static_order())  # CycleError names the circle
    place = {module: position for position, module in enumerate(order)}
    assert set(place) == set(FILES)
    assert all(place[needed] < place[module] for module in GRAPH for needed in GRAPH[module])


def test_a_circle_would_be_found() -> None:
    circular = {**GRAPH, "recbole_mm.errors": {"recbole_mm.cli"}}
    with pytest.raises(CycleError):
        TopologicalSorter(circular).prepare()


def test_imports_point_to_the_left() -> None:
    for module, targets in GRAPH.items():
        for target in targets:
            here, there = room(module), room(target)
            if here and there:
                assert ORDER.index(there) <= ORDER.index(here), f"{module} -> {target}"


def test_models_know_neither_files_nor_encoders() -> None:
    for module in FILES:
        if room(module) == "model":
            text = FILES[module].read_text(encoding="utf-8")
            assert not re.search(r"\bopen\(|read_text|read_bytes|read_atomic|read_itememb", text)
            assert not {"prepare", "encode"} & {room(target) for target in GRAPH[module]}, module


def test_the_page_names_every_room_and_file_at_the_top() -> None:
    named = set(re.findall(r"`(\w+)/`", PAGE.read_text(encoding="utf-8")))
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= named
    assert named & set(ORDER) <= folders
    files = set(re.findall(r"`(\w+\.py)`", PAGE.read_text(encoding="utf-8")))
    assert {path.name for path in PACKAGE.glob("[!_]*.py")} <= files


def test_no_file_is_long() -> None:
    for path in FILES.values():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE, path
