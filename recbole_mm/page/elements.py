"""HTML made of elements: what is not marked as HTML is escaped, so that data cannot be markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recbole_mm.page.style import SCRIPT, STYLE

# The page may use what stands in it, and nothing else.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


class Html(str):
    """Text that is HTML already."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes
    ----------
    shown
        Its text.
    value
        What the column is sorted by; the text itself if None.
    kind
        Its CSS class, such as ``best``.
    heat
        From 0 (no colour) to 1.
    """

    shown: str
    value: float | None = None
    kind: str = ""
    heat: float = 0.0


def element(tag: str, *content: str, **attributes: str) -> Html:
    """Return an element; plain texts in it are escaped, attributes too.

    ``kind`` stands for the attribute ``class``; empty attributes are left out.
    """
    named = {"class" if name == "kind" else name.replace("_", "-"): v for name, v in
             attributes.items() if v}  # fmt: skip
    inside = "".join(f' {name}="{html.escape(value)}"' for name, value in named.items())
    return Html(f"<{tag}{inside}>{joined(content)}</{tag}>")


def joined(content: Iterable[str]) -> Html:
    """Return texts in a row, the plain ones escaped."""
    return Html("".join(c if isinstance(c, Html) else html.escape(str(c)) for c in content))


def table(head: Sequence[str], rows: Iterable[Sequence[Cell | str]], caption: str = "") -> Html:
    """Return a table that a click on a column's head sorts; the first column is the rows' name."""
    heads = (element("th", name, scope="col", title="click to sort") for name in head)
    lines = (element("tr", *(_cell(cell, n) for n, cell in enumerate(row))) for row in rows)
    return element(
        "div",
        element(
            "table",
            *([element("caption", caption)] if caption else []),
            element("thead", element("tr", *heads)),
            element("tbody", *lines),
        ),
        kind="wide",
    )


def _cell(cell: Cell | str, number: int) -> Html:
    if isinstance(cell, str):
        cell = Cell(cell)
    tag = "td" if number else "th"
    return element(
        tag, cell.shown, kind=cell.kind, scope="" if number else "row",
        data_value="" if cell.value is None else repr(float(cell.value)),
        style=f"--heat: {cell.heat:.2f}" if cell.heat > 0 else "",
    )  # fmt: skip


def section(title: str, *content: str, note: str = "") -> Html:
    """Return a section with its title and a note; nothing if there is no content."""
    if not any(content):
        return Html("")
    anchor = "".join(c if c.isalnum() else "-" for c in title.lower())
    told = [element("p", note, kind="note")] if note else []
    return element("section", element("h2", title), *told, *content, id=anchor)


def folded(title: str, *content: str) -> Html:
    """Return content that a click unfolds."""
    return element("details", element("summary", title), *content)


def page(title: str, *content: str) -> str:
    """Return a whole page that needs nothing but itself."""
    head = (
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        element("title", title),
        element("style", Html(STYLE)),
    )
    body = element("body", element("main", *content), element("script", Html(SCRIPT)))
    return "<!doctype html>\n" + element("html", element("head", *head), body, lang="en") + "\n"
