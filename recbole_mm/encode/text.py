"""Encode item texts to an ``.itememb`` file."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recbole_mm.data.sidecar import ItemEmb
from recbole_mm.encode.encoder import EncoderSource, TextEncoder, resolve_encoder
from recbole_mm.encode.manifest import Manifest, package_versions, text_hash, texts_hash
from recbole_mm.encode.store import Store
from recbole_mm.encode.texts import ItemTexts, default_fields, item_file, item_texts
from recbole_mm.errors import EncodeError

logger = logging.getLogger(__name__)

MODALITY = "text"
BATCH_SIZE = 64
CHUNK_SIZE = 256


@dataclass(frozen=True)
class _Known:
    """Vectors by text hash.

    Attributes
    ----------
    rows
        ``{text hash: row}``.
    vectors
        ``(n, d)`` float32.
    truncated
        Hashes of the texts that are longer than the encoder reads.
    """

    rows: dict[str, int]
    vectors: np.ndarray | None
    truncated: set[str]


def encode_text(
    folder: str | Path,
    dataset: str,
    out: str | Path | None = None,
    *,
    fields: Sequence[str] | None = None,
    encoder: str = "minilm",
    batch_size: int = BATCH_SIZE,
    chunk_size: int = CHUNK_SIZE,
    item_field: str = "item_id",
) -> Path:
    """Encode the text of every item of ``<folder>/<dataset>.item``.

    Equal texts are encoded once. Texts are sorted by length and cut into chunks; a finished chunk
    is kept on disk, so that a killed run goes on where it stopped and ends with the same bytes.
    Vectors of an earlier file by the same encoder are reused where the text is the same.

    Parameters
    ----------
    folder
        The data set's folder.
    dataset
        Its name.
    out
        Folder of the result. Default: ``folder``.
    fields
        Columns of ``.item``. Default: the data set's ``text_fields``, else the usual ones.
    encoder
        ``minilm``, a folder, or the name of a cached sentence-transformers model.
    batch_size
        Texts per forward pass.
    chunk_size
        Texts between two saves.
    item_field
        Column with the item tokens.

    Returns
    -------
    pathlib.Path
        ``<out>/<dataset>.text.itememb``; the manifest lies beside it. Items without text are left
        out of it.

    Raises
    ------
    EncodeError
        If the encoder is missing, no item has text, another process writes the same file, the disk
        is full, or the file there is not this package's work.
    DataError
        If the ``.item`` file is missing or broken.
    """
    store = Store(folder if out is None else out, dataset, MODALITY)
    source = resolve_encoder(encoder)
    chosen = list(fields) if fields else default_fields(folder, dataset)
    items = item_texts(folder, dataset, chosen, item_field)
    if not items.texts:
        raise EncodeError(
            f"{item_file(folder, dataset)}: all of {', '.join(chosen)} are empty for every item. "
            "Choose other columns with --fields."
        )
    with store.writing():
        previous = store.previous()
        known = _reusable(previous, source)
        todo = _todo(items, known)
        encoded, about = known, {**(previous[0].encoder if previous else {}), "name": encoder}
        if todo:
            model = TextEncoder(source, batch_size)
            about = model.describe()
            encoded = _merge(known, todo, *_encode_chunks(store, model, todo, chunk_size))
        manifest = _manifest(store, items, encoded, about, new=len(todo))
        manifest = replace(manifest, fields=chosen, fields_asked=bool(fields))
        _publish(store, items, encoded, manifest, previous)
    return store.path


def _reusable(previous: tuple[Manifest, ItemEmb] | None, source: EncoderSource) -> _Known:
    """Return the vectors of an earlier file that this encoder made."""
    if previous is None or previous[0].encoder.get("revision") != source.revision:
        return _Known({}, None, set())
    manifest, emb = previous
    texts = manifest.texts
    rows = {texts[token]: row for row, token in enumerate(emb.ids) if token in texts}
    return _Known(
        rows, emb.vectors, {texts[token] for token in manifest.truncated if token in texts}
    )


def _todo(items: ItemTexts, known: _Known) -> list[str]:
    """Return the texts to encode, each once, sorted by length: little padding, a fixed order."""
    new = {text for text in items.texts.values() if text_hash(text) not in known.rows}
    return sorted(new, key=lambda text: (len(text), text))


def _encode_chunks(
    store: Store, model: TextEncoder, todo: list[str], chunk_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Encode chunk by chunk, or take chunks over from a killed run; see `TextEncoder.encode`."""
    key = _work_key(model, todo, chunk_size)
    results = []
    with tqdm(
        total=len(todo), desc="encoding text", unit="text", disable=None, file=sys.stderr
    ) as bar:
        for number, start in enumerate(range(0, len(todo), chunk_size)):
            part = store.load_part(number, key)
            if part is None:
                part = model.encode(todo[start : start + chunk_size])
                store.save_part(number, key, *part)
            results.append(part)
            bar.update(len(part[0]))
    return (
        np.concatenate([vectors for vectors, _ in results]),
        np.concatenate([truncated for _, truncated in results]),
    )


def _work_key(model: TextEncoder, todo: list[str], chunk_size: int) -> str:
    """Return a hash of all that the bits of a chunk depend on."""
    settings = [model.describe(), model.batch_size, chunk_size, package_versions()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8"))
    for text in todo:
        digest.update(text_hash(text).encode("ascii"))
    return digest.hexdigest()


def _merge(known: _Known, todo: list[str], vectors: np.ndarray, truncated: np.ndarray) -> _Known:
    """Add newly encoded texts to the known ones."""
    offset = len(known.vectors) if known.vectors is not None else 0
    hashes = [text_hash(text) for text in todo]
    rows = {**known.rows, **{key: offset + row for row, key in enumerate(hashes)}}
    table = vectors if known.vectors is None else np.concatenate([known.vectors, vectors])
    new = {key for key, flag in zip(hashes, truncated, strict=True) if flag}
    return _Known(rows, table, known.truncated | new)


def _manifest(
    store: Store, items: ItemTexts, encoded: _Known, about: dict[str, object], new: int
) -> Manifest:
    """Describe the file to be written, of which ``new`` texts were encoded now."""
    texts = {token: text_hash(text) for token, text in items.texts.items()}
    truncated = [token for token, key in texts.items() if key in encoded.truncated]
    return Manifest(
        dataset=store.dataset,
        modality=store.modality,
        kind="encoded",
        itememb_sha256="",
        dim=0 if encoded.vectors is None else int(encoded.vectors.shape[1]),
        counts={
            "items": len(texts),
            "missing": items.empty,
            "truncated": len(truncated),
            "distinct_texts": len(set(texts.values())),
            "repeated_rows": items.repeated,
            "texts_encoded": new,
        },
        encoder=about,
        texts_sha256=texts_hash(texts),
        texts=texts,
        truncated=truncated,
        versions=package_versions(),
    )


def _publish(
    store: Store,
    items: ItemTexts,
    encoded: _Known,
    manifest: Manifest,
    previous: tuple[Manifest, ItemEmb] | None,
) -> None:
    """Write vectors and manifest, or the manifest alone where the vectors stay as they are."""
    tokens = list(items.texts)
    count = manifest.counts
    same = previous and manifest.texts == previous[0].texts and tokens == previous[1].ids
    if previous and same and not count["texts_encoded"]:
        store.publish_manifest(replace(manifest, itememb_sha256=previous[0].itememb_sha256))
    elif encoded.vectors is not None:
        rows = [encoded.rows[manifest.texts[token]] for token in tokens]
        store.publish(tokens, encoded.vectors[rows], manifest)
    logger.info(
        "%s: %d items with a vector of %d numbers, %d text(s) encoded now, %d item(s) without "
        "text, %d text(s) cut to the encoder's length.",
        store.path, count["items"], manifest.dim, count["texts_encoded"], count["missing"],
        count["truncated"],
    )  # fmt: skip
