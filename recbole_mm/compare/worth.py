"""What each modality of a row is worth: the row as it stands minus the row without it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from recbole_mm.compare.results import Row
from recbole_mm.compare.tables import main_metric, markdown_table, spread
from recbole_mm.evaluation.ranking import gains
from recbole_mm.evaluation.significance import Difference, holm
from recbole_mm.page.elements import Cell, Html, section, table
from recbole_mm.rows import KnockOut
from recbole_mm.run.intervals import difference_of

_HEAD = ("row", "modality", "how", "as it stands", "so", "worth", "95 %", "p (Holm)")
_NOTE = (
    "Worth: the metric of the row as it stands minus that of the row made again without the "
    "modality (left out), with the vectors of other items (shuffled) or with random ones, paired "
    "session by session and averaged over seeds."
)


@dataclass(frozen=True)
class Worth:
    """What one knock-out has cost.

    Attributes
    ----------
    made
        Which row, modality and way.
    whole, row
        The row as it stands, and the one without.
    difference
        The main metric of ``whole`` minus that of ``row``.
    p
        Corrected by Holm for all knock-outs of the table.
    """

    made: KnockOut
    whole: Row
    row: Row
    difference: Difference
    p: float


def worths(rows: Sequence[Row]) -> list[Worth]:
    """Return what each knock-out has cost, in the order of the rows; failed rows have none."""
    known = {row.label: row for row in rows if row.records}
    pairs = [
        (row, row.knock_out, known[row.knock_out["of"]])
        for row in known.values()
        if row.knock_out and row.knock_out["of"] in known
    ]
    if not pairs:
        return []
    metric = main_metric([*known.values()])
    found = [_difference(whole, row, metric) for row, _, whole in pairs]
    corrected = holm([one.p for one in found])
    return [
        Worth(made, whole, row, difference, p)
        for (row, made, whole), difference, p in zip(pairs, found, corrected, strict=True)
    ]


def _difference(whole: Row, row: Row, metric: str) -> Difference:
    name, _, cut = metric.partition("@")
    ours, theirs = (gains(one.ranks(), name, int(cut)).mean(axis=0) for one in (whole, row))
    return difference_of(ours, theirs, whole.records[0]["ranks"]["session"])


def worth_table(rows: Sequence[Row]) -> str:
    """Return the table in Markdown; nothing without knock-outs."""
    found = worths(rows)
    if not found:
        return ""
    main = main_metric([row for row in rows if row.records])
    lines = [[*words, *numbers] for words, numbers in (_cells(one, main) for one in found)]
    return f"## What each modality is worth ({main})\n\n{_NOTE}\n\n{markdown_table(_HEAD, lines)}"


def worth_section(rows: Sequence[Row]) -> Html:
    """Return the table for the page; nothing without knock-outs."""
    found = worths(rows)
    if not found:
        return Html("")
    main = main_metric([row for row in rows if row.records])
    lines = []
    for one in found:
        words, numbers = _cells(one, main)
        d = one.difference
        place = "above" if d.low > 0 else "below" if d.high < 0 else "level"
        values = (_mean(one.whole, main), _mean(one.row, main), d.delta, d.low, one.p)
        kinds = ("", "", place, "", "")
        lines.append(
            [
                *(Cell(word, kind="text") for word in words),
                *map(Cell, numbers, values, kinds),
            ]
        )
    return section(f"What each modality is worth ({main})", table(_HEAD, lines), note=_NOTE)


def _cells(one: Worth, main: str) -> tuple[list[str], list[str]]:
    """Return the words and the numbers of a line."""
    d = one.difference
    words = [one.made["of"], one.made["modality"], one.made["how"]]
    return words, [
        spread(one.whole.values("test", main)),
        spread(one.row.values("test", main)),
        f"{d.delta:+.4f}",
        f"{d.low:+.4f} to {d.high:+.4f}",
        f"{one.p:.4f}",
    ]


def _mean(row: Row, metric: str) -> float:
    return float(row.values("test", metric).mean())


def worth_csv(rows: Sequence[Row]) -> str:
    """Return the table with unrounded numbers; nothing without knock-outs."""
    found = worths(rows)
    if not found:
        return ""
    main = main_metric([row for row in rows if row.records])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("row", "modality", "how", "metric", "as it stands", "so")
    writer.writerow([*names, "worth", "low", "high", "p", "p_holm", "sessions"])
    for one in found:
        d, made, both = one.difference, one.made, (one.whole, one.row)
        means = (_mean(row, main) for row in both)
        words = (made["of"], made["modality"], made["how"], main)
        writer.writerow([*words, *means, d.delta, d.low, d.high, d.p, one.p, d.n])
    return text.getvalue()
