"""What a sweep found: a table, a picture with intervals, or a heat map of two keys."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict, cast

import numpy as np

from recbole_mm.compare.results import Row, check_comparable, floor_row, read_rows, with_floor
from recbole_mm.compare.tables import (
    main_metric,
    markdown_table,
    moments,
    protocol,
    row_interval,
    spread,
    warnings,
    what_was_ranked,
)
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.files import atomic_write, fits, read_json
from recbole_mm.page import charts

logger = logging.getLogger(__name__)

TABLE, CSV, PICTURE, AXES = "sweep.md", "sweep.csv", "sweep.png", "sweep.json"


class Axis(NamedTuple):
    """A key and the values it takes, as the command line has them."""

    key: str
    values: tuple[str, ...]


class _Axis(TypedDict):
    key: str
    values: list[str]


class _Sweep(TypedDict):
    """The content of ``sweep.json``."""

    model: str
    axes: list[_Axis]


class Point(NamedTuple):
    """A setting and its row; the row has no records where its runs failed."""

    setting: tuple[str, ...]
    row: Row


def write_axes(folder: Path, model: str, axes: Sequence[Axis]) -> None:
    """Write what was swept beside the comparison."""
    found: _Sweep = {
        "model": model,
        "axes": [{"key": axis.key, "values": [*axis.values]} for axis in axes],
    }
    with atomic_write(folder / AXES) as stream:
        json.dump(found, stream, indent=1)


def read_axes(folder: Path) -> tuple[str, list[Axis]]:
    """Return model and axes of a sweep.

    Raises
    ------
    ConfigError
        The folder holds no sweep.
    DataError
        Its file is damaged.
    """
    path = folder / AXES
    if not path.is_file():
        raise ConfigError(f"{folder} holds no {AXES}; expected the --output folder of a sweep.")
    try:
        found = read_json(path)
        if not fits(found, _Sweep):
            raise ValueError("a key is missing or has a value of another type")
    except ValueError as error:
        raise DataError(
            f"{path} is damaged ({error}). Give the command of the sweep again: it keeps the runs "
            "that are done."
        ) from error
    stored = cast(_Sweep, found)
    return stored["model"], [Axis(one["key"], tuple(one["values"])) for one in stored["axes"]]


def write_sweep(folder: Path) -> Path:
    """Write ``sweep.md``, ``.csv`` and ``.png`` from the result files; return the first."""
    model, axes = read_axes(folder)
    rows, _ = read_rows(folder)
    check_comparable(rows)
    points = _points(rows, axes)
    floor = floor_row(with_floor(rows))
    with atomic_write(folder / TABLE) as stream:
        stream.write(_markdown(model, axes, points, floor))
    with atomic_write(folder / CSV) as stream:
        stream.write(_comma_separated(axes, points))
    if any(point.row.records for point in points):
        _draw(folder, model, axes, points, floor)
    return folder / TABLE


def _points(rows: Sequence[Row], axes: Sequence[Axis]) -> list[Point]:
    """Return the rows in the order of the axes, each with its setting."""
    labels = {row.label: row for row in rows}
    settings = _product(axes)
    named = {s: ", ".join(f"{a.key}={v}" for a, v in zip(axes, s, strict=True)) for s in settings}
    return [Point(setting, labels[label]) for setting, label in named.items() if label in labels]


def _product(axes: Sequence[Axis]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for axis in axes:
        found = [(*before, value) for before in found for value in axis.values]
    return found


def _markdown(model: str, axes: Sequence[Axis], points: Sequence[Point], floor: Row | None) -> str:
    done = [point.row for point in points if point.row.records]
    title = f"# {model} over {' and '.join(axis.key for axis in axes)}"
    if not done:
        return f"{title}\n\nNo run has ended well yet: table.md has the errors.\n"
    first, main = done[0].records[0], main_metric(done)
    records = [record for row in done for record in row.records]
    names = list(first["test"])
    head = [axis.key for axis in axes] + ["seeds", f"valid {main}", *names, f"{main} 95 %"]
    lines = [_cells(point, names, main) for point in points]
    if floor is not None:
        lines.append(_cells(Point(("floor",) + ("",) * (len(axes) - 1), floor), names, main))
    told = (
        f"On {first['dataset']}: {what_was_ranked(first)} Test metrics of the epoch that was best "
        "on validation, mean ± standard deviation over seeds; interval: 95 % bootstrap over "
        "sessions. A setting is chosen by the column of validation, not by the test.\n\n"
        f"Protocol: {protocol(first)}."
    )
    marked = (f"**{mark}: {text}**" for mark, text in warnings(records).items())
    picture = f"![{main}]({PICTURE})"
    return "\n\n".join([title, *marked, told, markdown_table(head, lines), picture]) + "\n"


def _cells(point: Point, names: Sequence[str], main: str) -> list[str]:
    row = point.row
    if not row.records:
        return [*point.setting, "0", "failed", *("-" for _ in names), "-"]
    low, high = row_interval(row, main)
    return [
        *point.setting,
        str(len(row.records)),
        spread(row.values("valid", main)),
        *(spread(row.values("test", name)) for name in names),
        f"{low:.4f} to {high:.4f}",
    ]


def _comma_separated(axes: Sequence[Axis], points: Sequence[Point]) -> str:
    """Return the settings with unrounded numbers."""
    lines = [_flat(axes, point) for point in points]
    text = io.StringIO()
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _flat(axes: Sequence[Axis], point: Point) -> dict[str, object]:
    row = point.row
    flat: dict[str, object] = {a.key: v for a, v in zip(axes, point.setting, strict=True)}
    flat |= {"seeds": len(row.records), "failed": len(row.failed)}
    if not row.records:
        return flat
    main = main_metric([row])
    flat[f"valid {main}"] = moments(row.values("valid", main))[0]
    for name in row.records[0]["test"]:
        flat[name], flat[f"{name} std"] = moments(row.values("test", name))
    flat[f"{main} low"], flat[f"{main} high"] = row_interval(row, main)
    return flat


def _draw(
    folder: Path, model: str, axes: Sequence[Axis], points: Sequence[Point], floor: Row | None
) -> None:
    """Draw the picture; one that cannot be drawn costs a warning, not the table."""
    try:
        picture = _line(model, axes[0], points, floor) if len(axes) == 1 else _map(axes, points)
        with atomic_write(folder / PICTURE, "wb") as stream:
            stream.write(picture)
    except Exception as error:  # matplotlib may fail for its fonts, its cache, or its own setup
        logger.warning("%s is not written: %s: %s", PICTURE, type(error).__name__, error)


def _line(model: str, axis: Axis, points: Sequence[Point], floor: Row | None) -> bytes:
    done = [point for point in points if point.row.records]
    main = main_metric([point.row for point in done])
    drawn = []
    for point in done:
        value, (low, high) = _mean(point.row, main), row_interval(point.row, main)
        ends = (value, value) if np.isnan(low) else (min(low, value), max(high, value))
        drawn.append((point.setting[0], value, *ends))
    line = None if floor is None else _mean(floor, main)
    return charts.study({model: drawn}, axis.key, f"test {main}", line, "png")


def _map(axes: Sequence[Axis], points: Sequence[Point]) -> bytes:
    first, second = axes
    main = main_metric([point.row for point in points if point.row.records])
    values = {p.setting: _mean(p.row, main) for p in points if p.row.records}
    table = [[values.get((x, y), np.nan) for x in first.values] for y in second.values]
    return charts.heat_map(
        table, (first.key, first.values), (second.key, second.values), f"test {main}", "png"
    )


def _mean(row: Row, metric: str) -> float:
    return float(row.values("test", metric).mean())
