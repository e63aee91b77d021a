"""What a comparison's page says of the parts of a score, and of content against chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from recbole_mm.compare.results import Row
from recbole_mm.compare.tables import main_metric, spread
from recbole_mm.evaluation.parts import WHOLE
from recbole_mm.page.elements import Cell, Html, section, table

_KINDS: tuple[Literal["parts", "variants"], ...] = ("parts", "variants")
_OTHER_SOURCES = ("shuffled", "random")


def knockout_section(rows: Sequence[Row]) -> Html:
    """Show what each part of a score reaches alone, and scores without a part."""
    main = main_metric(rows)
    lines = []
    for row in rows:
        whole = float(row.values("test", main).mean())
        for kind in _KINDS:
            names = dict.fromkeys(n for r in row.records for n in r.get(kind, {}).get("test", {}))
            for name in names:
                values = row.values(kind, "test", name, main)
                if name != WHOLE and not np.isnan(values).all():
                    lines.append(_line(f"{row.label}: {name}", kind, values, whole))
    head = ["score", "kind", f"test {main}", "whole score", "change, %"]
    note = (
        "parts: one part of the score alone. variants: the score made in another way, without "
        "training again, such as without a part. The whole score stands beside them."
    )
    return section("Knock-outs", table(head, lines), note=note) if lines else Html("")


def content_section(rows: Sequence[Row]) -> Html:
    """Compare rows with made-up or exchanged item vectors with the same model and the real ones."""
    main = main_metric(rows)
    rows = [row for row in rows if row.knock_out is None]  # They have a table of their own.
    real = {_subject(row): row for row in rows if _source(row) == "real"}
    lines = []
    for row in rows:
        if _source(row) in _OTHER_SOURCES and _subject(row) in real:
            whole = float(real[_subject(row)].values("test", main).mean())
            lines.append(_line(row.label, _source(row), row.values("test", main), whole))
    head = ["row", "item vectors", f"test {main}", "with the real ones", "change, %"]
    note = (
        "The same model with item vectors that say nothing of the item: drawn at random, or those "
        "of another item. What is lost is what content adds."
    )
    return (
        section("Is content worth anything?", table(head, lines), note=note) if lines else Html("")
    )


def _subject(row: Row) -> tuple[str, str]:
    first = row.records[0]
    return first["model"], first["preset"]


def _source(row: Row) -> str:
    return str(row.records[0]["config"].get("feature_source", "real"))


def _line(label: str, kind: str, values: np.ndarray, whole: float) -> list[Cell]:
    mean = float(np.nanmean(values))
    change = round(100 * (mean / whole - 1), 1) + 0.0 if whole > 0 else np.nan  # no -0.0
    return [
        Cell(label),
        Cell(kind, kind="text"),
        Cell(spread(values), mean),
        Cell(f"{whole:.4f}", whole),
        Cell("–" if np.isnan(change) else f"{change:+.1f}", change),
    ]
