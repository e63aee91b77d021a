"""Reading new items: a table of columns, and feature files of vectors that are there already."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from recbole_mm.data.itememb import read_itememb
from recbole_mm.errors import DataError, FeatureError
from recbole_mm.serve.encoding import PICTURE, aligned, encode_new
from recbole_mm.serve.new_items import NewItems
from recbole_mm.serve.packed import dataset_state
from recbole_mm.serve.reading import read_table
from recbole_mm.serve.restored import Restored

Row = Mapping[str, Any]
# Vectors by modality and item id.
Given = Mapping[str, Mapping[str, ArrayLike]]


def read_new_items(path: str, item_field: str) -> list[dict[str, Any]]:
    """Return the rows of a table of new items; a cell without text is None.

    Raises
    ------
    DataError
        The file is missing or no table, or has no column of item ids.
    """
    frame = read_table(path)
    if item_field not in frame.columns:
        raise DataError(
            f"{path}: no column '{item_field}' of item ids. It has: {', '.join(frame.columns)}."
        )
    return [
        {name: None if cell in (None, "") else cell for name, cell in row.items()}
        for row in frame.to_dicts()
    ]


def read_new_vectors(words: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Read ``text=new.text.itememb image=...`` into vectors by modality and item id.

    Raises
    ------
    DataError
        A word is of another form.
    FeatureError
        A file is missing or broken.
    """
    found = {}
    for word in words:
        modality, _, path = word.partition("=")
        if not modality or not path:
            raise DataError(f"--new_vectors: '{word}' must be modality=FILE, as text=new.itememb.")
        if not Path(path).is_file():
            raise FeatureError(f"{path}: no such file; expected {modality} vectors (.itememb).")
        emb = read_itememb(path, modality)
        found[modality] = dict(zip(emb.ids, emb.vectors, strict=True))
    return found


def new_items(known: Restored, rows: Sequence[Row], vectors: Given | None = None) -> NewItems:
    """Return new items with their vectors, encoded where none are given.

    Parameters
    ----------
    known
        The model that is to rank them.
    rows
        One per item: its id, and the columns that made text, price or category in training;
        ``image`` names a picture file.
    vectors
        Vectors by modality and item id.

    Raises
    ------
    DataError
        A row has no id, or a price is no number.
    EncodeError, FeatureError
        An encoder is missing, or a vector does not fit.
    """
    state, item_field = dataset_state(known.dataset), known.config["ITEM_ID_FIELD"]
    ids = [str(row.get(item_field) or "") for row in rows]
    names = dict.fromkeys(name for row in rows for name in row if name != item_field)
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    for name, kind in state["types"].items():
        if kind == "float" and name in columns:
            columns[name] = [_number(cell, name, ids[n]) for n, cell in enumerate(columns[name])]
        elif name in columns:
            columns[name] = [None if cell is None else str(cell) for cell in columns[name]]
    made = NewItems(ids, columns)
    for modality in (state["features"] or {}).get("tables", ()):
        found = None
        if vectors and modality in vectors:
            found = _given(vectors[modality], ids, modality)
        elif recipe := state["recipes"].get(modality):
            sources = [PICTURE] if recipe["from_pictures"] else recipe["fields"]
            if any(cell for name in sources for cell in columns.get(name, ())):
                found = encode_new(recipe, modality, ids, columns)
        if found is not None:
            made.vectors[modality], made.present[modality] = found
    return made


def _number(cell: Any, name: str, token: str) -> float | None:
    """Return a number, or None where there is none."""
    if cell is None:
        return None
    try:
        number = float(cell)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"the {name} of the new item {token!r} is {cell!r}, expected a number.")
    return number


def _given(
    vectors: Mapping[str, ArrayLike], ids: Sequence[str], modality: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return given vectors in the order of the items; None where no item has one."""
    wanted = [token for token in ids if token in vectors]
    if not wanted:
        return None
    try:
        table = np.array([np.asarray(vectors[token], np.float32) for token in wanted])
    except (ValueError, TypeError, OverflowError) as error:
        raise FeatureError(f"the {modality} vectors are no numbers of one length.") from error
    if table.ndim != 2 or not np.isfinite(table).all():
        raise FeatureError(f"the {modality} vectors must be lists of finite numbers.")
    return aligned(wanted, table, ids)
