"""The main table as LaTeX."""

from __future__ import annotations

import numpy as np

from recbole_mm.compare.latex import escaped, latex
from recbole_mm.compare.results import read_rows

from .made import record, write


def test_special_characters_are_printed_as_they_are():
    assert escaped("a_b & 50% #1 {x} ~^$") == (
        r"a\_b \& 50\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\$"
    )
    assert escaped("\\input") == r"\textbackslash{}input"


def rows_of(text: str) -> dict[str, list[str]]:
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    lines = [line.removesuffix(r" \\").split(" & ") for line in body.strip().splitlines()]
    return {label: cells for label, *cells in lines}


def test_means_deviations_and_the_best_two(tmp_path):
    records = [record(seed=1), record(seed=2)]
    write(
        tmp_path,
        {"A_1": records, "Best": [record(ranks=[1] * 200)], "Last": [record(ranks=[50] * 200)]},
    )
    text = latex(read_rows(tmp_path)[0])
    found = rows_of(text)
    assert list(found) == [r"A\_1", "Best", "Last"]
    hits = [r["test"]["hit@10"] for r in records]
    assert found[r"A\_1"][0] == (
        rf"\underline{{{np.mean(hits):.4f}}} {{\scriptsize $\pm$ {np.std(hits, ddof=1):.4f}}}"
    )
    assert found["Best"] == [r"\textbf{1.0000}"] * 4 and found["Last"][0] == "0.0000"
    assert text.count("{") == text.count("}") and r"\begin{tabular}{lrrrr}" in text
    assert "model & hit@10 & hit@20" in text and f"% fingerprint {'d' * 64}" in text


def test_marks_stand_in_the_caption(tmp_path):
    write(tmp_path, {"A": [record(synthetic=True, dataset="my_shop")]})
    text = latex(read_rows(tmp_path)[0])
    assert r"Test metrics on my\_shop. 200 test rows" in text and "SYNTHETIC: generated" in text
