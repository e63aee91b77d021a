"""Encoding new items as the items of training were encoded."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_mm.data.atomic import write_atomic
from recbole_mm.data.itememb import read_itememb
from recbole_mm.data.session_dataset import feature_files
from recbole_mm.encode.image.files import picture_name
from recbole_mm.encode.manifest import Manifest, load_manifest, manifest_path
from recbole_mm.errors import EncodeError, MMError, NothingEncodedError

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset
    from recbole_mm.encode.text.tfidf import FittedState

logger = logging.getLogger(__name__)

Recipe = Mapping[str, Any]
Vectors = tuple[NDArray[np.float32], NDArray[np.bool_]]
# Name of the little data set that is encoded, and the column of pictures' files.
_NAME, PICTURE = "new", "image"


def recipes(dataset: SessionDataset) -> dict[str, Any]:
    """Return what made the vectors of each modality that a model reads, out of the manifests."""
    if dataset.item_features is None:
        return {}
    files, found = feature_files(dataset.config), {}
    for modality in dataset.item_features.tables:
        manifest = load_manifest(manifest_path(files.find(modality)))
        if manifest is not None and manifest.kind == "encoded":
            found[modality] = {
                "encoder": dict(manifest.encoder),
                "fields": list(manifest.fields),
                "field_pooling": manifest.field_pooling,
                "from_pictures": bool(manifest.pictures),
                "fitted": _fitted(dataset, manifest, tuple(map(Path, files.folders))),
            }
    return found


def _fitted(
    dataset: SessionDataset, manifest: Manifest, places: tuple[Path, ...]
) -> FittedState | None:
    """Return what an encoder that was fitted on the catalogue's texts fitted; None for others.

    It is fitted once more, on the same texts. Where that does not give the vectors of the file,
    there is None, too, and new texts will be refused.
    """
    if not manifest.encoder.get("fitted_on"):
        return None
    config, made = dataset.config, manifest.encoder
    texts = tuple(manifest.fields), manifest.field_pooling, config["ITEM_ID_FIELD"]
    folder = Path(config["data_path"])
    try:
        state = _fitted_again(folder, config["dataset"], *texts, places, made["fitted_on"])
    except MMError as error:
        state = None
        logger.debug("%s", error)
    if state is None or state["revision"] != made.get("revision"):
        logger.warning(
            "the texts of %s, or scikit-learn, are not those of its %s vectors any more: new "
            "items will need --new_vectors. Encode again and train again for a pack that takes "
            "new texts.", config["dataset"], manifest.modality,
        )  # fmt: skip
        return None
    return state


@lru_cache(maxsize=2)
def _fitted_again(
    folder: Path,
    dataset: str,
    fields: tuple[str, ...],
    field_pooling: str,
    item_field: str,
    places: tuple[Path, ...],
    fitted_on: str,
) -> FittedState | None:
    """Fit on the texts of a data set, if they are those that were fitted on."""
    from recbole_mm.encode.text.fields import item_file, item_texts
    from recbole_mm.encode.text.job import text_contents
    from recbole_mm.encode.text.tfidf import TfidfEncoder, corpus_hash

    items = item_texts(folder, dataset, fields, item_field, places)
    contents = text_contents(items, field_pooling).values()
    texts = [text for content in contents for _, text in content.units]
    if corpus_hash(texts) != fitted_on:
        return None
    return TfidfEncoder(texts, item_file(folder, dataset)).state()


def encode_new(
    recipe: Recipe, modality: str, ids: Sequence[str], columns: Mapping[str, Sequence[Any]]
) -> Vectors | None:
    """Return vectors ``(M, d)`` of new items, and which of them have one ``(M,)``; None for none.

    Parameters
    ----------
    recipe
        One of `recipes`.
    modality
        Its modality, for messages.
    ids
        Item ids.
    columns
        Cells by column; ``image`` names picture files.

    Raises
    ------
    EncodeError
        The encoder is not on this machine, is another version, or was fitted on other texts.
    """
    about = recipe["encoder"]
    if about.get("fitted_on") and not recipe["fitted"]:
        raise EncodeError(
            f"the {modality} vectors were made by {about.get('name')}, which was fitted on texts "
            "that had changed when the model was packed. Give vectors with --new_vectors, or "
            "encode, train and pack again."
        )
    with tempfile.TemporaryDirectory(prefix="recbole_mm_") as name:
        folder = Path(name)
        encode = _pictures if recipe["from_pictures"] else _texts
        try:
            path = encode(recipe, modality, folder, ids, columns)
        except NothingEncodedError:
            return None
        made = load_manifest(manifest_path(path))
        found = read_itememb(path, modality)
    if made is not None and made.encoder.get("revision") != about.get("revision"):
        raise EncodeError(
            f"the {modality} encoder {about.get('name')!r} is another version here "
            f"({made.encoder.get('revision')}) than in training ({about.get('revision')}); vectors "
            "would not fit. Install that version, or give vectors with --new_vectors."
        )
    return aligned(found.ids, found.vectors, ids)


def aligned(names: Sequence[str], rows: NDArray[np.float32], ids: Sequence[str]) -> Vectors:
    """Return vectors in the order of the new items, and which of them have one."""
    place = {name: row for row, name in enumerate(names)}
    vectors = np.zeros((len(ids), rows.shape[1]), np.float32)
    present = np.array([name in place for name in ids])
    vectors[present] = rows[[place[name] for name in ids if name in place]]
    return vectors, present


def _texts(
    recipe: Recipe,
    modality: str,
    folder: Path,
    ids: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> Path:
    """Encode the text columns of the recipe."""
    from recbole_mm.encode import encode_text

    fields = [name for name in recipe["fields"] if name in columns]
    if not fields:
        raise EncodeError(
            f"the new items have none of the text columns {', '.join(recipe['fields'])}; they "
            f"have: {', '.join(columns) or 'none'}. Name a column so, or give vectors with "
            "--new_vectors."
        )
    cells = {name: ["" if cell is None else str(cell) for cell in columns[name]] for name in fields}
    frame = pd.DataFrame({"item_id": list(ids), **cells})
    types = {"item_id": "token", **dict.fromkeys(fields, "token_seq")}
    write_atomic(folder / f"{_NAME}.item", frame, types)
    asked = dict(recipe["encoder"].get("asked", {}))
    if recipe["fitted"]:
        from recbole_mm.encode.text.tfidf import TfidfEncoder

        asked["fitted"] = TfidfEncoder.restored(recipe["fitted"])
    return encode_text(
        folder, _NAME, modality=modality, fields=fields, field_pooling=recipe["field_pooling"],
        encoder=recipe["encoder"]["name"], **asked,
    )  # fmt: skip


def _pictures(
    recipe: Recipe,
    modality: str,
    folder: Path,
    ids: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> Path:
    """Encode the pictures that the column `image` names; they need packages of an extra."""
    from recbole_mm.encode import encode_image

    frame = pd.DataFrame({"item_id": list(ids)})
    write_atomic(folder / f"{_NAME}.item", frame, {"item_id": "token"})
    place = folder / "pictures"
    place.mkdir()
    for token, cell in zip(ids, columns.get(PICTURE, [None] * len(ids)), strict=True):
        if cell:
            source = Path(str(cell))
            if not source.is_file():
                raise EncodeError(f"the picture {source} of the new item {token!r} is not there.")
            copyfile(source, place / f"{picture_name(token)}{source.suffix}")
    encoder = recipe["encoder"]["name"]
    return encode_image(folder, _NAME, modality=modality, images=place, encoder=encoder)
