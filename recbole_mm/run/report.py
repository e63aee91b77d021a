"""A run's result as text, for the end of ``recbole-mm run``."""

from __future__ import annotations

import numpy as np

from recbole_mm.evaluation.parts import CROSS_ENTROPY
from recbole_mm.evaluation.ranking import from_ranks, gains
from recbole_mm.run.intervals import interval_of
from recbole_mm.run.record import MASKED, TIED, Record, RunResult, marks, model_name


def format_result(result: RunResult) -> str:
    """Return the result as text: metrics on validation and test, and what they rest on."""
    record = result.record
    marked = "".join(f" [{mark}]" for mark in marks(record))
    counts = record["counts"]
    lines = [f"{model_name(record['model'], record['preset'])} on {record['dataset']}{marked}", ""]
    lines += [f"{'':<10}{'valid':>10}{'test':>10}   95 % interval of test"]
    for name, value in record["test"].items():
        valid = record["valid"][name]
        lines += [f"{name:<10}{valid:>10.4f}{value:>10.4f}   {_shown_interval(record, name)}"]
    lines += _shown_new_items(record) + _shown_floor(record)
    lines += _shown_parts(record) + _shown_diagnostics(record)
    seconds = record["seconds"]
    lines += [
        "",
        f"{counts['test_rows']} test rows ({counts['test_cold_targets']} with a target unseen in "
        f"training), {counts['items']} candidates, seed {record['seed']}",
        *shown_warnings(record),
        f"best epoch {record['best_epoch']} of {record['epochs_run']}, "
        f"{seconds['train']:.1f} s training, {seconds['total']:.1f} s in all, "
        f"{record['parameters']:,} parameters, {record['peak_memory_mb']:.0f} MiB",
        f"fingerprint {record['fingerprint']['data'][:16]} (same sessions, rows and candidates)",
        f"run folder {result.folder}",
    ]
    return "\n".join(lines)


def shown_warnings(record: Record) -> list[str]:
    """Return what the protocol or the scores do to the numbers, one sentence per line."""
    found, lines = marks(record), []
    if MASKED in found:
        lost = record["counts"].get("test_targets_in_history", 0)
        lines += [
            "history: mask, a row's own items are no candidates; "
            f"{lost} test target(s) are struck out with them and so missed"
        ]
    if TIED in found:
        lines += [
            "every test target shares its score with other items: each has their mean position, "
            "so the metrics say little"
        ]
    return lines


def _shown_new_items(record: Record) -> list[str]:
    """Return the test metrics of targets that `cold_items` held out of training."""
    groups = record["slices"].get("new_items", {})
    lines = []
    for name, found in groups.items():
        cells = [f"{metric} {value:.4f}" for metric, value in found.items() if metric != "n"]
        lines.append(f"{found['n']} test targets are new items; {name}: {', '.join(cells)}")
    return ["", *lines] if lines else []


def _shown_floor(record: Record) -> list[str]:
    """Return what counting without training reaches on the same rows, and the difference."""
    floor = record.get("floor")
    if floor is None:
        return []
    found = floor["difference"]
    name, delta = found["metric"], found["delta"]
    numbers = f"{floor['valid'][name]:>10.4f}{floor['test'][name]:>10.4f}"
    place = "below" if found["high"] < 0 else "above" if found["low"] > 0 else "level with"
    return [
        "",
        f"{'floor':<10}{numbers}   {name} of {floor['model']}, which counts and does not train",
        f"{'':<20}{delta:>+10.4f}   this model is {place} it: 95 % interval of the difference "
        f"{found['low']:+.4f} to {found['high']:+.4f}",
    ]


def _shown_parts(record: Record) -> list[str]:
    """Return the metric that chose the epoch for each part and variant of the score."""
    metric = str(record["config"]["valid_metric"]).lower()
    lines = []
    for kind, found in (
        ("parts", record.get("parts", {})),
        ("variants", record.get("variants", {})),
    ):
        if not any(metric in values for values in found.get("test", {}).values()):
            continue
        wide = max(len(name) for name in (kind, *found["test"])) + 2
        lines += ["", f"{kind:<{wide}}{metric:>10}{metric:>10}{'ce':>10}{'ce':>10}"]
        lines += [" " * wide + f"{'valid':>10}{'test':>10}" * 2]
        for name, test in found["test"].items():
            both = (found["valid"][name], test)
            cells = [values[key] for key in (metric, CROSS_ENTROPY) for values in both]
            lines.append(f"{name:<{wide}}" + "".join(f"{cell:>10.4f}" for cell in cells))
    return lines


def _shown_diagnostics(record: Record) -> list[str]:
    """Return the model's diagnostics, one per line."""
    found = record.get("diagnostics", {})
    wide = max(map(len, found), default=0)
    lines = [f"{name:<{wide}}  {value:>12.6g}" for name, value in found.items()]
    return ["", "diagnostics", *lines] if lines else []


def _shown_interval(record: Record, name: str) -> str:
    found = test_interval(record, name)
    return "-" if found is None else f"{found[0]:.4f} to {found[1]:.4f}"


def test_interval(record: Record, name: str) -> tuple[float, float] | None:
    """Return the 95 % interval of a test metric over sessions, by bootstrap.

    None for a metric that does not follow from the ranks of the targets.
    """
    metric, _, cut = name.partition("@")
    if not from_ranks([metric]):
        return None
    values = gains(np.array(record["ranks"]["rank"]), metric, int(cut))
    return interval_of(values, record["ranks"]["session"])
