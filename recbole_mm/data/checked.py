"""Arrays in a safetensors file that knows its own checksum.

Safetensors never runs code, but a flipped byte in the numbers goes unnoticed. The SHA-256 stored
here covers metadata and arrays, so that a damaged file is recognised and can be made again.
Hashing a large file takes longer than all else, so it can also be mapped into memory instead, with
its header checked and its numbers left to a digest of samples.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from recbole_mm.files import atomic_write

_ENTRY = "recbole_mm"
# Samples of a large content: this many blocks, evenly spread, the first and the last among them.
_BLOCKS, _BLOCK = 256, 4096


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


def map_checked(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return arrays mapped into memory, and the metadata, of a file written by `save_checked`.

    Nothing but the header is read; whether the numbers are right, the caller must find out, for
    example by `sampled_digest`. Writing to an array changes this process's copy alone.

    Raises
    ------
    ValueError
        If the header is damaged, or the file is longer or shorter than it says.
    OSError
        If the file cannot be read.
    """
    try:
        # Refuses a header that does not fit the file's size, overlapping arrays, and the like.
        with safe_open(str(path), framework="np"), open(path, "rb") as stream:
            start = 8 + int.from_bytes(stream.read(8), "little")
            table = json.loads(stream.read(start - 8))
        metadata = json.loads(table.pop("__metadata__")[_ENTRY])
        arrays = {name: _mapped(path, start, entry) for name, entry in table.items()}
    except (SafetensorError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"not a readable safetensors file ({error})") from error
    if not isinstance(metadata, dict):
        raise ValueError("its metadata is no table")
    metadata.pop("checksum", None)
    return arrays, metadata


# Types of arrays that can be mapped, as safetensors and as NumPy call them.
_MAPPED = {"F32": "<f4", "U8": "|u1"}


def _mapped(path: str | Path, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    """Map one array; ``entry`` is what the file's header says of it."""
    shape, first = tuple(entry["shape"]), entry["data_offsets"][0]
    place = np.memmap(path, _MAPPED[entry["dtype"]], "c", start + first, shape)
    return np.asarray(place)


def sampled_digest(arrays: Mapping[str, np.ndarray], header: str) -> str:
    """Return the SHA-256 over a header, and over names, types, shapes and samples of arrays.

    An array of up to a mebibyte counts whole; of a larger one, 256 blocks evenly spread. A change
    of single bytes between them goes unnoticed, one of length or of most of the content does not.
    """
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode())
        content = array.reshape(-1).view(np.uint8)
        for place in _places(len(content)):
            digest.update(content[place : place + _BLOCK].data)
    return digest.hexdigest()


def sampled_file(stream: BinaryIO) -> str:
    """Return the SHA-256 over samples of an open file, spread as in `sampled_digest`."""
    digest = hashlib.sha256()
    for place in _places(os.fstat(stream.fileno()).st_size):
        stream.seek(place)
        digest.update(stream.read(_BLOCK))
    return digest.hexdigest()


def _places(size: int) -> list[int]:
    """Return where the blocks of a content of so many bytes begin."""
    if size <= _BLOCKS * _BLOCK:
        return list(range(0, size, _BLOCK))
    return [number * (size - _BLOCK) // (_BLOCKS - 1) for number in range(_BLOCKS)]


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
