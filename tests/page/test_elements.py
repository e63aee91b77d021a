"""Elements escape what they are given; tables carry the numbers they are sorted by."""

from __future__ import annotations

from html.parser import HTMLParser

from recbole_mm.page.elements import Cell, Html, element, folded, page, section, table

EVIL = "<script>alert(1)</script>\"'&"


class Reader(HTMLParser):
    """Collects tags and text as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def test_texts_and_attributes_are_escaped_and_elements_are_not_twice():
    read = Reader(element("p", EVIL, element("b", EVIL), title=EVIL, kind="note"))
    assert [tag for tag, _ in read.tags] == ["p", "b"]
    assert read.tags[0][1] == {"title": EVIL, "class": "note"}
    assert read.texts == [EVIL, EVIL]


def test_cells_carry_their_value_and_rows_their_name():
    read = Reader(table(["a", EVIL], [[EVIL, Cell("12 %", 0.125, "best", 0.5)], ["b", Cell("–")]]))
    cells = [(tag, found) for tag, found in read.tags if tag in ("td", "th")]
    assert [tag for tag, _ in cells] == ["th", "th", "th", "td", "th", "td"]
    assert cells[3][1] == {"class": "best", "data-value": "0.125", "style": "--heat: 0.50"}
    assert "data-value" not in cells[5][1] and cells[2][1]["scope"] == "row"
    assert read.texts == ["a", EVIL, EVIL, "12 %", "b", "–"]


def test_a_section_without_content_is_nothing():
    assert section("Empty", Html(""), note="n") == ""
    assert 'id="to-be--or-not"' in section("To be, or not", element("p", "x"))


def test_a_page_loads_nothing():
    text = page(EVIL, folded("more", "x"))
    read = Reader(text)
    assert text.startswith("<!doctype html>")
    policy = next(found["content"] for _, found in read.tags if "http-equiv" in found)
    assert policy.startswith("default-src 'none'") and "http" not in policy
    assert not any({"src", "href"} & set(found) for _, found in read.tags)
    assert [tag for tag, _ in read.tags].count("script") == 1
