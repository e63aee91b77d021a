"""Arrays derived from features and sessions, kept on disk so that they are computed once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from recbole_mm.data.checked import array_digest, load_checked, save_checked

logger = logging.getLogger(__name__)

_FORMAT = "recbole_mm.derived/1"
Arrays = dict[str, np.ndarray]


def fingerprint(arrays: Mapping[str, np.ndarray], settings: Mapping[str, object]) -> str:
    """Return the SHA-256 of arrays (names, types, shapes, bytes) and of plain settings."""
    return array_digest(arrays, json.dumps(dict(settings), sort_keys=True))


def derived(
    folder: str | Path | None,
    name: str,
    key: str,
    compute: Callable[[], Arrays],
    fits: Callable[[Arrays], bool] = lambda arrays: True,
) -> Arrays:
    """Return arrays from ``<folder>/<name>.<key>.safetensors``, or compute and keep them.

    Parameters
    ----------
    folder
        Folder of the feature files; None keeps nothing. One that cannot be written is no error.
    name
        What they are, for the file name.
    key
        Fingerprint of all they are made of.
    compute
        Makes them.
    fits
        Tells whether what was kept serves; if not it is computed and kept anew.
    """
    if folder is None:
        return compute()
    path = Path(folder) / f"{name}.{key[:16]}.safetensors"
    kept = _load(path, key)
    if kept is not None and fits(kept):
        logger.info("%s read from %s", name, path)
        return kept
    arrays = compute()
    try:
        save_checked(path, arrays, {"format": _FORMAT, "key": key})
    except OSError as error:
        logger.info("%s is not kept for the next run (%s)", name, error)
    return arrays


def _load(path: Path, key: str) -> Arrays | None:
    """Return what was kept under this key, or None if there is nothing that can be trusted."""
    if not path.is_file():
        return None
    try:
        arrays, metadata = load_checked(path)
    except (ValueError, OSError) as error:
        logger.warning("%s cannot be used (%s); it is made again", path, error)
        return None
    return arrays if metadata == {"format": _FORMAT, "key": key} else None
