"""The binary copy beside an ``.itememb`` file, loaded in its place."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_mm.data.checked import load_checked, save_checked
from recbole_mm.files import sha256_file

logger = logging.getLogger(__name__)

# A larger source is hashed again only if its size or time of change differs from the noted ones.
ALWAYS_HASH_BELOW = 16 << 20
_FORMAT = "recbole_mm.itememb/1"


@dataclass(frozen=True, eq=False)
class ItemEmb:
    """The content of one ``.itememb`` file.

    Attributes
    ----------
    ids
        Item tokens, in file order, each once.
    vectors
        ``(n, d)`` float32, finite; row ``r`` belongs to ``ids[r]``.
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
        arrays, metadata = load_checked(side)
        if metadata.get("format") != _FORMAT:
            raise ValueError("another format")
        # The checksum fits, so this is what save_sidecar wrote.
        vectors, ids = arrays["vectors"], arrays["ids"].tobytes().decode("utf-8").split("\n")
    except (ValueError, KeyError, OSError) as error:
        logger.warning("%s cannot be used (%s); it is made again from the text.", side, error)
        return None
    if metadata["modality"] != modality:
        return None
    emb = ItemEmb(ids, vectors, metadata["sha256"])
    return emb if _is_source(path, modality, emb, metadata) else None


def _is_source(path: Path, modality: str, emb: ItemEmb, metadata: dict[str, str]) -> bool:
    """Tell whether the text file still is the one that the binary copy was made from."""
    stat = os.stat(path)
    same_stat = metadata["stat"] == _stat_note(stat)
    if same_stat and stat.st_size >= ALWAYS_HASH_BELOW:
        return True
    if sha256_file(path) != emb.sha256:
        logger.info("%s has changed; it is read anew.", path)
        return False
    if not same_stat:
        save_sidecar(path, modality, emb, stat)
    return True


def save_sidecar(path: Path, modality: str, emb: ItemEmb, stat: os.stat_result) -> None:
    """Write the binary copy; without it the next read is only slower."""
    packed = np.frombuffer("\n".join(emb.ids).encode("utf-8"), dtype=np.uint8)
    metadata = {
        "format": _FORMAT,
        "modality": modality,
        "sha256": emb.sha256,
        "stat": _stat_note(stat),
    }
    try:
        save_checked(sidecar_path(path), {"vectors": emb.vectors, "ids": packed}, metadata)
    except OSError as error:
        logger.info("No binary copy beside %s (%s); the text is parsed each time.", path, error)


def _stat_note(stat: os.stat_result) -> str:
    """Return size and time of change as text."""
    return f"{stat.st_size} {stat.st_mtime_ns}"
