"""Encode item pictures to an ``.itememb`` file."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from recbole_mm import collectives, processes
from recbole_mm.data.atomic import read_atomic
from recbole_mm.encode.engine import Content, Job, Outcome, encode_contents, publish
from recbole_mm.encode.image.download import Limits
from recbole_mm.encode.image.encoders import (
    GOOGLENET,
    GoogLeNet,
    classifier,
    resolve_picture_encoder,
)
from recbole_mm.encode.image.files import PictureError, file_hash
from recbole_mm.encode.image.finding import Places, find, picture_cells, picture_column
from recbole_mm.encode.image.labels import TOP, labels_fit, write_labels
from recbole_mm.encode.image.vision import encoder_class
from recbole_mm.encode.manifest import PICTURE_PACKAGES, Manifest, package_versions
from recbole_mm.encode.source import EncoderSource
from recbole_mm.encode.store import Store
from recbole_mm.encode.text.fields import item_file
from recbole_mm.errors import EncodeError
from recbole_mm.files import sha256_file

logger = logging.getLogger(__name__)

MODALITY = "image"
BATCH_SIZE = 32
CHUNK_SIZE = 128


class NoPicturesError(EncodeError):
    """No pictures were given: a recipe may do without the step."""


def encode_image(
    folder: str | Path,
    dataset: str,
    out: str | Path | None = None,
    *,
    modality: str = MODALITY,
    images: str | Path | None = None,
    image_col: str | None = None,
    limits: Limits | None = None,
    encoder: str = GOOGLENET,
    weights: str | Path | None = None,
    labels: int = TOP,
    batch_size: int = BATCH_SIZE,
    chunk_size: int = CHUNK_SIZE,
    item_field: str = "item_id",
    download: bool = False,
    recipe: str = "",
) -> Path:
    """Encode the picture of every item of ``<folder>/<dataset>.item``.

    Equal files are encoded once; a finished chunk is kept on disk, so that a killed run goes on
    where it stopped and ends with the same bytes. A picture that cannot be used is left out, with
    its reason in the manifest.

    Parameters
    ----------
    folder, dataset
        The data set's folder and name.
    out
        Folder of the result. Default: ``folder``.
    modality
        Name of the feature file's modality.
    images
        Folder of pictures named by item, where relative paths begin, too. Default: the folder that
        ``dataset.json`` names; for pictures that are fetched ``<out>/<dataset>.pictures``.
    image_col
        Column of ``.item`` with a path or an http address (the first in a cell counts); what is not
        there yet is fetched. Default: the column that ``dataset.json`` names, and then only paths
        count.
    limits
        Bounds of fetching.
    encoder, weights, download
        See `recbole_mm.encode.image.encoders.resolve_picture_encoder`.
    labels
        Class names kept per picture (GoogLeNet only), for text fields ``@<modality>``.
    batch_size
        Pictures per forward pass.
    chunk_size
        Pictures between two saves.
    item_field
        Column with the item tokens.
    recipe
        Name of the recipe that asks for this, for the manifest.

    Returns
    -------
    pathlib.Path
        ``<out>/<dataset>.<modality>.itememb``; the manifest lies beside it, and with GoogLeNet
        ``<dataset>.<modality>.labels.json``.

    Raises
    ------
    NoPicturesError
        If neither ``images`` nor ``image_col`` is given, and ``dataset.json`` names no column.
    EncodeError
        If the encoder is missing, no picture can be used, another process writes the same file,
        the disk is full, or the file there is not this package's work.
    DataError
        If the ``.item`` file is missing or broken.
    """
    store = Store(folder if out is None else out, dataset, modality)
    column = picture_column(folder, dataset, image_col)
    if not (images or column):
        raise NoPicturesError(_no_pictures(dataset, modality, store.path))
    source = resolve_picture_encoder(encoder, weights, download)
    places = Places(Path(folder), dataset, images, store.path.parent)
    tokens = _items(folder, dataset, item_field)
    cells = picture_cells(folder, dataset, item_field, column) if column else {}
    # Of several processes, the first fetches what is not there yet.
    first = processes.group().rank == 0
    found = find(tokens, cells, places, bool(image_col), limits) if first else None
    contents, absent = _contents(tokens, *collectives.of_the_first(found))
    kind = encoder_class(source)
    job = Job(
        contents, encoder, source.revision, {}, lambda: kind(source, batch_size),
        order=lambda pair: pair[0], chunk_size=chunk_size, noun="picture",
    )  # fmt: skip
    with store.writing():
        previous = store.previous()
        outcome = encode_contents(store, job, previous)
        manifest = _manifest(store, contents, absent, outcome, recipe)
        ready = [token for token in contents if token not in manifest.missing]
        if not ready:
            raise EncodeError(
                f"{places.named}: no picture can be used ({_reasons(manifest.missing)})."
            )
        publish(store, ready, outcome, manifest, previous)
        if kind is GoogLeNet and first:
            _name_classes(store, source, labels)
    _log(store, manifest)
    return store.path


def _no_pictures(dataset: str, modality: str, path: Path) -> str:
    """Say which options give pictures or vectors."""
    return (
        f"no pictures given for modality {modality!r}. Name a folder of pictures named by item "
        "(--images=FOLDER) or a column with paths or addresses (--image_col=COLUMN); or make the "
        "vectors "
        f"with a tool of your choice and import them: `recbole-mm encode --dataset={dataset} "
        f"--modality={modality} --from_npy=vectors.npy --ids=ids.txt` (row r of the table belongs "
        f"to line r+1 of the ids), which writes {path}. To encode texts under this name, give "
        "--fields."
    )


def _items(folder: str | Path, dataset: str, item_field: str) -> list[str]:
    """Return the item tokens of the ``.item`` file, each once, in file order."""
    path = item_file(folder, dataset)
    column = read_atomic(path, [item_field])[item_field]
    tokens = [token for token in dict.fromkeys(column) if token]
    if not tokens:
        raise EncodeError(f"{path}: column {item_field} is empty. Expected an item id in each row.")
    return tokens


def _contents(
    tokens: list[str], files: Mapping[str, Path], failed: Mapping[str, str]
) -> tuple[dict[str, Content], dict[str, str]]:
    """Return what each item is encoded from, and why others have nothing."""
    contents: dict[str, Content] = {}
    absent: dict[str, str] = {}
    for token in tqdm(tokens, "reading pictures", disable=None, file=sys.stderr):
        if token not in files:
            absent[token] = failed.get(token, "no picture")
            continue
        try:
            key = file_hash(files[token])
            contents[token] = Content(key, ((key, str(files[token])),))
        except PictureError as error:
            absent[token] = str(error)
    if not contents:
        raise EncodeError(
            f"no picture of any of the {len(tokens)} items ({_reasons(absent)}). Expected files "
            f"named by item, such as {tokens[0]}.jpg, in the folder --images=FOLDER, or a column "
            "with their paths, --image_col=COLUMN."
        )
    return contents, absent


def _manifest(
    store: Store,
    contents: dict[str, Content],
    absent: dict[str, str],
    outcome: Outcome,
    recipe: str,
) -> Manifest:
    """Describe the file to be written."""
    pictures = {token: content.key for token, content in contents.items()}
    notes = {token: outcome.notes[key] for token, key in pictures.items() if key in outcome.notes}
    missing = absent | notes
    vectors = outcome.vectors.values()
    return Manifest(
        dataset=store.dataset,
        modality=store.modality,
        kind="encoded",
        itememb_sha256="",
        dim=len(next(iter(vectors))) if vectors else 0,
        counts={
            "items": len(pictures) - len(notes),
            "missing": len(missing),
            "unusable": len(missing) - sum(why == "no picture" for why in missing.values()),
            "distinct_pictures": len(set(pictures.values())),
            "pictures_encoded": outcome.new,
        },
        encoder=outcome.encoder,
        pictures=pictures,
        missing=missing,
        versions=package_versions(PICTURE_PACKAGES),
        recipe=recipe,
    )


def _name_classes(store: Store, source: EncoderSource, count: int) -> None:
    """Write the pictures' class names, unless those of these very vectors are there."""
    if labels_fit(store.path, sha256_file(store.path), count):
        return
    head = classifier(source)
    if head is None:
        logger.warning("%s: not ImageNet's classes, so the pictures get no names.", source.path)
        return
    write_labels(store.path, store.modality, head, count)


def _reasons(missing: Mapping[str, str]) -> str:
    """Return the reasons with their counts, the most frequent first."""
    counts = Counter(missing.values()).most_common(4)
    return "; ".join(f"{why}: {count}" for why, count in counts)


def _log(store: Store, manifest: Manifest) -> None:
    """Say what was made."""
    count = manifest.counts
    logger.info(
        "%s: %d items with a vector of %d numbers, %d picture(s) encoded now, "
        "%d item(s) without%s.",
        store.path, count["items"], manifest.dim, count["pictures_encoded"], count["missing"],
        f" ({_reasons(manifest.missing)})" if manifest.missing else "",
    )  # fmt: skip
