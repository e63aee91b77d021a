"""Encode item texts to an ``.itememb`` file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_mm.encode.engine import CUT, Content, Job, Outcome, encode_contents, publish
from recbole_mm.encode.manifest import (
    TEXT_PACKAGES,
    TFIDF_PACKAGES,
    Manifest,
    package_versions,
    text_hash,
    texts_hash,
)
from recbole_mm.encode.source import EncoderSource, resolve_encoder
from recbole_mm.encode.store import Store
from recbole_mm.encode.text.encoder import TextEncoder
from recbole_mm.encode.text.fields import ItemTexts, default_fields, item_file, item_texts
from recbole_mm.encode.text.tfidf import TFIDF, TfidfEncoder, corpus_hash, tfidf_revision
from recbole_mm.errors import EncodeError, NothingEncodedError

logger = logging.getLogger(__name__)

MODALITY = "text"
BATCH_SIZE = 64
CHUNK_SIZE = 256
_PSEUDO = "pseudo_"
FIELD_POOLING = ("join", "mean")


def encode_text(
    folder: str | Path,
    dataset: str,
    out: str | Path | None = None,
    *,
    modality: str = MODALITY,
    fields: Sequence[str] | None = None,
    field_pooling: str = "join",
    encoder: str = "minilm",
    pooling: str | None = None,
    max_length: int | None = None,
    precision: str | None = None,
    batch_size: int = BATCH_SIZE,
    chunk_size: int = CHUNK_SIZE,
    item_field: str = "item_id",
    download: bool = False,
    recipe: str = "",
    fitted: TfidfEncoder | None = None,
) -> Path:
    """Encode the text of every item of ``<folder>/<dataset>.item``.

    Equal texts are encoded once. Texts are sorted by length and cut into chunks; a finished chunk
    is kept on disk, so that a killed run goes on where it stopped and ends with the same bytes.
    Vectors of an earlier file by the same encoder are reused where the text is the same; those of
    ``tfidf``, which is fitted on all texts, only if all texts are the same.

    Parameters
    ----------
    folder
        The data set's folder.
    dataset
        Its name.
    out
        Folder of the result. Default: ``folder``.
    modality
        Name of the feature file's modality.
    fields
        Columns of ``.item``, and ``@image`` for the class names of the pictures. Default: the data
        set's ``text_fields``, else the usual ones.
    field_pooling
        ``join`` the fields to one text, or take the ``mean`` of the vectors of those there are.
    encoder
        ``minilm``, a folder, the name of a cached model (sentence-transformers, transformers), or
        ``tfidf``, which needs no model.
    pooling
        ``mean``, ``cls`` or ``pooler``; None: as the model says, else ``mean``.
    max_length
        Tokens read of a text, at most; None: as many as the model can.
    precision
        ``bfloat16`` or ``float32``, which None is, too. None of these three goes with ``tfidf``.
    batch_size
        Texts per forward pass.
    chunk_size
        Texts between two saves.
    item_field
        Column with the item tokens.
    download
        Fetch a model that is not on this machine.
    recipe
        Name of the recipe that asks for this, for the manifest.
    fitted
        With ``tfidf``: fitted before, on other texts.

    Returns
    -------
    pathlib.Path
        ``<out>/<dataset>.<modality>.itememb``; the manifest lies beside it. Items without text, or
        with one that the encoder makes nothing of, are left out of it.

    Raises
    ------
    EncodeError
        If the encoder is missing or lacks an option, no item has text, another process writes the
        same file, the disk is full, or the file there is not this package's work.
    DataError
        If the ``.item`` file is missing or broken.
    """
    if field_pooling not in FIELD_POOLING:
        raise EncodeError(f"field_pooling is {field_pooling!r}, expected join or mean.")
    store = Store(folder if out is None else out, dataset, modality)
    asked = {"pooling": pooling, "max_length": max_length, "precision": precision}
    source = _source(encoder, asked, download, modality)
    chosen = list(fields) if fields else default_fields(folder, dataset)
    items = item_texts(folder, dataset, chosen, item_field, (store.path.parent, folder))
    if not items.texts:
        raise EncodeError(
            f"{item_file(folder, dataset)}: all of {', '.join(chosen)} are empty for every item. "
            "Choose other columns with --fields."
        )
    contents = text_contents(items, field_pooling)
    if source is None:
        job = _tfidf_job(contents, item_file(folder, dataset), batch_size, chunk_size, fitted)
    else:
        job = _model_job(contents, source, batch_size, chunk_size)
    with store.writing():
        previous = store.previous()
        outcome = encode_contents(store, job, previous)
        if not outcome.vectors:
            raise _nothing_encoded(item_file(folder, dataset), len(contents), outcome)
        manifest = replace(
            _manifest(store, items, contents, outcome), recipe=recipe, fields=chosen,
            fields_asked=bool(fields), field_pooling=field_pooling,
        )  # fmt: skip
        ready = [token for token in contents if token not in manifest.missing]
        publish(store, ready, outcome, manifest, previous)
    _log(store, manifest)
    return store.path


def _nothing_encoded(file: Path, count: int, outcome: Outcome) -> NothingEncodedError:
    """Return the error that says why no text gave a vector."""
    return NothingEncodedError(
        f"{file}: none of {count} text(s) gives a vector ({next(iter(outcome.notes.values()))}). "
        "Choose other columns with --fields, or another --text_encoder."
    )


def _source(
    encoder: str, asked: Mapping[str, Any], download: bool, modality: str
) -> EncoderSource | None:
    """Return the encoder's model; None for ``tfidf``, which has none."""
    if encoder != TFIDF:
        return resolve_encoder(encoder, download=download, **asked)
    for name, value in asked.items():
        if value is not None:
            raise EncodeError(
                f"--{name} does not go with text encoder {TFIDF!r}, which counts all words of a "
                "text. Leave it out, or take another --text_encoder."
            )
    if modality.startswith(_PSEUDO):
        raise EncodeError(
            f"text encoder {TFIDF!r} gives every file a space of its own, and {modality} must lie "
            "in that of the real vectors. Take another --text_encoder, or name the one modality "
            "wanted of a recipe with --modality."
        )
    return None


def _model_job(
    contents: Mapping[str, Content], source: EncoderSource, batch_size: int, chunk_size: int
) -> Job:
    """Return the job of a model that encodes each text by itself."""
    return Job(
        contents, source.name, source.revision, source.asked,
        lambda: TextEncoder(source, batch_size), _order, chunk_size, MODALITY,
    )  # fmt: skip


def _tfidf_job(
    contents: Mapping[str, Content],
    place: Path,
    batch_size: int,
    chunk_size: int,
    fitted: TfidfEncoder | None,
) -> Job:
    """Return the job of an encoder that is fitted on all texts first, if it was not before."""
    texts = [text for content in contents.values() for _, text in content.units]
    load = (lambda: fitted) if fitted else (lambda: TfidfEncoder(texts, place, batch_size))
    return Job(
        contents, TFIDF, tfidf_revision(), {}, load, _order, chunk_size, MODALITY,
        fitted_on=corpus_hash(texts),
    )  # fmt: skip


def _order(unit: tuple[str, str]) -> tuple[int, str]:
    """Sort texts by length, so that those of a batch are padded little."""
    return len(unit[1]), unit[1]


def text_contents(items: ItemTexts, field_pooling: str) -> dict[str, Content]:
    """Return what each item is encoded from: its joined text, or its fields one by one."""
    contents = {}
    for token, text in items.texts.items():
        units = [text] if field_pooling == "join" else items.parts[token]
        # A tab never stands in a clean text, so that it divides fields without doubt.
        key = text_hash("\t".join(units))
        contents[token] = Content(key, tuple((text_hash(unit), unit) for unit in units))
    return contents


def _manifest(
    store: Store, items: ItemTexts, contents: dict[str, Content], outcome: Outcome
) -> Manifest:
    """Describe the file to be written."""
    texts = {token: content.key for token, content in contents.items()}
    notes = {token: outcome.notes[key] for token, key in texts.items() if key in outcome.notes}
    truncated = [token for token, note in notes.items() if note == CUT]
    missing = {token: note for token, note in notes.items() if note != CUT}
    packages = TFIDF_PACKAGES if outcome.encoder.get("fitted_on") else TEXT_PACKAGES
    return Manifest(
        dataset=store.dataset,
        modality=store.modality,
        kind="encoded",
        itememb_sha256="",
        dim=len(next(iter(outcome.vectors.values()))),
        counts={
            "items": len(texts) - len(missing),
            "missing": items.empty + len(missing),
            "truncated": len(truncated),
            "distinct_texts": len(set(texts.values())),
            "repeated_rows": items.repeated,
            "texts_encoded": outcome.new,
        },
        encoder=outcome.encoder,
        texts_sha256=texts_hash(texts),
        texts=texts,
        truncated=truncated,
        missing=missing,
        versions=package_versions(packages),
    )


def _log(store: Store, manifest: Manifest) -> None:
    """Say what was made."""
    count = manifest.counts
    logger.info(
        "%s: %d items with a vector of %d numbers, %d text(s) encoded now, %d item(s) without, "
        "%d text(s) cut to the encoder's length.",
        store.path, count["items"], manifest.dim, count["texts_encoded"], count["missing"],
        count["truncated"],
    )  # fmt: skip
