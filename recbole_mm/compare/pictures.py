"""The charts of a comparison's page: intervals, differences, curves, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recbole_mm.compare.results import Row
from recbole_mm.compare.tables import main_metric, row_interval
from recbole_mm.evaluation.parts import WHOLE
from recbole_mm.evaluation.significance import Difference
from recbole_mm.page import charts
from recbole_mm.page.elements import Html, section
from recbole_mm.run.curves import metric_lines


def _test(row: Row, metric: str) -> float:
    return float(row.values("test", metric).mean())


def _line(floor: Row | None, metric: str) -> float | None:
    return None if floor is None else _test(floor, metric)


def intervals(rows: Sequence[Row], floor: Row | None) -> Html:
    """Draw the main metric of all rows with its interval, the best one at the top."""
    main = main_metric(rows)
    points = []
    for row in rows:
        value, (low, high) = _test(row, main), row_interval(row, main)
        ends = (value, value) if np.isnan(low) else (low, high)
        points.append((row.label, value, *ends))
    points.sort(key=lambda point: -point[1])
    svg = charts.forest(points, f"test {main}", _line(floor, main), "floor")
    told = "; ".join(f"{label} {value:.4f}" for label, value, *_ in points)
    return charts.inline(svg, f"{main} with 95 % intervals: {told}")


def differences(compared: Mapping[str, tuple[Difference, float]], baseline: str | None) -> Html:
    """Draw the paired differences to the baseline; nothing without one."""
    found = {label: d for label, (d, _) in compared.items() if not np.isnan(d.low)}
    if not found:
        return Html("")
    points = [(label, d.delta, d.low, d.high) for label, d in found.items()]
    points.sort(key=lambda point: -point[1])
    name = f"reciprocal rank minus that of {baseline}"
    svg = charts.forest(points, name, 0.0, str(baseline))
    told = "; ".join(f"{label} {value:+.4f}" for label, value, *_ in points)
    return charts.inline(svg, f"{name}: {told}")


def curve_section(rows: Sequence[Row], floor: Row | None) -> Html:
    """Draw the validation metric over the epochs of every run that has more than one."""
    main = main_metric(rows)
    series: dict[str, list[list[tuple[float, float]]]] = {}
    for row in rows:
        for record in row.records:
            line = metric_lines(record.get("history", []), main).get(WHOLE, [])
            if len(line) > 1 and row is not floor:
                series.setdefault(row.label, []).append([(float(x), y) for x, y in line])
    if not series:
        return Html("")
    level = None if floor is None else float(floor.values("valid", main).mean())
    svg = charts.lines(series, f"validation {main}", level)
    picture = charts.inline(svg, f"validation {main} over epochs of {', '.join(series)}")
    note = (
        "Validation metric that chose the epoch, one line per run; runs of one row share a colour."
    )
    return section("Curves", picture, note=note)


def cost_section(rows: Sequence[Row], floor: Row | None) -> Html:
    """Draw quality against the time of training."""
    main = main_metric(rows)
    points = [
        (row.label, float(row.values("seconds", "train").mean()), _test(row, main)) for row in rows
    ]
    points = [(label, x, y) for label, x, y in points if x > 0 and not np.isnan(y)]
    if not points:
        return Html("")
    svg = charts.scatter(points, "seconds of training", f"test {main}", _line(floor, main))
    told = "; ".join(f"{label} {x:.1f} s, {y:.4f}" for label, x, y in points)
    picture = charts.inline(svg, f"{main} against seconds of training: {told}")
    note = "Mean over seeds, on the machine of the runs. Up and to the left is better."
    return section("Cost against quality", picture, note=note)
