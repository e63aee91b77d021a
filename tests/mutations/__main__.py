"""Do the tests notice? ``python -m tests.mutations [--n=10] [--only=srim] [--seed=1]``.

Changes a sign, an operation, a term, an index or a comparison in the model and loss files, one at a
time in a copy, runs the tests of that folder (those of the file first), and lists the changes that
no test notices. One process imports what is slow and forks, so that a change costs little more than
its tests.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas
import pytest
import recbole.data
import recbole.trainer
import scipy.sparse
import sklearn.cluster
import torch

ROOT = Path(__file__).parents[2]
# Of the processor, not of the clock: a busy machine must not look like a test that fails.
SECONDS = 180
FOLDERS = ("model", "graph", "evaluation")
_OTHER: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}  # fmt: skip


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Yield every node that can be changed, and the kind of change."""
    skipped = {id(part) for node in ast.walk(tree) for part in _said(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.BinOp) and type(node.op) in _OTHER:
            yield node, "operation"
            if isinstance(node.op, (ast.Add, ast.Sub)):
                yield node, "term dropped"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield node, "sign"
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in _OTHER:
            yield node, "comparison"
        elif isinstance(node, ast.Subscript):
            for part in ast.walk(node.slice):
                if isinstance(part, ast.Constant) and type(part.value) is int:
                    yield part, "index"


def _said(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what stands in annotations and error messages."""
    for name in ("annotation", "returns"):
        if isinstance(part := getattr(node, name, None), ast.AST):
            yield from ast.walk(part)
    if isinstance(node, (ast.Raise, ast.JoinedStr)):
        yield from ast.walk(node)


def _change(node: ast.AST, kind: str) -> None:
    """Change a node in place."""
    if kind == "operation":
        node.op = _OTHER[type(node.op)]()  # type: ignore[attr-defined]
    elif kind == "comparison":
        node.ops[0] = _OTHER[type(node.ops[0])]()  # type: ignore[attr-defined]
    elif kind == "index":
        node.value += 1  # type: ignore[attr-defined]
    elif kind == "sign":
        node.op = ast.UAdd()  # type: ignore[attr-defined]
    else:
        node.op, node.right = ast.Add(), ast.Constant(0)  # type: ignore[attr-defined]


def changes(source: str) -> list[tuple[int, str, str]]:
    """Return line, description and new source of every change."""
    tree = ast.parse(source)
    found = []
    for number, (node, kind) in enumerate(_places(tree)):
        other = copy.deepcopy(tree)
        twin, _ = list(_places(other))[number]
        before = ast.unparse(node)
        _change(twin, kind)
        text = f"{kind}: {before} -> {ast.unparse(twin)}"
        found.append((node.lineno, text, ast.unparse(other)))  # type: ignore[attr-defined]
    return found


def _tests_of(file: Path) -> list[str]:
    """Return the tests that should notice: of the file, then of its folder."""
    place = ROOT.joinpath("tests", *file.relative_to(ROOT / "recbole_mm").parts[:-1])
    tests = sorted(place.glob("test_*.py"), key=lambda test: test.stem != f"test_{file.stem}")
    return [str(test.relative_to(ROOT)) for test in tests]


def _noticed(copy_of: Path, tests: list[str]) -> bool:
    """Run tests in a fork, in the copy; return whether one fails, or hangs."""
    pid = os.fork()
    if pid == 0:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        os.chdir(copy_of)
        sys.path[:] = [str(copy_of), *[path for path in sys.path if Path(path or ".") != ROOT]]
        os.environ["PYTHONPATH"] = str(copy_of)
        os._exit(int(pytest.main(["-q", "-x", "-n0", "-p", "no:cacheprovider", *tests])))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def main() -> int:
    """Change, test, and print what went unnoticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--n", type=int, default=0, help="changes per file (default 0: all)")
    parser.add_argument("--seed", type=int, default=0, help="which changes, if not all")
    parser.add_argument("--only", default="", help="files whose path holds this")
    args = parser.parse_args()
    assert (torch, pandas, scipy, sklearn, recbole) and "recbole_mm" not in sys.modules
    total = missed = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "copy")
        for name in ("recbole_mm", "tests", "properties", "atomic_data", "pyproject.toml"):
            kind = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            place.mkdir(exist_ok=True)
            kind(ROOT / name, place / name)
        for file in sorted(f for one in FOLDERS for f in (ROOT / "recbole_mm" / one).rglob("*.py")):
            if args.only not in str(file.relative_to(ROOT)) or file.name == "settings.py":
                continue
            source, start = file.read_text("utf-8"), time.perf_counter()
            found = changes(source)
            random.Random(f"{file.name} {args.seed}").shuffle(found)
            found = found[: args.n or None]
            there, silent = place / file.relative_to(ROOT), []
            for line, text, changed in found:
                there.write_text(changed, "utf-8")
                if not _noticed(place, _tests_of(file)):
                    silent.append(f"  line {line}: {text}")
            there.write_text(source, "utf-8")
            total, missed = total + len(found), missed + len(silent)
            seconds = time.perf_counter() - start
            print(f"{file.relative_to(ROOT)}: {len(silent)} of {len(found)}, {seconds:.0f} s")
            print("\n".join(silent), end="\n" * bool(silent), flush=True)
    print(f"{missed} of {total} changes were not noticed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
