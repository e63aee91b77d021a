"""The binary copy beside an ``.itememb`` file, loaded in its place.

A small copy and its text are hashed whole at each read. A large copy is mapped into memory: its
header, its ids and samples of its numbers are checked, and of its text size, time of change and
samples. What lies between the samples `check_sidecar` compares, for ``recbole-mm audit``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_mm.data.checked import (
    load_checked,
    map_checked,
    sampled_digest,
    sampled_file,
    save_checked,
)
from recbole_mm.errors import FeatureError
from recbole_mm.files import sha256_file

logger = logging.getLogger(__name__)

# A larger copy is mapped and sampled; a larger source is hashed whole only if its size or time of
# change differs from the noted ones.
ALWAYS_HASH_BELOW = 16 << 20
_FORMAT = "recbole_mm.itememb/2"

Arrays = dict[str, np.ndarray]
Notes = dict[str, str]


@dataclass(frozen=True, eq=False)
class ItemEmb:
    """The content of one ``.itememb`` file.

    Attributes
    ----------
    ids
        Item tokens, in file order, each once.
    vectors
        ``(n, d)`` float32, finite; row ``r`` belongs to ``ids[r]``. It may lie in the file still,
        mapped into memory; writing to it changes no file.
    sha256
        SHA-256 of the text file's bytes.
    """

    ids: list[str]
    vectors: np.ndarray
    sha256: str


def sidecar_path(path: str | Path) -> Path:
    """Return the name of the binary copy of an ``.itememb`` file."""
    return Path(f"{path}.safetensors")


def load_sidecar(path: Path, modality: str) -> ItemEmb | None:
    """Return the content of the binary copy, or None if there is none that can be trusted."""
    side = sidecar_path(path)
    if not side.is_file():
        return None
    try:
        arrays, metadata = _load(side)
        # The checksum or the samples fit, so this is what save_sidecar wrote.
        vectors, ids = arrays["vectors"], arrays["ids"].tobytes().decode("utf-8").split("\n")
        if len(ids) != len(vectors):
            raise ValueError("as many ids as vectors were expected")
    except (ValueError, KeyError, OSError) as error:
        logger.warning("%s cannot be used (%s); it is made again from the text.", side, error)
        return None
    if metadata["modality"] != modality:
        return None
    emb = ItemEmb(ids, vectors, metadata["sha256"])
    return emb if _is_source(path, modality, emb, metadata) else None


def _load(side: Path) -> tuple[Arrays, Notes]:
    """Return arrays and metadata of a copy, after a look at the whole of it or at samples."""
    small = side.stat().st_size < ALWAYS_HASH_BELOW
    arrays, metadata = load_checked(side) if small else map_checked(side)
    if metadata.get("format") != _FORMAT:
        raise ValueError("another format")
    if not small and metadata["sample"] != _sample(arrays, metadata):
        raise ValueError("its samples do not fit its content")
    return arrays, metadata


def _sample(arrays: Mapping[str, np.ndarray], metadata: Notes) -> str:
    """Return the digest of samples of the arrays, and of the rest of the metadata."""
    rest = {key: value for key, value in metadata.items() if key != "sample"}
    return sampled_digest(arrays, json.dumps(rest, sort_keys=True))


def _is_source(path: Path, modality: str, emb: ItemEmb, metadata: Notes) -> bool:
    """Tell whether the text file still is the one that the binary copy was made from."""
    with open(path, "rb") as stream:
        stat = os.fstat(stream.fileno())
        same_stat = metadata["stat"] == _stat_note(stat)
        if same_stat and stat.st_size >= ALWAYS_HASH_BELOW:
            if metadata["text_sample"] == sampled_file(stream):
                return True
            same_stat = False
    if sha256_file(path) != emb.sha256:
        logger.info("%s has changed; it is read anew.", path)
        return False
    if not same_stat:
        save_sidecar(path, modality, emb, stat)
    return True


def save_sidecar(path: Path, modality: str, emb: ItemEmb, stat: os.stat_result) -> None:
    """Write the binary copy; without it the next read is only slower."""
    packed = np.frombuffer("\n".join(emb.ids).encode("utf-8"), dtype=np.uint8)
    arrays = {"vectors": emb.vectors, "ids": packed}
    try:
        with open(path, "rb") as stream:
            text_sample = sampled_file(stream)
        metadata = {
            "format": _FORMAT,
            "modality": modality,
            "sha256": emb.sha256,
            "stat": _stat_note(stat),
            "text_sample": text_sample,
        }
        metadata["sample"] = _sample(arrays, metadata)
        save_checked(sidecar_path(path), arrays, metadata)
    except OSError as error:
        logger.info("No binary copy beside %s (%s); the text is parsed each time.", path, error)


def check_sidecar(path: Path) -> bool:
    """Compare every byte of a feature file and of its binary copy with what was noted of them.

    Returns
    -------
    bool
        False where there is no copy, and so nothing that could be wrong.

    Raises
    ------
    FeatureError
        The copy is damaged, or is not that of this text; a run may have read it all the same.
    """
    side = sidecar_path(path)
    if not side.is_file():
        return False
    try:
        _, metadata = load_checked(side)
        if metadata.get("format") != _FORMAT:
            return False
        if metadata["sha256"] != sha256_file(path):
            raise ValueError("its vectors are those of another text")
    except (ValueError, KeyError) as error:
        raise FeatureError(
            f"{side} is no copy of {path.name}: {error}. Remove it; the next run makes it again "
            "from the text. Results that were computed with it may be wrong."
        ) from error
    return True


def _stat_note(stat: os.stat_result) -> str:
    """Return size and time of change as text."""
    return f"{stat.st_size} {stat.st_mtime_ns}"
