"""Start of a run on Cellphones: processor time until an error, an import, a first loss."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

import common

QUICK = {"MODELS": ("SASRec",)}
MODELS = ("SASRec", "SRIM", "AlterRec", "MMSBR", "MDSRec")


def command(arguments: list[str]) -> dict[str, Any]:
    """Run one command to its end; the time is that of its process alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = [sys.executable, "-m", "recbole_mm", *arguments]
    done = subprocess.run(whole, cwd=common.ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": used, "said": (done.stderr or done.stdout).splitlines()[0]}


def imported() -> dict[str, Any]:
    """Import what a run needs: torch, RecBole, pandas and the rest."""
    import importlib

    return {"seconds": common.seconds(lambda: importlib.import_module("recbole_mm.run"))}


def first_batch(model: str, folder: str) -> dict[str, Any]:
    """Read the configuration, data and vectors, build the model, and compute a first loss."""
    from recbole_mm import run
    from recbole_mm.config import MMConfig

    keys = {"data_path": str(common.ROOT / "atomic_data"), "use_gpu": False, "run_folder": folder}

    def job() -> None:
        prepared = run.prepare(MMConfig(model, "Cellphones", (), keys))
        prepared.model.calculate_loss(next(iter(prepared.train)))

    return {"seconds": common.seconds(job)}


def report() -> None:
    """Print the tables."""
    print(__doc__)
    words = ["run", "--dataset=Cellphones", "--model=SRIM"]
    rows = [
        (name, (found := common.run_part("command", arguments=more))["seconds"], found["said"][:60])
        for name, more in (
            ("--help", ["--help"]),
            ("a misspelt key", [*words, "--learning_rat=0.1"]),
            ("a value out of range", [*words, "--n_layers=-1"]),
        )
    ]
    rows.append(("import recbole_mm.run", common.run_part("imported")["seconds"], ""))
    common.table(("", "CPU s", "says"), rows, "until the answer")
    with common.temporary_folder() as folder:
        # Text vectors are made at the first run on a data set; that is not counted here.
        common.run_part("first_batch", model="SRIM", folder=str(folder))
        found = [common.run_part("first_batch", model=m, folder=str(folder)) for m in MODELS]
    rows = [(m, f["seconds"], f["peak_mb"]) for m, f in zip(MODELS, found, strict=True)]
    common.table(("model", "CPU s", "peak MiB"), rows, "first loss after the import")


if __name__ == "__main__":
    common.main({"command": command, "imported": imported, "first_batch": first_batch}, report)
