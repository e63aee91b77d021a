"""The page of one run: ``report.html`` in its folder, one file that needs no network."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from typing import Literal

import numpy as np

from recbole_mm.evaluation.parts import CROSS_ENTROPY
from recbole_mm.files import atomic_write
from recbole_mm.page import charts
from recbole_mm.page.elements import Cell, Html, element, folded, page, section, table
from recbole_mm.run.curves import draw
from recbole_mm.run.record import Record, RunResult, marks, model_name
from recbole_mm.run.report import shown_warnings, test_interval

logger = logging.getLogger(__name__)

PAGE = "report.html"


def write_page(result: RunResult) -> None:
    """Write ``report.html`` into the run folder; what fails costs a warning, not the run."""
    try:
        content = run_page(result.record)
        with atomic_write(result.folder / PAGE) as stream:
            stream.write(content)
    except Exception as error:  # matplotlib may fail for its fonts, its cache, or its own setup
        logger.warning("%s is not written: %s: %s", PAGE, type(error).__name__, error)


def run_page(record: Record) -> str:
    """Return the page of a run."""
    name = f"{model_name(record['model'], record['preset'])} on {record['dataset']}"
    counts = record["counts"]
    told = (
        f"{counts['test_rows']} test rows ({counts['test_cold_targets']} with a target unseen in "
        f"training), {counts['items']} candidates, seed {record['seed']}"
    )
    words = [*marks(record), *shown_warnings(record)]
    return page(
        name,
        element("h1", name),
        element("div", told, kind="sub"),
        *(element("p", word, kind="mark") for word in words),
        _cards(record),
        _metrics(record),
        _floor(record),
        _curves(record),
        _slices(record),
        _apart(record, "parts", "Parts of the score"),
        _apart(record, "variants", "The score made in other ways"),
        _diagnostics(record),
        _settings(record),
    )


def _main(record: Record) -> str:
    return str(record["config"]["valid_metric"]).lower()


def _cards(record: Record) -> Html:
    main, seconds = _main(record), record["seconds"]
    cards = [
        (f"{record['test'][main]:.4f}", f"test {main}, {_interval(record, main)}"),
        (
            f"{record['best_epoch']} of {record['epochs_run']}",
            f"best epoch on validation ({main} {record['valid'][main]:.4f})",
        ),
        (
            f"{seconds['train']:.1f} s",
            f"training; {seconds.get('total', 0):.1f} s in all, {record['parameters']:,} "
            f"parameters, {record['peak_memory_mb']:.0f} MiB",
        ),
    ]
    if floor := record.get("floor"):
        d = floor["difference"]
        cards.insert(1, (f"{d['delta']:+.4f}", f"{d['metric']} to the floor, 95 % interval "
                         f"{d['low']:+.4f} to {d['high']:+.4f}"))  # fmt: skip
    return element(
        "div", *(element("div", element("b", big), element("span", small), kind="card")
                 for big, small in cards), kind="cards",
    )  # fmt: skip


def _interval(record: Record, name: str) -> str:
    found = test_interval(record, name)
    return "no interval" if found is None else f"{found[0]:.4f} to {found[1]:.4f}"


def _metrics(record: Record) -> Html:
    floor = record.get("floor")
    lines = [
        [
            Cell(name),
            Cell(f"{record['valid'][name]:.4f}", record["valid"][name]),
            Cell(f"{value:.4f}", value),
            Cell(_interval(record, name).replace("no interval", "–")),
            *([_number(floor["test"].get(name))] if floor else []),
        ]
        for name, value in record["test"].items()
    ]
    head = ["metric", "valid", "test", "95 % of test", *(["floor, test"] if floor else [])]
    return section("Metrics", table(head, lines), note="Of the epoch that was best on validation.")


def _number(value: float | None) -> Cell:
    return Cell("–", np.nan) if value is None else Cell(f"{value:.4f}", value)


def _floor(record: Record) -> Html:
    floor, main = record.get("floor"), _main(record)
    found = test_interval(record, main)
    if floor is None or found is None or main not in floor["test"]:
        return Html("")
    value = floor["test"][main]
    name = model_name(record["model"], record["preset"])
    svg = charts.forest([(name, record["test"][main], *found)], f"test {main}", value, "floor")
    label = f"{name} {record['test'][main]:.4f}, floor {value:.4f}"
    note = f"What {floor['model']} reaches, which counts and does not train, on the same rows."
    return section("The floor", charts.inline(svg, label), note=note)


def _curves(record: Record) -> Html:
    svg = draw(record["history"], _main(record), "", record["best_epoch"], "svg")
    return section("Curves", charts.inline(svg, "metrics and losses over epochs") if svg else "")


def _slices(record: Record) -> Html:
    main = _main(record)
    floor = record.get("floor")
    lines = []
    for division, groups in record.get("slices", {}).items():
        for name, group in groups.items():
            if main in group:
                base = floor["slices"].get(division, {}).get(name, {}) if floor else {}
                lines.append(
                    [
                        Cell(f"{division} {name}"),
                        Cell(str(group["n"]), group["n"]),
                        Cell(f"{group[main]:.4f}", group[main]),
                        *([_number(base.get(main))] if floor else []),
                    ]
                )
    head = ["rows", "number", f"test {main}", *(["floor"] if floor else [])]
    return section("Parts of the test rows", table(head, lines) if lines else "")


def _apart(record: Record, kind: Literal["parts", "variants"], title: str) -> Html:
    found, main = record.get(kind), _main(record)
    if not found:
        return Html("")
    head = ["score", f"valid {main}", f"test {main}", "test cross-entropy"]
    lines = [
        [
            Cell(name),
            _number(found["valid"].get(name, {}).get(main)),
            _number(test.get(main)),
            _number(test.get(CROSS_ENTROPY)),
        ]
        for name, test in found["test"].items()
    ]
    return section(title, table(head, lines))


def _diagnostics(record: Record) -> Html:
    found = record.get("diagnostics", {})
    lines = [[Cell(name), Cell(f"{value:.6g}", value)] for name, value in found.items()]
    return section("Diagnostics", table(["number", "value"], lines) if lines else "")


def _settings(record: Record) -> Html:
    def two(head: str, values: Mapping[str, object]) -> Html:
        lines = [[Cell(key), Cell(str(value), kind="text")] for key, value in values.items()]
        return table([head, "value"], lines)

    return section(
        "How it was made",
        element("pre", shlex.join(record["command"])),
        folded("settings", two("key", dict(sorted(record["config"].items())))),
        folded("versions", two("package", record["versions"])),
        element("p", f"Fingerprint {record['fingerprint']['data'][:16]} (same sessions, rows and "
                "candidates).", kind="note"),
    )  # fmt: skip
