"""What is kept of an item's metadata, from a record of any release."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from recbole_mm.prepare.reading import clean

ITEM_COLUMNS = (
    "item_id", "title", "brand", "categories", "category", "description", "price", "image_url",
)  # fmt: skip
_BLANK = re.compile(r"\s+")
# The scraper of 2018 took the code of the page for the title of some items.
_PAGE_CODE = "getTime("
_NO_IMAGE = "/no-img"


def item_id_key(year: int) -> str:
    """Return the key of an item's id: variants of a product share one in 2023."""
    return "parent_asin" if year == 2023 else "asin"


def item_cells(record: Mapping[str, object], year: int = 2018) -> list[str]:
    """Return the cells of ``ITEM_COLUMNS`` of a record.

    Texts have their HTML entities resolved and white space collapsed. ``categories`` lists every
    category once, blanks inside a name written ``_``; ``category`` is the finest one of the first
    path. A title that is page code and a picture that says there is none are missing. In 2023
    ``brand`` is the store, and ``description`` begins with the features.
    """
    brand, texts = record.get("brand"), record.get("description")
    if year == 2023:
        brand, texts = record.get("store"), [record.get("features"), texts]
    title = _text(record.get("title"))
    paths = _paths(record.get("category") or record.get("categories"))
    names = dict.fromkeys(name.replace(" ", "_") for path in paths for name in path)
    return [
        str(record[item_id_key(year)]),
        "" if _PAGE_CODE in title else title,
        _text(brand),
        " ".join(names),
        paths[0][-1].replace(" ", "_") if paths else "",
        _text(texts),
        _text(record.get("price")),
        _image(record),
    ]


def _text(value: object) -> str:
    """Return a text, a number, or the texts of a list behind one another."""
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(_text, value)))
    if value is None or isinstance(value, dict | bool):
        return ""
    return clean(str(value))


def _paths(value: object) -> list[list[str]]:
    """Return category paths, none of them empty: 2014 has a list of paths, 2018 one path."""
    if not isinstance(value, list) or not value:
        return []
    nested = value if isinstance(value[0], list) else [value]
    paths = [
        [name for name in map(_text, path) if name] for path in nested if isinstance(path, list)
    ]
    return [path for path in paths if path]


def _image(record: Mapping[str, object]) -> str:
    """Return the address of the first picture, the large one if there is one."""
    for address in _addresses(record):
        if isinstance(address, str) and address.strip() and _NO_IMAGE not in address:
            return _BLANK.sub("", address)
    return ""


def _addresses(record: Mapping[str, object]) -> Iterator[object]:
    """Yield what stands for addresses of pictures, the best first."""
    for key in ("imageURLHighRes", "imageURL", "imUrl"):
        value = record.get(key)
        yield from value if isinstance(value, list) else [value]
    found = record.get("images")
    pictures = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    # The main one need not stand first among the pictures of 2023.
    for picture in sorted(pictures, key=lambda one: one.get("variant") != "MAIN"):
        yield from (picture.get(size) for size in ("hi_res", "large", "thumb"))
