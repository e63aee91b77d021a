"""Tables made of result files alone, so that they can be written again without any run.

A comparison folder holds ``plan.json`` (which rows, which seeds), one run folder per row and seed
with its ``result.json``, and what the runs printed in ``logs/``.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_mm.errors import ConfigError, DataError
from recbole_mm.evaluation.ranking import gains
from recbole_mm.evaluation.significance import Difference, holm, interval, paired_difference
from recbole_mm.files import atomic_write

PLAN, TABLE, CSV = "plan.json", "table.md", "table.csv"
Record = dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """One run of a row: its record if it ended well, else the reason why not."""

    seed: int
    command: tuple[str, ...]
    record: Record | None
    error: str
    log: Path


@dataclass(frozen=True)
class Row:
    """One row of a table: a label and its runs, one per seed."""

    label: str
    attempts: tuple[Attempt, ...]

    @property
    def records(self) -> list[Record]:
        """Records of the runs that ended well."""
        return [attempt.record for attempt in self.attempts if attempt.record is not None]

    def values(self, pick: Callable[[Record], float]) -> np.ndarray:
        """Return a number of each good run, ``(seeds,)``."""
        return np.array([pick(record) for record in self.records], dtype=np.float64)

    def ranks(self) -> np.ndarray:
        """Return the ranks of all good runs, ``(seeds, rows)``."""
        return np.array([record["ranks"]["rank"] for record in self.records])

    @property
    def marks(self) -> str:
        """``LEAKY`` and ``SYNTHETIC``, as far as they are true of a run."""
        names = ("leaky", "synthetic")
        found = [name.upper() for name in names if any(r[name] for r in self.records)]
        return " ".join(found)


def read_rows(folder: str | Path) -> tuple[list[Row], str | None]:
    """Read the rows of a comparison folder and the label of its baseline.

    Raises
    ------
    ConfigError
        The folder holds no ``plan.json``.
    DataError
        A result file is damaged.
    """
    folder = Path(folder)
    if not (folder / PLAN).is_file():
        raise ConfigError(f"{folder} holds no {PLAN}; expected the --out folder of a comparison.")
    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    rows = [
        Row(row["label"], tuple(_attempt(folder, run) for run in row["runs"]))
        for row in plan["rows"]
    ]
    return rows, plan["baseline"]


def _attempt(folder: Path, run: Record) -> Attempt:
    log = folder / run["log"]
    record = read_result(folder / run["folder"])
    error = "" if record else last_error(log)
    return Attempt(run["seed"], tuple(run["command"]), record, error, log)


def read_result(run_folder: Path) -> Record | None:
    """Return the record of a run that ended well, or None.

    Raises
    ------
    DataError
        The file is there and is not JSON. Results are written whole, so something else broke it.
    """
    path = run_folder / "result.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); remove it to run again.") from error
    return record if isinstance(record, dict) and record.get("status") == "ok" else None


def last_error(log: Path) -> str:
    """Return the line of a log that says why a run ended: its last ``error:``, or its last line."""
    if not log.is_file():
        return "not run yet"
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")]
    return (errors or lines or ["ended without a word"])[-1]


def check_comparable(rows: Sequence[Row]) -> None:
    """Refuse to put runs into one table that did not rank the same rows with the same features.

    Raises
    ------
    ConfigError
        The data fingerprints or, for one modality, the feature hashes differ; names the rows.
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
            "same data, split and encoder, or compare them in tables of their own."
        )


def write_report(folder: str | Path) -> Path:
    """Write ``table.md`` and ``table.csv`` of a comparison folder; return the former's path.

    Raises
    ------
    ConfigError
        Runs of different data or features, or no ``plan.json``.
    """
    folder = Path(folder)
    rows, baseline = read_rows(folder)
    check_comparable(rows)
    with atomic_write(folder / TABLE) as stream:
        stream.write(markdown(rows, baseline))
    with atomic_write(folder / CSV) as stream:
        stream.write(comma_separated(rows, baseline))
    return folder / TABLE


def markdown(rows: Sequence[Row], baseline: str | None) -> str:
    """Return the whole report as Markdown."""
    done = [row for row in rows if row.records]
    parts = [_caption(done)]
    if done:
        parts += [_main_table(done), _paired_table(done, baseline), _slice_table(done)]
    parts += [_failures(rows), _commands(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _caption(rows: Sequence[Row]) -> str:
    if not rows:
        return "# Comparison\n\nNo run has ended well yet."
    records = [record for row in rows for record in row.records]
    first, config = records[0], records[0]["config"]
    cold = first["counts"].get("test_cold_targets", 0)
    text = [f"# Comparison on {first['dataset']}", ""]
    if any(record["synthetic"] for record in records):
        text += [
            "**SYNTHETIC: the sessions are generated; nothing follows for real shoppers.**",
            "",
        ]
    if any(record["leaky"] for record in records):
        text += ["**LEAKY: rows so marked use test information in training, on purpose.**", ""]
    split = ", ".join(f"{key} {config[key]}" for key in _PROTOCOL if key in config)
    versions = sorted(
        {
            f"{name} {r['versions'][name]}"
            for r in records
            for name in _SHOWN
            if name in r["versions"]
        }
    )
    text += [
        f"{len(first['ranks']['session'])} test rows ({cold} with a target unseen in training), "
        f"{first['counts'].get('items', 'all')} candidates each, all ranked. Test metrics of the "
        "epoch that was best on validation: mean ± standard deviation over seeds. Interval: 95 % "
        "bootstrap over sessions of the mean over seeds, from ranks in which ties share their mean "
        "position (RecBole's metrics order ties arbitrarily).",
        "",
        f"Protocol: {split}. Software: {', '.join(versions)}.",
    ]
    return "\n".join(text)


_PROTOCOL = ("split_by", "split_ratio", "eval_targets", "cold_targets", "MAX_ITEM_LIST_LENGTH")
_SHOWN = ("recbole_mm", "recbole", "torch")


def _main_table(rows: Sequence[Row]) -> str:
    names = list(rows[0].records[0]["test"])
    main = main_metric(rows)
    head = ["model", "seeds", *names, f"{main} 95 %", "best epoch / run"]
    head += ["train s", "parameters", "peak MiB", "marks"]
    return _table(head, [_main_cells(row, names, main) for row in rows])


def _main_cells(row: Row, names: Sequence[str], main: str) -> list[str]:
    low, high = row_interval(row, main)
    first = row.records[0]
    best, run = row.values(lambda r: r["best_epoch"]), row.values(lambda r: r["epochs_run"])
    return [
        row.label,
        str(len(row.records)) + (f" of {len(row.attempts)}" if _failed(row) else ""),
        *(
            _spread(row.values(lambda r, name=name: r["test"].get(name, math.nan)))
            for name in names
        ),  # type: ignore[misc]
        f"{low:.4f}–{high:.4f}",
        f"{best.mean():.1f} / {run.mean():.1f}",
        f"{row.values(lambda r: r['seconds']['train']).mean():.1f}",
        f"{first['parameters']:,}",
        f"{row.values(lambda r: r['peak_memory_mb']).max():.0f}",
        row.marks or "–",
    ]


def _failed(row: Row) -> list[Attempt]:
    return [attempt for attempt in row.attempts if attempt.record is None]


def main_metric(rows: Sequence[Row]) -> str:
    """Return the metric of the intervals: the one that chose the epochs, such as ``ndcg@20``."""
    return str(rows[0].records[0]["config"]["valid_metric"]).lower()


def row_interval(row: Row, metric: str) -> tuple[float, float]:
    """Return the interval of a row's metric, see :func:`significance.interval`."""
    name, _, cut = metric.partition("@")
    values = gains(row.ranks(), name, int(cut)).mean(axis=0)
    return interval(values, row.records[0]["ranks"]["session"])


def paired(rows: Sequence[Row], baseline: str | None) -> dict[str, tuple[Difference, float]]:
    """Compare each row with the baseline: difference of the reciprocal ranks, Holm-corrected p.

    Reciprocal ranks are averaged over the seeds of a row first. The baseline is the row of that
    label, else nothing is compared.
    """
    against = next((row for row in rows if row.label == baseline), None)
    others = [row for row in rows if row is not against]
    if against is None or not others:
        return {}
    sessions = against.records[0]["ranks"]["session"]
    reference = (1.0 / against.ranks()).mean(axis=0)
    found = [
        paired_difference((1.0 / row.ranks()).mean(axis=0), reference, sessions) for row in others
    ]
    corrected = holm([difference.p for difference in found])
    return {
        row.label: (difference, p)
        for row, difference, p in zip(others, found, corrected, strict=True)
    }


def _paired_table(rows: Sequence[Row], baseline: str | None) -> str:
    found = paired(rows, baseline)
    if not found:
        return ""
    lines = [
        [label, f"{d.delta:+.4f}", f"{d.low:+.4f} to {d.high:+.4f}", _p(p), str(d.n)]
        for label, (d, p) in found.items()
    ]
    head = [f"against {baseline}", "reciprocal rank", "95 %", "p (Holm)", "sessions"]
    note = (
        f"Paired over sessions, reciprocal ranks averaged over seeds: Wilcoxon's signed-rank test, "
        f"two-sided, corrected for {len(found)} comparison(s) by Holm; bootstrap interval."
    )
    return f"## Paired comparison\n\n{note}\n\n{_table(head, lines)}"


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _slice_table(rows: Sequence[Row]) -> str:
    """Show the main metric for cold and seen targets and by length of the history."""
    main = main_metric(rows)
    divisions = rows[0].records[0].get("slices", {})
    columns = [(d, g) for d, groups in divisions.items() for g in groups]
    columns = [(d, g) for d, g in columns if main in divisions[d][g]]
    if not columns:
        return ""
    head = ["model"] + [f"{d} {g} (n={divisions[d][g]['n']})" for d, g in columns]
    lines = [
        [row.label]
        + [_spread(row.values(lambda r, d=d, g=g: r["slices"][d][g][main])) for d, g in columns]  # type: ignore[misc]
        for row in rows
    ]
    return f"## {main} of parts of the test rows\n\n{_table(head, lines)}"


def _failures(rows: Sequence[Row]) -> str:
    lines = [
        [row.label, str(attempt.seed), attempt.error, str(attempt.log)]
        for row in rows
        for attempt in _failed(row)
    ]
    return f"## Failed runs\n\n{_table(['model', 'seed', 'error', 'log'], lines)}" if lines else ""


def _commands(rows: Sequence[Row]) -> str:
    lines = [" ".join(a.command) for row in rows for a in row.attempts]
    return "## Commands\n\n```\n" + "\n".join(lines) + "\n```"


def _spread(values: np.ndarray) -> str:
    """Write mean ± sample standard deviation; one value has no spread."""
    if len(values) < 2:
        return f"{values.mean():.4f}"
    return f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in cells
    )


def comma_separated(rows: Sequence[Row], baseline: str | None) -> str:
    """Return the table with unrounded numbers, one line per row; failed rows have no numbers."""
    done = [row for row in rows if row.records]
    compared = paired(done, baseline)
    lines = [_flat(row, compared.get(row.label)) for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(row: Row, compared: tuple[Difference, float] | None) -> dict[str, Any]:
    flat: dict[str, Any] = {
        "label": row.label,
        "seeds": len(row.records),
        "failed": len(_failed(row)),
        "marks": row.marks,
    }
    if not row.records:
        return flat
    for name in row.records[0]["test"]:
        values = row.values(lambda r, name=name: r["test"][name])  # type: ignore[misc]
        flat[name] = values.mean()
        flat[f"{name} std"] = values.std(ddof=1) if len(values) > 1 else ""
    main = main_metric([row])
    flat[f"{main} low"], flat[f"{main} high"] = row_interval(row, main)
    for name in ("best_epoch", "epochs_run", "parameters", "peak_memory_mb"):
        flat[name] = row.values(lambda r, name=name: r[name]).mean()  # type: ignore[misc]
    flat["train_seconds"] = row.values(lambda r: r["seconds"]["train"]).mean()
    flat["test_rows"] = len(row.records[0]["ranks"]["session"])
    if compared:
        difference, p = compared
        flat["reciprocal_rank_difference"] = difference.delta
        flat["p"], flat["p_holm"] = difference.p, p
    return flat
