"""Columns of the ``.item`` file in the order of a data set's internal item ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from recbole_mm.data.atomic import header, read_atomic
from recbole_mm.errors import DataError

# Columns that make an item's text where ``dataset.json`` names none.
USUAL_FIELDS = ("title", "brand", "categories", "category", "genres", "description")


class ItemColumns:
    """What the ``.item`` file says of the items, read when a column is asked for.

    Cells are found by item token, so that neither the order of the file nor items that never occur
    in a session matter.

    Parameters
    ----------
    path
        The ``.item`` file; it need not exist.
    key
        Column with the item tokens.
    tokens
        Tokens by internal id, the padding token first.
    separator
        What stands between the entries of a ``token_seq`` cell.
    asked
        Takes the names of the columns that are read.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        tokens: Sequence[str],
        separator: str = " ",
        asked: set[str] | None = None,
    ) -> None:
        self.path, self.key, self.separator = path, key, separator
        self._tokens = tokens
        self._asked = set() if asked is None else asked

    @property
    def types(self) -> dict[str, str]:
        """``{column: type}`` of the file's header; empty where there is no file."""
        return header(self.path) if self.path.is_file() else {}

    def column(self, name: str) -> pd.Series:
        """Return a column by internal item id ``(n_items,)``; of two rows of one item the first.

        A ``float`` column is float64 with NaN where there is no number, all others are texts, NaN
        for an item without row. The padding item has none.

        Raises
        ------
        DataError
            If there is no ``.item`` file, or it has no such column.
        """
        if not self.path.is_file():
            raise DataError(f"{self.path}: there is no .item file to read {name!r} from.")
        self._asked.add(name)
        rows = read_atomic(self.path, [self.key, name]).drop_duplicates(self.key)
        # The padding item has no row of its own, even if an item should carry its name.
        wanted = ["\0", *map(str, self._tokens[1:])]
        return rows.set_index(self.key)[name].reindex(wanted)


def usual_texts(columns: ItemColumns, text_fields: Sequence[str] = ()) -> list[str]:
    """Return each item's text fields joined by a blank, by internal id; ``""`` where it has none.

    Parameters
    ----------
    columns
        Columns of the ``.item`` file.
    text_fields
        Those that make the text (``text_fields`` of the card); none takes the usual ones.

    Returns
    -------
    list of str
        ``n_items`` texts; empty where the file has no such column.
    """
    types = columns.types
    names = [name for name in text_fields or USUAL_FIELDS if name in types]
    cells = [columns.column(name).fillna("").astype(str) for name in names]
    return [" ".join(filter(None, parts)) for parts in zip(*cells, strict=True)]
