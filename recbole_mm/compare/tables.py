"""Tables made of result files alone, so that they can be written again without any run."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Iterable, Sequence

import numpy as np

from recbole_mm.compare.results import Row
from recbole_mm.evaluation.ranking import gains
from recbole_mm.evaluation.significance import Difference, holm
from recbole_mm.run.intervals import difference_of, interval_of
from recbole_mm.run.record import MASKED, TIED, Record, marks

_PROTOCOL = (
    "split_by", "split_ratio", "eval_targets", "cold_targets", "cold_items", "new_item_ids",
    "candidates", "history", "MAX_ITEM_LIST_LENGTH",
)  # fmt: skip
_DIVISIONS = ("target", "popularity", "history", "new_items")
_PACKAGES = ("recbole_mm", "recbole", "torch")


def markdown(rows: Sequence[Row], baseline: str | None, more: Sequence[str] = ()) -> str:
    """Return the whole report as Markdown; ``more`` sections stand before failures and commands."""
    done = [row for row in rows if row.records]
    parts = [_caption(done)]
    if done:
        parts += [_main_table(done), _paired_table(done, baseline), _slice_table(done, baseline)]
    parts += [*more, _failures(rows), _commands(rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _caption(rows: Sequence[Row]) -> str:
    """Say what the numbers are, on how many rows, and what must not be overlooked."""
    if not rows:
        return "# Comparison\n\nNo run has ended well yet."
    records = [record for row in rows for record in row.records]
    first = records[0]
    return "\n\n".join(
        [
            f"# Comparison on {first['dataset']}",
            *(f"**{mark}: {text}**" for mark, text in warnings(records).items()),
            f"{what_was_ranked(first)} Test metrics of the epoch "
            "that was best on validation, mean ± standard deviation over seeds. Interval: 95 % "
            "bootstrap over sessions of the mean over seeds. Tied items share their mean position, "
            "in metrics, intervals and comparisons.",
            f"Protocol: {protocol(first)}. Software: {', '.join(software(records))}.",
        ]
    )


def warnings(records: Sequence[Record]) -> dict[str, str]:
    """Return what must not be overlooked, by mark."""
    texts = {
        "SYNTHETIC": "generated sessions, which say nothing of real shoppers.",
        "LEAKY": "rows marked so use test information in training, on purpose.",
        MASKED: "the items of a test row's own history are no candidates, for any model.",
        TIED: "in rows marked so every test target shares its score with other items, and has "
        "their mean position.",
    }
    marked = {mark for record in records for mark in marks(record)}
    return {mark: text for mark, text in texts.items() if mark in marked}


def what_was_ranked(record: Record) -> str:
    """Say how many rows and candidates there were."""
    counts = record["counts"]
    return (
        f"{len(record['ranks']['rank'])} test rows "
        f"({counts.get('test_cold_targets', 0)} with a target unseen in training), "
        f"{counts.get('items', 'all')} candidates each, all ranked."
    )


def protocol(record: Record) -> str:
    """Return the settings that decide which rows are ranked."""
    config = record["config"]
    return ", ".join(f"{key} {config[key]}" for key in _PROTOCOL if key in config)


def software(records: Sequence[Record]) -> list[str]:
    """Return the versions and devices of all runs; two of one package show that they differ."""
    pairs = {(name, r["versions"][name]) for r in records for name in r["versions"]}
    devices = {f"device {r['device']}" for r in records if "device" in r}
    return sorted(f"{name} {value}" for name, value in pairs if name in _PACKAGES) + sorted(devices)


def _main_table(rows: Sequence[Row]) -> str:
    names = list(rows[0].records[0]["test"])
    main = main_metric(rows)
    head = ["model", "seeds", *names, f"{main} 95 %", "best epoch / run"]
    head += ["train s", "parameters", "peak MiB", "marks"]
    return markdown_table(head, [_main_cells(row, names, main) for row in rows])


def _main_cells(row: Row, names: Sequence[str], main: str) -> list[str]:
    low, high = row_interval(row, main)
    return [
        row.label,
        f"{len(row.records)} of {len(row.attempts)}" if row.failed else str(len(row.records)),
        *(spread(row.values("test", name)) for name in names),
        f"{low:.4f} to {high:.4f}",
        f"{row.values('best_epoch').mean():.1f} / {row.values('epochs_run').mean():.1f}",
        f"{row.values('seconds', 'train').mean():.1f}",
        f"{row.values('parameters').mean():,.0f}",
        f"{row.values('peak_memory_mb').max():.0f}",
        row.marks or "-",
    ]


def main_metric(rows: Sequence[Row]) -> str:
    """Return the metric of the intervals: the one that chose the epochs, such as ``ndcg@20``."""
    return str(rows[0].records[0]["config"]["valid_metric"]).lower()


def row_interval(row: Row, metric: str) -> tuple[float, float]:
    """Return the interval of a row's metric, see :func:`significance.interval`."""
    name, _, cut = metric.partition("@")
    values = gains(row.ranks(), name, int(cut)).mean(axis=0)
    return interval_of(values, row.records[0]["ranks"]["session"])


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
    found = [difference_of((1.0 / row.ranks()).mean(axis=0), reference, sessions) for row in others]
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
        [label, f"{d.delta:+.4f}", f"{d.low:+.4f} to {d.high:+.4f}", f"{p:.4f}", str(d.n)]
        for label, (d, p) in found.items()
    ]
    head = [f"against {baseline}", "reciprocal rank", "95 %", "p (Holm)", "sessions"]
    note = (
        "Reciprocal ranks averaged over seeds; paired bootstrap over sessions, two-sided p "
        f"corrected for {len(found)} comparison(s) by Holm. Sessions are drawn, not seeds: the "
        "spread over seeds stands in the table above."
    )
    return f"## Paired comparison\n\n{note}\n\n{markdown_table(head, lines)}"


def _slice_table(rows: Sequence[Row], baseline: str | None) -> str:
    """Show the main metric for groups of rows by target and by length of the history."""
    main = main_metric(rows)
    found = groups(rows, main)
    if not found:
        return ""
    head = ["model", *(f"{d} {g} (n={n})" for (d, g), n in found.items())]
    lines = [[row.label, *(spread(row.values("slices", *g, main)) for g in found)] for row in rows]
    note = (
        "popularity: clicks on the target in the training sessions, each counted once. history: "
        "items of the session that the model was given."
    )
    change = _change_table(
        rows, baseline, main, [pair for pair in found if pair[0] == "popularity"]
    )
    return f"## {main} of parts of the test rows\n\n{note}\n\n{markdown_table(head, lines)}{change}"


def groups(rows: Sequence[Row], main: str) -> dict[tuple[str, str], int]:
    """Return division and name of all groups that have the metric in any run, with their rows."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        for record in row.records:
            for division, groups in record.get("slices", {}).items():
                sizes = {name: int(group["n"]) for name, group in groups.items() if main in group}
                found.setdefault(division, {}).update(sizes)
    return {
        (division, name): found[division][name]
        for division in sorted(found, key=lambda d: _DIVISIONS.index(d) if d in _DIVISIONS else 99)
        for name in sorted(found[division], key=_first_number)
    }


def _first_number(group: str) -> int:
    """Return where a group begins: 31 for ``31-60``."""
    number = re.search(r"\d+", group)
    return int(number.group()) if number else 0


def _change_table(
    rows: Sequence[Row], baseline: str | None, main: str, groups: Sequence[tuple[str, str]]
) -> str:
    """Show how far each row lies above the baseline in each group, in per cent of the baseline."""
    against = next((row for row in rows if row.label == baseline), None)
    others = [row for row in rows if row is not against]
    if against is None or not others or not groups:
        return ""
    path = {group: ("slices", *group, main) for group in groups}
    base = {group: float(against.values(*path[group]).mean()) for group in groups}
    lines = [
        [row.label, *(percent(float(row.values(*path[g]).mean()), base[g]) for g in groups)]
        for row in others
    ]
    head = [f"against {baseline}, %", *(f"{division} {name}" for division, name in groups)]
    return f"\n\n{markdown_table(head, lines)}"


def percent(value: float, base: float) -> str:
    """Write a change in per cent of ``base``; there is none where ``base`` is 0 or not known."""
    change = 100 * (value / base - 1) if base > 0 else np.nan
    return "-" if np.isnan(change) else f"{change:+.1f}"


def _failures(rows: Sequence[Row]) -> str:
    lines = [
        [row.label, str(attempt.seed), attempt.error, attempt.log]
        for row in rows
        for attempt in row.failed
    ]
    return (
        f"## Failed runs\n\n{markdown_table(['model', 'seed', 'error', 'log'], lines)}"
        if lines
        else ""
    )


def _commands(rows: Sequence[Row]) -> str:
    lines = [shlex.join(a.command) for row in rows for a in row.attempts if a.command]
    return "## Commands\n\n```\n" + "\n".join(lines) + "\n```"


def spread(values: np.ndarray) -> str:
    """Write mean ± standard deviation; one value has no spread, a missing one is a dash."""
    mean, deviation = moments(values)
    if np.isnan(mean):
        return "-"
    return f"{mean:.4f}" if deviation == "" else f"{mean:.4f} ± {deviation:.4f}"


def moments(values: np.ndarray) -> tuple[float, float | str]:
    """Return mean and sample standard deviation, which is empty for one value."""
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else ""


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in cells
    )


def comma_separated(rows: Sequence[Row], baseline: str | None) -> str:
    """Return the table with unrounded numbers, one line per row; failed rows have no numbers."""
    done = [row for row in rows if row.records]
    compared = paired(done, baseline)
    main = main_metric(done) if done else ""
    lines = [_flat(row, main, compared.get(row.label)) for row in rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(row: Row, main: str, compared: tuple[Difference, float] | None) -> dict[str, object]:
    flat: dict[str, object] = {
        "label": row.label,
        "seeds": len(row.records),
        "failed": len(row.failed),
        "marks": row.marks,
    }
    if not row.records:
        return flat
    for name in row.records[0]["test"]:
        flat[name], flat[f"{name} std"] = moments(row.values("test", name))
    flat[f"{main} low"], flat[f"{main} high"] = row_interval(row, main)
    for name in ("best_epoch", "epochs_run", "parameters"):
        flat[name] = row.values(name).mean()
    flat["peak_memory_mb"] = row.values("peak_memory_mb").max()
    flat["train_seconds"] = row.values("seconds", "train").mean()
    flat["test_rows"] = len(row.records[0]["ranks"]["rank"])
    if compared:
        difference, p = compared
        flat["reciprocal_rank_difference"] = difference.delta
        flat["difference low"], flat["difference high"] = difference.low, difference.high
        flat["p"], flat["p_holm"] = difference.p, p
    return flat
