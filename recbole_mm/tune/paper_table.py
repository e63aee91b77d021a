"""A paper's table, in its layout: its rows, its data sets side by side, its metrics in per cent."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recbole_mm.compare.results import Row, check_comparable, read_rows, with_floor
from recbole_mm.compare.tables import markdown_table, protocol, warnings, what_was_ranked
from recbole_mm.files import atomic_write
from recbole_mm.page import charts
from recbole_mm.run.record import Record
from recbole_mm.tune.paper_spec import Paper, Study

TABLE, CSV, PICTURE = "paper.md", "paper.csv", "paper.png"
# A column: data set, the path of its numbers in a record, and its name.
Column = tuple[str, tuple[str, ...], str]


def write_paper(
    folder: Path, paper: Paper, study: Study, datasets: Sequence[str], missing: Sequence[str]
) -> Path:
    """Write ``paper.md`` and ``paper.csv``, and the picture of a sweep; return the first."""
    found = {name: _rows(folder / name) for name in datasets}
    columns = [
        column for name, rows in found.items() for column in _columns(paper, study, name, rows)
    ]
    labels = list(dict.fromkeys(row.label for rows in found.values() for row in rows))
    numbers = {label: [_number(found, label, column) for column in columns] for label in labels}
    with atomic_write(folder / TABLE) as stream:
        stream.write(_markdown(paper, study, found, columns, numbers, missing))
    with atomic_write(folder / CSV) as stream:
        stream.write(_comma_separated(columns, numbers))
    if "key" in study:
        with atomic_write(folder / PICTURE, "wb") as picture:
            picture.write(_drawn(paper, study, columns, numbers))
    return folder / TABLE


def _rows(folder: Path) -> list[Row]:
    rows, _ = read_rows(folder)
    check_comparable(rows)
    return with_floor(rows)


def _columns(paper: Paper, study: Study, dataset: str, rows: Sequence[Row]) -> list[Column]:
    """Return the columns of one data set."""
    if "groups" not in study:
        return [(dataset, ("test", metric), name) for metric, name in paper.columns.items()]
    metric, division = paper.metric(study), study["groups"]
    name = paper.columns[metric]
    groups = {
        group
        for row in rows
        for record in row.records
        for group, values in record.get("slices", {}).get(division, {}).items()
        if metric in values
    }
    return [
        (dataset, ("slices", division, group, metric), f"{name}, {division} {group}")
        for group in sorted(groups, key=_first_number)
    ]


def _first_number(group: str) -> int:
    number = re.search(r"\d+", group)
    return int(number.group()) if number else 0


def _number(found: dict[str, list[Row]], label: str, column: Column) -> tuple[float, float]:
    """Return mean and deviation over seeds, in per cent; nan where there is none."""
    dataset, path, _ = column
    row = next((row for row in found[dataset] if row.label == label), None)
    values = row.values(*path) if row else np.empty(0)
    if not len(values):
        return float("nan"), float("nan")
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return 100 * float(values.mean()), 100 * deviation


def _markdown(
    paper: Paper,
    study: Study,
    found: dict[str, list[Row]],
    columns: Sequence[Column],
    numbers: dict[str, list[tuple[float, float]]],
    missing: Sequence[str],
) -> str:
    head = ["", *(f"{paper.called(dataset)} {name}" for dataset, _, name in columns)]
    best = [_best([cells[place][0] for cells in numbers.values()]) for place in range(len(columns))]
    lines = [
        [label, *(_cell(*cell, top) for cell, top in zip(cells, best, strict=True))]
        for label, cells in numbers.items()
    ]
    parts = [
        f"# {paper.title}: {study['title']}",
        "Per cent, test metrics of the epoch that was best on validation, mean ± standard "
        "deviation over seeds; the best of a column is bold. The floor counts and does not train. "
        "Each data set's folder has a report with intervals and paired tests.",
        *_told(paper, found),
        markdown_table(head, lines),
    ]
    if "key" in study:
        parts.append(f"![{study['title']}]({PICTURE})")
    if study.get("absent"):
        parts.append(f"In the paper, and not here: {', '.join(study['absent'])}.")
    parts += [f"Missing: {line}" for line in missing]
    return "\n\n".join(parts) + "\n"


def _told(paper: Paper, found: dict[str, list[Row]]) -> list[str]:
    """Say of each data set what was ranked, and what must not be overlooked."""
    told = []
    for dataset, rows in found.items():
        records: list[Record] = [record for row in rows for record in row.records]
        if not records:
            told.append(f"{paper.called(dataset)}: no run has ended well; table.md has the errors.")
            continue
        marked = "".join(f" **{mark}: {text}**" for mark, text in warnings(records).items())
        ranked, rules = what_was_ranked(records[0]), protocol(records[0])
        told.append(f"{paper.called(dataset)} ({dataset}): {ranked} Protocol: {rules}.{marked}")
    return told


def _best(values: Sequence[float]) -> float:
    there = [round(value, 2) for value in values if not np.isnan(value)]
    return max(there, default=float("nan"))


def _cell(mean: float, deviation: float, best: float) -> str:
    if np.isnan(mean):
        return "-"
    shown = f"**{mean:.2f}**" if round(mean, 2) == best else f"{mean:.2f}"
    return shown if np.isnan(deviation) else f"{shown} ± {deviation:.2f}"


def _comma_separated(
    columns: Sequence[Column], numbers: dict[str, list[tuple[float, float]]]
) -> str:
    """Return one line per row and column, in per cent and not rounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "dataset", "column", "mean", "std"])
    for label, cells in numbers.items():
        for (dataset, _, name), (mean, deviation) in zip(columns, cells, strict=True):
            both = ("" if np.isnan(value) else value for value in (mean, deviation))
            writer.writerow([label, dataset, name, *both])
    return text.getvalue()


def _drawn(
    paper: Paper,
    study: Study,
    columns: Sequence[Column],
    numbers: dict[str, list[tuple[float, float]]],
) -> bytes:
    """Draw a metric of the paper over the swept key, one line per data set."""
    name = paper.columns[paper.metric(study)]
    start = f"{study['key']}="
    series = {
        paper.called(dataset): [
            (label.removeprefix(start), mean, *_ends(mean, deviation))
            for label, cells in numbers.items()
            for mean, deviation in [cells[place]]
            if label.startswith(start) and not np.isnan(mean)
        ]
        for place, (dataset, _, column) in enumerate(columns)
        if column == name
    }
    return charts.study(series, study["key"], f"{name}, %", None, "png")


def _ends(mean: float, deviation: float) -> tuple[float, float]:
    spread = 0.0 if np.isnan(deviation) else deviation
    return mean - spread, mean + spread
