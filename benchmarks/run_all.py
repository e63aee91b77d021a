"""Run the benchmarks one after another and write one table, so that two versions can be compared.

    python benchmarks/run_all.py [--only="srim_step startup"] [--output=FOLDER] [--against=FILE]

``results.json`` holds machine, version and every number as ``{script, table, row, column, value}``;
``results.md`` the same as one table. ``--against`` names the ``results.json`` of another version:
its numbers stand beside, with the quotient. Compare columns of seconds only if both were taken on
one machine; quotients such as ``x sparse`` or ``x product`` are of one run and travel better. A
script that stops, for example because two sides compute different losses, ends all with code 1.
``batches.py`` needs real sessions and is run by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import common

HERE = Path(__file__).parent
SCRIPTS = (
    "startup", "feature_load", "partitions", "evaluation", "chunked_loss", "srim_step",
    "srim_scale", "alterrec_step", "mmsbr_step", "mdsrec_step", "counting", "knn_graph",
    "loader_epoch", "distributed", "prepare_amazon", "serve",
)  # fmt: skip
Number = dict[str, Any]


def tables_of(script: str, quick: bool) -> list[dict[str, Any]]:
    """Run one script and return its tables; what it prints is shown."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tables.json"
        words = [sys.executable, str(HERE / f"{script}.py"), f"--json={file}"]
        done = subprocess.run([*words, *(["--quick"] if quick else [])])
        if done.returncode:
            raise SystemExit(f"{script}.py ended with code {done.returncode}; see above")
        return list(json.loads(file.read_text()))


def numbers(script: str, tables: Sequence[Mapping[str, Any]]) -> Iterator[Number]:
    """Yield every number of a script's tables with its place."""
    for table in tables:
        keys, header = table["keys"], table["header"]
        for cells in table["rows"]:
            row = ", ".join(map(str, cells[:keys]))
            for column, value in list(zip(header, cells, strict=True))[keys:]:
                if isinstance(value, int | float):
                    place = {"script": script, "table": table["title"]}
                    yield {**place, "row": row, "column": column, "value": value}


def machine() -> dict[str, Any]:
    """Return what the numbers were taken on: versions, threads, and what the machine reaches."""
    return {
        "recbole_mm": _version(), "python": platform.python_version(),
        "system": platform.platform(), "cores": os.cpu_count(),
        "threads": os.environ["OMP_NUM_THREADS"], **common.run_part("rates"),
    }  # fmt: skip


def rates() -> dict[str, Any]:
    """Measure a matrix product and a copy of memory."""
    import torch

    found = {"matrix product GFLOP/s": common.gemm_rate() / 1e9}
    return {"torch": torch.__version__, **found, "copy GB/s": common.copy_rate() / 1e9}


def _version() -> str:
    from recbole_mm.version import __version__

    command = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return f"{__version__} {commit}".strip()


def markdown(results: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> str:
    """Return the one table, with the numbers of another version beside if there are any."""
    lines = [f"{key}: {value}  " for key, value in results["machine"].items()]
    if before:
        lines.append(f"before: {before['machine']['recbole_mm']}  ")
    old = {_place(one): one["value"] for one in before["numbers"]} if before else {}
    header = ["script", "table", "row", "column", "value"]
    header += ["before", "value / before"] if before else []
    lines += ["", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for one in results["numbers"]:
        cells = [*_place(one), common.text(one["value"])]
        if before:
            was = old.get(_place(one))
            cells += ["", ""] if was is None else [common.text(was), _quotient(one["value"], was)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _place(number: Number) -> tuple[str, ...]:
    return tuple(str(number[key]) for key in ("script", "table", "row", "column"))


def _quotient(value: float, before: float) -> str:
    return common.text(value / before) if before else ""


def main() -> None:
    """Run, and write both files after each script, so that a stop loses nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=" ".join(SCRIPTS), help="names of scripts")
    parser.add_argument("--output", default="benchmark_results", type=Path, help="folder")
    parser.add_argument("--against", type=Path, help="results.json of another version")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all works")
    args = parser.parse_args()
    chosen = args.only.replace(",", " ").split()
    if unknown := sorted(set(chosen) - set(SCRIPTS)):
        raise SystemExit(f"--only: no script {', '.join(unknown)}; there are {', '.join(SCRIPTS)}")
    before = json.loads(args.against.read_text()) if args.against else None
    args.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(), "quick": args.quick, "numbers": []}
    for script in chosen:
        print(f"## {script}\n", flush=True)
        results["numbers"] += numbers(script, tables_of(script, args.quick))
        (args.output / "results.json").write_text(json.dumps(results, indent=1))
        (args.output / "results.md").write_text(markdown(results, before), "utf-8")
    print(f"{len(results['numbers'])} numbers in {args.output}/results.json and results.md")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("["):
        common.main({"rates": rates}, lambda: None)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "2")
        main()
