"""The course of a training as a table and as a picture: ``curves.csv`` and ``curves.png``."""

from __future__ import annotations

import csv
import io
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_mm.evaluation.parts import WHOLE
from recbole_mm.files import atomic_write
from recbole_mm.page.charts import figure, rendered
from recbole_mm.trainer.history import EpochRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)

CURVES_TABLE, CURVES_PICTURE = "curves.csv", "curves.png"
# Order of the columns; whatever else a record holds stands after these.
_FIRST = ("epoch", "branch", "learning_rate", "loss", "valid", "parts")

# Losses on one axis differ by this factor at most.
_ALIKE = 10.0

History = Sequence[EpochRecord]
Line = Sequence[tuple[int, float]]


def write_curves(
    history: History, folder: Path, metric: str, title: str = "", best_epoch: int | None = None
) -> None:
    """Write ``curves.csv`` and ``curves.png`` into a run folder.

    A picture that cannot be drawn or files that cannot be written cost a warning, not the run.
    There is no picture where no line has two points, as of a model with one epoch.

    Parameters
    ----------
    history
        One record per epoch, as in ``result.json``.
    folder
        The run folder.
    metric
        Name of the validation metric to draw, such as ``ndcg@20``.
    title
        What stands above: model and data.
    best_epoch
        The epoch that was chosen, marked in every panel.
    """
    try:
        with atomic_write(folder / CURVES_TABLE) as stream:
            stream.write(table(history))
        if picture := draw(history, metric, title, best_epoch):
            with atomic_write(folder / CURVES_PICTURE, "wb") as stream:
                stream.write(picture)
    except Exception as error:  # matplotlib may fail for its fonts, its cache, or its own setup
        logger.warning(
            "the curves of the run are not complete: %s: %s", type(error).__name__, error
        )


def table(history: History) -> str:
    """Return the history as comma-separated values, one line per epoch, not rounded.

    Names of nested values are joined by a slash: ``loss/main``, ``valid/ndcg@20``,
    ``parts/id/ndcg@20``. A cell is empty where an epoch has no such value.
    """
    rows = [_flat(record) for record in history]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, sorted(names, key=_place), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(values: Mapping[str, object], before: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        path = f"{before}{name}"
        flat |= _flat(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat


def _place(name: str) -> int:
    group = name.partition("/")[0]
    return _FIRST.index(group) if group in _FIRST else len(_FIRST)


def draw(
    history: History,
    metric: str,
    title: str = "",
    best_epoch: int | None = None,
    form: str = "png",
) -> bytes | None:
    """Return the picture: validation metric with parts above, losses below; None without lines.

    Losses whose sizes differ much have panels of their own. Runs of epochs with the same
    ``branch`` are shaded in the colour of the part of that name. ``form`` is ``png`` or ``svg``.
    """
    colours = _colours(history)
    panels: list[tuple[str, str, Mapping[str, Line]]] = [
        (metric, "validation", metric_lines(history, metric)),
        *(("mean per batch", "training loss", g) for g in by_size(loss_lines(history))),
    ]
    panels = [panel for panel in panels if any(len(line) > 1 for line in panel[2].values())]
    if not panels:
        return None
    with figure(len(panels), title) as (canvas, axes):
        for place, (unit, name, lines) in zip(axes, panels, strict=True):
            _lines(place, lines, colours if name == "validation" else {}, unit, name)
            _shade(place, history, colours)
            if best_epoch is not None:
                place.axvline(best_epoch, color="black", lw=1, ls=":", label="best epoch")
            place.legend(fontsize="small")
        axes[-1].set_xlabel("epoch")
        axes[-1].xaxis.get_major_locator().set_params(integer=True)
        return rendered(canvas, form)


def by_size(lines: Mapping[str, Line]) -> list[dict[str, Line]]:
    """Group lines whose largest values lie within a factor of ten of the group's largest."""
    sizes = {name: max(abs(value) for _, value in line) for name, line in lines.items()}
    groups: list[dict[str, Line]] = []
    top = 0.0
    for name in sorted(lines, key=lambda name: -sizes[name]):
        if not groups or sizes[name] * _ALIKE < top:
            groups.append({})
            top = sizes[name]
        groups[-1][name] = lines[name]
    return groups


def metric_lines(history: History, metric: str) -> dict[str, list[tuple[int, float]]]:
    """Return the points ``(epoch, value)`` of the validation metric, and of each part, by name."""
    lines: dict[str, list[tuple[int, float]]] = {WHOLE: []}
    for record in history:
        named = {WHOLE: record.get("valid", {})}
        named |= {k: v for k, v in record.get("parts", {}).items() if k != WHOLE}
        for name, values in named.items():
            if metric in values:
                lines.setdefault(name, []).append((record["epoch"], values[metric]))
    return {name: points for name, points in lines.items() if points}


def loss_lines(history: History) -> dict[str, list[tuple[int, float]]]:
    """Return the points ``(epoch, value)`` of each training loss by name, and by branch."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for record in history:
        branch = f" ({record['branch']})" if record.get("branch") else ""
        for name, value in record.get("loss", {}).items():
            lines.setdefault(f"{name}{branch}", []).append((record["epoch"], value))
    return lines


def branch_blocks(history: History) -> list[tuple[str, int, int]]:
    """Return ``(branch, first epoch, last epoch)`` of runs of epochs that train one branch."""
    named = [(str(r["branch"]), int(r["epoch"])) for r in history if r.get("branch")]
    groups = itertools.groupby(named, key=lambda pair: pair[0])
    epochs = [(branch, [epoch for _, epoch in members]) for branch, members in groups]
    return [(branch, members[0], members[-1]) for branch, members in epochs]


def _colours(history: History) -> dict[str, str]:
    """Give each part and branch a colour, one for both where they have the same name."""
    parts = [name for record in history for name in record.get("parts", {}) if name != WHOLE]
    names = dict.fromkeys([*parts, *(branch for branch, _, _ in branch_blocks(history))])
    return {WHOLE: "black", **{name: f"C{place}" for place, name in enumerate(names)}}


def _lines(
    axes: Axes,
    lines: Mapping[str, Sequence[tuple[int, float]]],
    colours: Mapping[str, str],
    unit: str,
    title: str,
) -> None:
    for name, points in lines.items():
        marker = "o" if len(points) == 1 else None
        axes.plot(*zip(*points, strict=True), label=name, marker=marker, color=colours.get(name))
    axes.set_title(title, loc="left")
    axes.set_ylabel(unit)
    axes.grid(alpha=0.3)


def _shade(axes: Axes, history: History, colours: Mapping[str, str]) -> None:
    told: set[str] = set()
    for branch, first, last in branch_blocks(history):
        label = None if branch in told else f"trains {branch}"
        axes.axvspan(first - 0.5, last + 0.5, color=colours[branch], alpha=0.1, lw=0, label=label)
        told.add(branch)
