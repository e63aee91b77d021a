"""Charts as pictures: matplotlib's, in one style, as PNG or as SVG to stand in a page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recbole_mm.page.elements import Html, element

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BLUE, _RED, _INK = "#1f6feb", "#b3261e", "#1d2733"
# Names of models and columns are no formulas; text stays text, and the same chart the same bytes.
_SETTINGS: dict[Any, Any] = {
    "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "recbole_mm",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#9aa7b5",
    "axes.labelcolor": _INK, "xtick.color": "#5d6b7a", "ytick.color": "#5d6b7a",
    "text.color": _INK, "font.size": 10,
}  # fmt: skip
Points = Sequence[tuple[float, float]]


@contextmanager
def figure(panels: int = 1, title: str = "", width: float = 8.0, height: float = 3.0) -> Iterator:
    """Give a figure and its ``panels`` axes, one above the other, ``height`` inches each."""
    import matplotlib

    # Below this it tells every font file that it looks at.
    matplotlib.set_loglevel("WARNING")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        canvas = Figure(figsize=(width, height * panels), layout="constrained")
        FigureCanvasAgg(canvas)
        if title:
            canvas.suptitle(title)
        yield canvas, list(canvas.subplots(panels, 1, sharex=True, squeeze=False)[:, 0])


def rendered(canvas: Figure, form: str) -> bytes:
    """Return a figure as ``png`` or ``svg``."""
    data = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else None
    canvas.savefig(data, format=form, dpi=100, metadata=metadata)
    return data.getvalue()


def inline(svg: bytes, label: str, caption: str = "") -> Html:
    """Return an SVG as a figure of a page; ``label`` says what it shows to who cannot see it."""
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    opening = element("svg", role="img", aria_label=label).removesuffix("></svg>")
    picture = Html(text.replace("<svg", opening, 1))
    return element("figure", picture, *([element("figcaption", caption)] if caption else []))


def forest(
    rows: Sequence[tuple[str, float, float, float]],
    unit: str,
    line: float | None = None,
    line_name: str = "",
) -> bytes:
    """Draw values with their intervals, one row each, and a line to measure them by.

    Parameters
    ----------
    rows
        Label, value, lower and upper end; the first one stands at the top.
    unit
        Name of the horizontal axis.
    line, line_name
        Where the line stands, and what it is.
    """
    with figure(width=6.4, height=1.0 + 0.34 * len(rows)) as (canvas, (axes,)):
        for place, (_, value, low, high) in enumerate(rows):
            worse = line is not None and high < line
            colour = _RED if worse else _BLUE
            axes.plot([low, high], [place, place], color=colour, lw=2, solid_capstyle="butt")
            axes.plot([value], [place], "o", color=colour, ms=6)
        if line is not None:
            axes.axvline(line, color=_INK, lw=1, ls="--", label=line_name)
            axes.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
        axes.set_yticks(range(len(rows)), [_short(label) for label, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(unit)
        axes.grid(axis="x", alpha=0.3)
        return rendered(canvas, "svg")


def lines(series: Mapping[str, Sequence[Points]], unit: str, line: float | None = None) -> bytes:
    """Draw courses over epochs, one colour per label, a thin line for each of its runs."""
    with figure(height=3.6) as (canvas, (axes,)):
        for place, (label, runs) in enumerate(series.items()):
            for number, points in enumerate(runs):
                axes.plot(
                    *zip(*points, strict=True), color=f"C{place % 10}", lw=1.4, alpha=0.85,
                    ls=("-", "--", "-.")[place // 10 % 3],
                    label=None if number else _short(label),
                )  # fmt: skip
        if line is not None:
            axes.axhline(line, color=_INK, lw=1, ls="--", label="floor")
        axes.set_xlabel("epoch")
        axes.set_ylabel(unit)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        canvas.legend(fontsize="small", loc="outside right upper", frameon=False)
        return rendered(canvas, "svg")


def study(
    series: Mapping[str, Sequence[tuple[str, float, float, float]]],
    across: str,
    up: str,
    line: float | None = None,
    form: str = "svg",
) -> bytes:
    """Draw values with their intervals over settings, evenly spaced, one line per series.

    Parameters
    ----------
    series
        By label: setting, value, lower and upper end.
    across, up
        Names of the axes.
    line
        Where the floor lies.
    form
        ``svg`` or ``png``.
    """
    names = list(dict.fromkeys(name for points in series.values() for name, *_ in points))
    with figure(width=6.4, height=3.6) as (canvas, (axes,)):
        for place, (label, points) in enumerate(series.items()):
            x = [names.index(name) + 0.06 * (place - (len(series) - 1) / 2) for name, *_ in points]
            y = [value for _, value, _, _ in points]
            below = [value - low for _, value, low, _ in points]
            above = [high - value for _, value, _, high in points]
            axes.errorbar(
                x, y, yerr=[below, above], marker="o", ms=5, lw=1.4, capsize=3,
                color=f"C{place % 10}", label=_short(label),
            )  # fmt: skip
        if line is not None:
            axes.axhline(line, color=_INK, lw=1, ls="--", label="floor")
        axes.set_xticks(range(len(names)), names)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(axis="y", alpha=0.3)
        if len(series) > 1 or line is not None:
            axes.legend(fontsize="small", frameon=False)
        return rendered(canvas, form)


def heat_map(
    values: Sequence[Sequence[float]],
    across: tuple[str, Sequence[str]],
    up: tuple[str, Sequence[str]],
    unit: str,
    form: str = "svg",
) -> bytes:
    """Draw a table of values as coloured cells with their numbers.

    Parameters
    ----------
    values
        One row per setting of ``up``; ``nan`` leaves a cell empty.
    across, up
        Name and settings of each axis.
    unit
        What the values are.
    form
        ``svg`` or ``png``.
    """
    (name_x, ticks_x), (name_y, ticks_y) = across, up
    width = 2.4 + 0.8 * len(ticks_x)
    with figure(width=width, height=1.4 + 0.5 * len(ticks_y)) as (canvas, (axes,)):
        shown = axes.imshow(values, cmap="viridis", aspect="auto")
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                if value == value:
                    dark = shown.norm(value) < 0.6
                    colour = "white" if dark else "black"
                    axes.text(x, y, f"{value:.4f}", ha="center", va="center", color=colour, size=9)
        axes.set_xticks(range(len(ticks_x)), ticks_x)
        axes.set_yticks(range(len(ticks_y)), ticks_y)
        axes.set_xlabel(name_x)
        axes.set_ylabel(name_y)
        canvas.colorbar(shown, ax=axes, label=unit)
        return rendered(canvas, form)


def scatter(
    points: Sequence[tuple[str, float, float]], across: str, up: str, line: float | None = None
) -> bytes:
    """Draw named points; the horizontal axis is logarithmic."""
    with figure(height=3.6) as (canvas, (axes,)):
        # Names of neighbours stand above and below in turn.
        for place, (label, x, y) in enumerate(sorted(points, key=lambda point: point[1])):
            axes.plot([x], [y], "o", color=f"C{place % 10}", ms=7)
            aside = (6, -13) if place % 2 else (6, 5)
            axes.annotate(_short(label), (x, y), aside, textcoords="offset points", fontsize=9)
        if line is not None:
            axes.axhline(line, color=_INK, lw=1, ls="--", label="floor")
            axes.legend(fontsize="small", frameon=False)
        axes.set_xscale("log")
        axes.margins(0.15, 0.15)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(alpha=0.3, which="both")
        return rendered(canvas, "svg")


def _short(label: str) -> str:
    """Return a label that fits beside a chart."""
    return label if len(label) <= 40 else f"{label[:38]}…"
