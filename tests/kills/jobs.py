"""What is killed: one job each, how it goes on, and what must be equal in the end."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from recbole_mm import cli
from recbole_mm.compare import jobs as compare_jobs
from recbole_mm.data.checked import array_digest
from recbole_mm.files import LAST, RESULT
from recbole_mm.testing.case import SMALL, write_toy
from recbole_mm.trainer.checkpoint import load_checkpoint, pack

_TRAINING = ("--hidden_size=8", "--inner_size=8", "--n_layers=1", "--train_batch_size=128",
             "--use_gpu=false", "--floor=false", "--part_metrics=none")  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One command.

    Attributes
    ----------
    arguments
        Returns the command line, given the folder; called again to go on.
    outcome
        Returns what the folder holds in the end, as text that must be the same.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    outcome: Callable[[Path], str]


def make_folder(folder: Path) -> None:
    """Write the data that the jobs read."""
    write_toy(folder, SMALL, ())


def _run(folder: Path) -> list[str]:
    place = folder / "run"
    if (place / LAST).is_file() and not (place / RESULT).is_file():
        return ["run", f"--resume={place}"]
    return ["run", "--model=SASRec", f"--dataset={SMALL.name}", f"--data_path={folder}",
            "--epochs=4", f"--run_folder={place}", *_TRAINING]  # fmt: skip


def _compare(folder: Path) -> list[str]:
    return ["compare", "--models=Pop SASRec", "--seeds=1", f"--dataset={SMALL.name}",
            f"--data_path={folder}", "--epochs=2", f"--output={folder / 'all'}",
            "--use_gpu=false", "--floor=false"]  # fmt: skip


def _tune(folder: Path) -> list[str]:
    place = folder / "tuned"
    return ["tune", "--models=SASRec", "--trials=3", f"--dataset={SMALL.name}",
            f"--data_path={folder}", "--epochs=3", f"--output={place}", *_TRAINING]  # fmt: skip


def _encode(folder: Path) -> list[str]:
    return ["encode", f"--dataset={SMALL.name}", f"--data_path={folder}", "--fields=class",
            "--text_encoder=tfidf", f"--out={folder / 'vectors'}"]  # fmt: skip


def _prepare(folder: Path) -> list[str]:
    return ["prepare", "synthetic", "--seed=3", "--force=true", f"--out={folder / 'new'}"]


def _results(folder: Path) -> str:
    """Return numbers and weights of every run below a folder; times are left out."""
    found = {}
    for file in sorted(folder.rglob(RESULT)):
        record = json.loads(file.read_text("utf-8"))
        keys = ("valid", "test", "ranks", "history", "best_epoch", "epochs_run", "fingerprint")
        state = load_checkpoint(file.parent / LAST)
        del state["seconds"]
        tree, tensors = pack(state)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        digest = array_digest(arrays, json.dumps(tree))
        name = str(file.parent.relative_to(folder))
        found[name] = [{key: record[key] for key in keys}, digest]
    return json.dumps(found, sort_keys=True) + _unfinished(folder)


def _tables(folder: Path) -> str:
    rows = (folder / "all" / "table.csv").read_text("utf-8").splitlines()
    return _results(folder) + str([row.split(",")[0] for row in rows])


def _trials(folder: Path) -> str:
    """Return all trials with their settings and values, and what is best; times are left out."""
    with open(folder / "tuned" / "trials.csv", encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    for line in lines:
        del line["seconds"]
    best = (folder / "tuned" / "SASRec.yaml").read_text("utf-8").splitlines()[1:]
    left = [path.name for path in folder.rglob("*.safetensors")]
    return json.dumps([lines, best, left]) + _unfinished(folder)


def _files(place: str) -> Callable[[Path], str]:
    """Return the names and hashes of the files in a folder."""

    def outcome(folder: Path) -> str:
        files = sorted(path for path in (folder / place).rglob("*") if path.is_file())
        digests = {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.suffix not in (".safetensors", ".lock")  # holds a time, or nothing
        }
        return json.dumps(digests)

    return outcome


def _unfinished(folder: Path) -> str:
    """Return the names of temporary files that were left."""
    left = [path.name for path in sorted(folder.rglob(".*")) if not path.name.endswith(".lock")]
    return str(left)


JOBS = [
    Job("run", _run, _results),
    Job("encode", _encode, _files("vectors")),
    Job("prepare", _prepare, _files("new")),
    Job("compare", _compare, _tables),
    Job("tune", _tune, _trials),
]


class Forked:
    """Stands for a process of a comparison: a fork, which has everything imported already."""

    def __init__(self, command: list[str], stdout: IO[bytes], **more: object) -> None:
        assert command[1:3] == ["-m", "recbole_mm"]
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno(), 2)
            os._exit(execute(command[3:]))

    def poll(self) -> int | None:
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if done:
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def execute(argv: list[str]) -> int:
    """Run a command in this process."""
    compare_jobs.subprocess.Popen = Forked  # type: ignore[assignment,misc]
    try:
        code = cli.main(argv)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code
