"""Arrays in a safetensors file that knows its own checksum.

Safetensors never runs code, but a flipped byte in the numbers goes unnoticed. The SHA-256 stored
here covers metadata and arrays, so that a damaged file is recognised and can be made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from recbole_mm.files import atomic_write

_ENTRY = "recbole_mm"


def save_checked(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write arrays, metadata and their checksum to ``path``, whole or not at all.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    solid = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    stamped = {**metadata, "checksum": array_digest(solid, _header(metadata))}
    # One entry, because safetensors writes several in random order and bytes should repeat.
    note = {_ENTRY: json.dumps(stamped, sort_keys=True)}
    with atomic_write(path, "wb") as stream:
        stream.write(save(solid, metadata=note))


def load_checked(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a file written by `save_checked`.

    Raises
    ------
    ValueError
        If the file is damaged in any way, or is no such file.
    OSError
        If the file cannot be read.
    """
    try:
        with safe_open(str(path), framework="np") as stream:
            metadata = json.loads((stream.metadata() or {})[_ENTRY])
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}
    except (SafetensorError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"not a readable safetensors file ({error})") from error
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is no table")
    if metadata.pop("checksum", "") != array_digest(arrays, _header(metadata)):
        raise ValueError("its checksum does not fit its content")
    return arrays, metadata


def _header(metadata: Mapping[str, str]) -> str:
    return json.dumps(dict(metadata), sort_keys=True)


def array_digest(arrays: Mapping[str, np.ndarray], header: str) -> str:
    """Return the SHA-256 over a header and over names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode())
        digest.update(array.data)
    return digest.hexdigest()
