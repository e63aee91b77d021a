"""Reading the results of a comparison back from its folder.

A comparison folder holds ``plan.json`` (which rows, which seeds), one run folder per row and seed
with its ``result.json``, and what the runs printed in ``logs/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import numpy as np

from recbole_mm.errors import ConfigError, DataError
from recbole_mm.files import fits, read_json
from recbole_mm.rows import KnockOut
from recbole_mm.run.floor import FLOOR
from recbole_mm.run.record import Record, marks, read_result

PLAN = "plan.json"


class PlannedRun(TypedDict):
    """One run in ``plan.json``; paths are relative to the comparison's folder."""

    seed: int
    folder: str
    log: str
    command: list[str]


class _EveryRow(TypedDict):
    """What every row has."""

    label: str
    model: str
    runs: list[PlannedRun]


class PlannedRow(_EveryRow, total=False):
    """One row in ``plan.json``; ``tuned`` names the file that its settings come from."""

    tuned: str
    knock_out: KnockOut


class Plan(TypedDict):
    """The content of ``plan.json``: the rows, and the label of the one they are tested against."""

    baseline: str | None
    rows: list[PlannedRow]


@dataclass(frozen=True)
class Attempt:
    """One run of a row: its record if it ended well, else the reason why not."""

    seed: int
    command: tuple[str, ...]
    record: Record | None
    error: str
    log: str


@dataclass(frozen=True)
class Row:
    """One row of a table: a label and its runs, one per seed.

    ``tuned`` names the file of its settings, if they were searched; ``knock_out`` says what it
    lacks, if it was made of another row.
    """

    label: str
    attempts: tuple[Attempt, ...]
    tuned: str = ""
    knock_out: KnockOut | None = None

    @property
    def records(self) -> list[Record]:
        """Records of the runs that ended well."""
        return [attempt.record for attempt in self.attempts if attempt.record is not None]

    @property
    def failed(self) -> list[Attempt]:
        """Runs that did not end well."""
        return [attempt for attempt in self.attempts if attempt.record is None]

    def values(self, *path: str) -> np.ndarray:
        """Return one number of each good run, ``(seeds,)``: ``values("test", "hit@10")``.

        A number that a record lacks is ``nan``.
        """
        return np.array([_at(record, path) for record in self.records], dtype=np.float64)

    def ranks(self) -> np.ndarray:
        """Return the ranks of all good runs, ``(seeds, rows)``."""
        return np.array([record["ranks"]["rank"] for record in self.records])

    @property
    def marks(self) -> str:
        """What is true of a run and must not be overlooked; see `recbole_mm.run.record.marks`."""
        found = dict.fromkeys(mark for record in self.records for mark in marks(record))
        return " ".join([*(["TUNED"] if self.tuned else []), *found])


def _at(record: Record, path: Sequence[str]) -> float:
    found: object = record
    for key in path:
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return float(found) if isinstance(found, (int, float)) else float("nan")


def read_rows(folder: str | Path) -> tuple[list[Row], str | None]:
    """Read the rows of a comparison folder and the label of its baseline.

    Raises
    ------
    ConfigError
        The folder holds no ``plan.json``.
    DataError
        The plan or a result file is damaged.
    """
    folder = Path(folder)
    if not (folder / PLAN).is_file():
        raise ConfigError(f"{folder} holds no {PLAN}; expected the --out folder of a comparison.")
    plan = _read_plan(folder / PLAN)
    rows = [
        Row(
            row["label"],
            tuple(_attempt(folder, run) for run in row["runs"]),
            row.get("tuned", ""),
            row.get("knock_out"),
        )
        for row in plan["rows"]
    ]
    return rows, plan["baseline"]


def _read_plan(path: Path) -> Plan:
    try:
        plan = read_json(path)
        if not fits(plan, Plan):
            raise ValueError("a key is missing or has a value of another type")
        if not all(fits(row["knock_out"], KnockOut) for row in plan["rows"] if "knock_out" in row):
            raise ValueError("a knock_out has another form")
    except ValueError as error:
        raise DataError(
            f"{path} is damaged ({error}). Give the command of the comparison again: it writes the "
            "plan anew and keeps the runs that are done."
        ) from error
    return cast(Plan, plan)


def _attempt(folder: Path, run: PlannedRun) -> Attempt:
    log = run["log"]
    record = read_result(folder / run["folder"])
    error = "" if record else last_error(folder / log)
    return Attempt(run["seed"], tuple(run["command"]), record, error, log)


def last_error(log: Path) -> str:
    """Return why the last run in a log ended: its last ``error:`` line, or its last line at all.

    A log begins each run with its command after ``$``.
    """
    if not log.is_file():
        return "not run yet"
    text = "\n" + log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.rpartition("\n$ ")[2].splitlines()[1:] if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")]
    return (errors or lines or ["ended without a word"])[-1]


def with_floor(rows: list[Row]) -> list[Row]:
    """Add what counting without training reaches on the same rows, as the runs recorded it.

    Nothing is added where `Counting` is a row already, or no run has a floor.
    """
    records = [record for row in rows for record in row.records]
    if any(record["model"] == FLOOR for record in records):
        return rows
    first = next((record for record in records if record.get("floor")), None)
    return rows if first is None else [*rows, Row(f"floor: {FLOOR}", (_floor_attempt(first),))]


def floor_row(rows: Sequence[Row]) -> Row | None:
    """Return the row of the floor: the first whose runs are those of `Counting`."""
    return next((r for r in rows if any(x["model"] == FLOOR for x in r.records)), None)


def _floor_attempt(record: Record) -> Attempt:
    """Return the floor of a run as a run of its own."""
    floor = record["floor"]
    made: Record = {
        **record,
        "model": floor["model"],
        "preset": "sound",
        "leaky": False,
        "fingerprint": {**record["fingerprint"], "features": {}},
        "valid": floor["valid"],
        "test": floor["test"],
        "slices": floor["slices"],
        "ranks": {**record["ranks"], "rank": floor["rank"]},
        "tied": floor["tied"],
        "epochs_run": 1,
        "best_epoch": 1,
        "parameters": 0,
        "seconds": {"train": 0.0},
        "peak_memory_mb": 0.0,
        "history": [],
    }
    made.pop("parts", None)
    made.pop("variants", None)
    made.pop("diagnostics", None)
    return Attempt(record["seed"], (), made, "", "")


def check_comparable(rows: Sequence[Row]) -> None:
    """Refuse to put runs into one table that did not rank the same rows with the same features.

    Raises
    ------
    ConfigError
        The data fingerprints, which `history: mask` changes, or the feature hashes of one modality
        differ; names the rows.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for attempt in row.attempts:
            if attempt.record:
                prints = attempt.record["fingerprint"]
                named = {"data": prints["data"]}
                named |= {f"features '{m}'": value for m, value in prints["features"].items()}
                for kind, value in named.items():
                    runs = found.setdefault(kind, {}).setdefault(value, [])
                    runs.append(f"{row.label} (seed {attempt.seed})")
    differing = {kind: groups for kind, groups in found.items() if len(groups) > 1}
    if differing:
        lines = [
            f"  {kind} {value[:12]}: {', '.join(runs)}"
            for kind, groups in differing.items()
            for value, runs in groups.items()
        ]
        raise ConfigError(
            "these runs cannot stand in one table, because they did not rank the same sessions "
            "and candidates with the same features:\n" + "\n".join(lines) + "\nGive all rows the "
            "same data, split, history and encoder, or compare them in tables of their own."
        )
