"""The data set's own word about itself: ``dataset.json`` beside the atomic files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from recbole_mm.errors import DataError
from recbole_mm.files import atomic_write, read_json

TIMESTAMPS = ("real", "positional", "unknown")


@dataclass(frozen=True)
class DatasetCard:
    """What a reader of a result must know about the data.

    Attributes
    ----------
    name, source, licence
        Free text.
    timestamps
        ``real``: times order sessions among each other; ``positional``: a number inside the session
        only, so that a split by time means nothing; ``unknown``: no card was given.
    synthetic
        True if the interactions were generated; every result then says SYNTHETIC.
    session
        What one session is, for example ``one invoice``.
    text_fields
        Columns of ``.item`` that make an item's text, in order.
    report
        What preparation dropped, with counts.
    image_field, image_folder
        Column of ``.item`` with the path or address of an item's picture, and the folder where
        relative paths begin, itself relative to the data set's.
    """

    name: str
    source: str = ""
    licence: str = ""
    timestamps: str = "unknown"
    synthetic: bool = False
    session: str = ""
    text_fields: tuple[str, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)
    image_field: str = ""
    image_folder: str = ""

    def save(self, folder: str | Path) -> None:
        """Write the card to ``<folder>/dataset.json``."""
        plain = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        with atomic_write(Path(folder) / "dataset.json") as stream:
            json.dump(plain, stream, indent=2, ensure_ascii=False)
            stream.write("\n")


def load_dataset_card(folder: str | Path) -> DatasetCard:
    """Read ``<folder>/dataset.json``; without that file, a card that knows nothing but the name.

    Raises
    ------
    DataError
        If the file is no JSON object, a key is unknown, or a value has the wrong type.
    """
    path = Path(folder) / "dataset.json"
    if not path.is_file():
        return DatasetCard(name=Path(folder).name)
    try:
        plain = read_json(path)
    except ValueError as error:
        raise DataError(f"{path}: not a JSON file ({error}). Mend it or remove it.") from error
    known = {entry.name for entry in fields(DatasetCard)}
    if not isinstance(plain, dict) or not {"name"} <= plain.keys() <= known:
        raise DataError(f"{path}: expected an object with name and any of {sorted(known)}.")
    for key in ("name", "source", "licence", "session", "image_field", "image_folder"):
        if not isinstance(plain.get(key, ""), str):
            raise DataError(f"{path}: {key} is {plain[key]!r}, expected text.")
    if not isinstance(plain.get("report", {}), dict):
        raise DataError(f"{path}: report is no table, expected an object.")
    if plain.get("timestamps", "unknown") not in TIMESTAMPS:
        raise DataError(
            f"{path}: timestamps is {plain['timestamps']!r}, expected one of "
            f"{', '.join(TIMESTAMPS)}."
        )
    if not isinstance(plain.get("synthetic", False), bool):
        raise DataError(f"{path}: synthetic is {plain['synthetic']!r}, expected true or false.")
    text_fields = plain.get("text_fields", [])
    if not (isinstance(text_fields, list) and all(isinstance(name, str) for name in text_fields)):
        raise DataError(f"{path}: text_fields is {text_fields!r}, expected a list of column names.")
    return DatasetCard(**{**plain, "text_fields": tuple(text_fields)})
