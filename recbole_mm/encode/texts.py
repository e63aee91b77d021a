"""The text of each item, made from columns of the ``.item`` file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from recbole_mm.data.atomic import header, read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import EncodeError

logger = logging.getLogger(__name__)

USUAL_FIELDS = ("title", "brand", "categories", "category", "genres", "description")


@dataclass(frozen=True)
class ItemTexts:
    """Texts by item token, in file order.

    Attributes
    ----------
    texts
        Non-empty texts only.
    empty
        Number of items whose chosen fields are all empty.
    repeated
        Number of rows left out because their item stands higher up already.
    """

    texts: dict[str, str]
    empty: int
    repeated: int


def item_file(folder: str | Path, dataset: str) -> Path:
    """Return ``<folder>/<dataset>.item``."""
    return Path(folder) / f"{dataset}.item"


def default_fields(folder: str | Path, dataset: str) -> list[str]:
    """Return ``text_fields`` of ``dataset.json``, else the usual text columns that exist.

    Raises
    ------
    EncodeError
        If the card names none and no usual column exists.
    DataError
        If the ``.item`` file is missing or has no proper header.
    """
    columns = header(item_file(folder, dataset))
    chosen = list(load_dataset_card(folder).text_fields)
    chosen = chosen or [name for name in USUAL_FIELDS if name in columns]
    if not chosen:
        raise EncodeError(
            f"{item_file(folder, dataset)}: no text column known. It has: {', '.join(columns)}. "
            "Name the columns, for example --fields='title brand', or list them as text_fields "
            "in dataset.json."
        )
    return chosen


def item_texts(
    folder: str | Path, dataset: str, fields: Sequence[str], item_field: str = "item_id"
) -> ItemTexts:
    """Join the chosen columns of each item to one text.

    Words stand with one blank between them and columns with ``". "``; an underscore inside a
    category stays. Of two rows of one item the first counts.

    Raises
    ------
    DataError
        If the ``.item`` file is missing or broken, or lacks one of the columns.
    """
    path = item_file(folder, dataset)
    frame = read_atomic(path, list(dict.fromkeys([item_field, *fields])))
    cells = [_as_text(frame[name]) for name in fields]
    first = ~frame[item_field].duplicated() & (frame[item_field] != "")
    texts: dict[str, str] = {}
    for token, keep, *parts in zip(frame[item_field], first, *cells, strict=True):
        if keep:
            texts[token] = clean_text(". ".join(part for part in parts if part.strip()))
    if repeated := int((~first).sum()):
        logger.warning("%s: %d row(s) repeat an item or name none; left out.", path, repeated)
    filled = {token: text for token, text in texts.items() if text}
    return ItemTexts(filled, empty=len(texts) - len(filled), repeated=repeated)


def clean_text(text: str | None) -> str:
    """Return ``text`` as valid Unicode with single blanks; None becomes the empty text."""
    whole = (text or "").encode("utf-8", "replace").decode("utf-8")
    return " ".join(whole.split())


def _as_text(column: pd.Series) -> list[str]:
    """Return a column's cells as text, missing numbers as the empty text."""
    if column.dtype.kind == "f":
        return ["" if pd.isna(value) else f"{value:g}" for value in column]
    return column.tolist()
