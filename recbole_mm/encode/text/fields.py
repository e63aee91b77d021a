"""The text of each item, made from columns of the ``.item`` file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from recbole_mm.data.atomic import header, read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.data.item_columns import USUAL_FIELDS
from recbole_mm.encode.image.labels import read_labels
from recbole_mm.errors import EncodeError

logger = logging.getLogger(__name__)

LABELS = "@"


@dataclass(frozen=True)
class ItemTexts:
    """Texts by item token, in file order.

    Attributes
    ----------
    texts
        The fields joined; non-empty texts only.
    parts
        The same items' non-empty fields, one by one.
    empty
        Number of items whose chosen fields are all empty.
    repeated
        Number of rows left out because their item stands higher up already.
    """

    texts: dict[str, str]
    parts: dict[str, list[str]]
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
    folder: str | Path,
    dataset: str,
    fields: Sequence[str],
    item_field: str = "item_id",
    places: Sequence[str | Path] = (),
) -> ItemTexts:
    """Join the chosen columns of each item to one text.

    Words stand with one blank between them and columns with ``". "``; an underscore inside a
    category stays. Of two rows of one item the first counts.

    Parameters
    ----------
    folder, dataset
        The data set's folder and name.
    fields
        Columns of ``.item``; ``@image`` stands for the class names of the pictures, from the labels
        beside the feature file of modality ``image``.
    item_field
        Column with the item tokens.
    places
        Folders that may hold the labels. Default: ``folder``.

    Raises
    ------
    DataError
        If the ``.item`` file is missing or broken, or lacks one of the columns.
    EncodeError
        If labels are asked for and not there.
    """
    path = item_file(folder, dataset)
    columns = [name for name in fields if not name.startswith(LABELS)]
    frame = read_atomic(path, list(dict.fromkeys([item_field, *columns])))
    cells = [_cells(frame, name, item_field, places or [folder], dataset) for name in fields]
    first = ~frame[item_field].duplicated() & (frame[item_field] != "")
    parts: dict[str, list[str]] = {}
    for token, keep, *texts in zip(frame[item_field], first, *cells, strict=True):
        if keep:
            cleaned = [clean_text(text) for text in texts]
            parts[token] = [text for text in cleaned if text]
    if repeated := int((~first).sum()):
        logger.warning("%s: %d row(s) repeat an item or name none; left out.", path, repeated)
    filled = {token: texts for token, texts in parts.items() if texts}
    joined = {token: ". ".join(texts) for token, texts in filled.items()}
    return ItemTexts(joined, filled, empty=len(parts) - len(filled), repeated=repeated)


def _cells(
    frame: pd.DataFrame, name: str, item_field: str, places: Sequence[str | Path], dataset: str
) -> list[str]:
    """Return one field of every row: a column, or the class names of the row's picture."""
    if not name.startswith(LABELS):
        return _as_text(frame[name])
    labels = read_labels(places, dataset, name.removeprefix(LABELS))
    return [", ".join(labels.get(token, ())) for token in frame[item_field]]


def clean_text(text: str | None) -> str:
    """Return ``text`` as valid Unicode with single blanks; None becomes the empty text."""
    whole = (text or "").encode("utf-8", "replace").decode("utf-8")
    return " ".join(whole.split())


def _as_text(column: pd.Series) -> list[str]:
    """Return a column's cells as text, missing numbers as the empty text."""
    if column.dtype.kind == "f":
        return ["" if pd.isna(value) else f"{value:g}" for value in column]
    return column.tolist()
