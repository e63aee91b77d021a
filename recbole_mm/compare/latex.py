"""The main table as LaTeX, for a paper: ``table.tex``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recbole_mm.compare.results import Row
from recbole_mm.compare.tables import moments, protocol, warnings, what_was_ranked

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def latex(rows: Sequence[Row]) -> str:
    """Return the main table in the style of booktabs.

    The best mean of a column is bold, the second underlined; the row of the floor competes too.
    Deviations over seeds stand small behind the means.

    Parameters
    ----------
    rows
        Rows with at least one good run each.
    """
    records = [record for row in rows for record in row.records]
    names = list(records[0]["test"])
    columns = [_column(rows, name) for name in names]
    lines = [
        " & ".join([escaped(row.label), *cells]) + r" \\"
        for row, cells in zip(rows, zip(*columns, strict=True), strict=True)
    ]
    first = records[0]
    marked = " ".join(f"{mark}: {text}" for mark, text in warnings(records).items())
    caption = f"Test metrics on {first['dataset']}. {what_was_ranked(first)} {marked}".strip()
    return "\n".join(
        [
            f"% {_comment(protocol(first))}",
            f"% fingerprint {first['fingerprint']['data']}",
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
            r"\toprule",
            " & ".join(["model", *map(escaped, names)]) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _comment(text: str) -> str:
    """Return text on one line."""
    return " ".join(text.split())


def _column(rows: Sequence[Row], name: str) -> list[str]:
    """Return the cells of one metric with the best two marked."""
    means = np.array([row.values("test", name).mean() for row in rows])
    values = sorted(set(np.round(means[~np.isnan(means)], 4)), reverse=True)
    cells = []
    for row, mean in zip(rows, np.round(means, 4), strict=True):
        shown = "--" if np.isnan(mean) else f"{mean:.4f}"
        if mean in values[:1]:
            shown = rf"\textbf{{{shown}}}"
        elif mean in values[1:2]:
            shown = rf"\underline{{{shown}}}"
        deviation = moments(row.values("test", name))[1]
        spread = "" if deviation == "" else rf" {{\scriptsize $\pm$ {deviation:.4f}}}"
        cells.append(shown + spread)
    return cells
