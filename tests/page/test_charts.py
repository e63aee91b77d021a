"""Charts are SVG that stands in a page: whole XML, text as text, the same bytes each time."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from recbole_mm.page import charts

EVIL = '<b onload="x">&$\\frac{1}{2}$'
FOREST = [("first", 0.4, 0.3, 0.5), (EVIL, 0.2, 0.1, 0.25)]
COURSE = [(1, 0.1), (2, 0.2)]
DRAWN = {
    "forest": lambda: charts.forest(FOREST, "ndcg@20", 0.3, EVIL),
    "lines": lambda: charts.lines({EVIL: [COURSE], "b": [COURSE, COURSE[::-1]]}, "u", 0.2),
    "scatter": lambda: charts.scatter([(EVIL, 1.5, 0.2), ("b", 300.0, 0.3)], "s", "up", 0.1),
}  # fmt: skip


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("kind", DRAWN)
def test_labels_stand_as_text_whatever_they_hold(kind):
    svg = DRAWN[kind]().decode()
    assert EVIL in texts(svg)
    assert not any("onload" in node.attrib for node in ElementTree.fromstring(svg).iter())
    assert DRAWN[kind]().decode() == svg


def test_inline_svg_is_named_and_has_no_declaration():
    found = charts.inline(DRAWN["forest"](), f"shows {EVIL}", "below")
    figure = ElementTree.fromstring(found)
    picture, caption = list(figure)
    assert picture.get("role") == "img" and picture.get("aria-label") == f"shows {EVIL}"
    assert (figure.tag, caption.text) == ("figure", "below")
    assert "<?xml" not in found and "<!DOCTYPE" not in found and "metadata" not in found


def test_rows_below_the_line_are_red():
    svg = DRAWN["forest"]().decode()
    assert "#b3261e" in svg and "#1f6feb" in svg
    above = charts.forest(FOREST, "ndcg@20", 0.01, "floor").decode()
    assert "#b3261e" not in above


def test_long_labels_are_cut():
    label = "x" * 60
    found = texts(charts.forest([(label, 0.4, 0.3, 0.5)], "u").decode())
    assert "x" * 38 + "…" in found and label not in found
