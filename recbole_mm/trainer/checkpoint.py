"""Checkpoints that hold data only: safetensors for arrays, JSON for everything plain.

A checkpoint is one safetensors file. Every array of a nested state becomes a named tensor; the
rest of the nesting (dictionaries, lists, numbers, text) is JSON in the file's metadata, beside a
SHA-256 over names, types, shapes and bytes. Nothing in such a file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from scipy import sparse
from torch import Tensor

from recbole_mm.data.checked import array_digest
from recbole_mm.errors import CheckpointError
from recbole_mm.files import Plain, atomic_write

FORMAT = "recbole_mm.checkpoint"
VERSION = "2"
# The versions of this package that wrote an older layout, by its number.
_WRITERS = {"1": "recbole_mm 0.2.0 or older"}
# A dictionary with this key is not a user's dictionary but the description of something else.
TAG = "$"
# A nested state. What its values may be is checked where it is stored, see :func:`pack`.
State = dict[str, Any]
_SHOWN = 5
_BROKEN = (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError)


class _Packer:
    """Turns a nested state into a JSON-able tree and the tensors it refers to by name."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def pack(self, value: object, path: str) -> Plain:
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, np.integer, np.bool_)):
            return bool(value) if isinstance(value, np.bool_) else int(value)
        if isinstance(value, (float, np.floating)):
            number = float(value)
            # JSON has no inf and nan; repr() of every other float is exact.
            return number if math.isfinite(number) else {TAG: "float", "value": repr(number)}
        if isinstance(value, Mapping):
            return self._mapping(value, path)
        if isinstance(value, (list, tuple)):
            return self._sequence(value, path)
        return self._array(value, path)

    def _mapping(self, value: Mapping[object, object], path: str) -> Plain:
        names = [key for key in value if isinstance(key, str)]
        if len(names) == len(value) and TAG not in value:
            return {name: self.pack(value[name], f"{path}/{name}") for name in names}
        pairs: list[Plain] = [
            [self.pack(key, f"{path}/key"), self.pack(item, f"{path}/{key}")]
            for key, item in value.items()
        ]
        return {TAG: "dict", "pairs": pairs}

    def _sequence(self, value: Sequence[object], path: str) -> Plain:
        items = [self.pack(item, f"{path}/{place}") for place, item in enumerate(value)]
        return items if isinstance(value, list) else {TAG: "tuple", "items": items}

    def _array(self, value: Any, path: str) -> Plain:
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            return {TAG: "numpy", "name": self._add(torch.from_numpy(value.copy()), path)}
        if sparse.issparse(value):
            csr = value.tocsr()
            parts = (csr.data, csr.indices, csr.indptr)
            packed = self.pack([*parts, list(csr.shape)], path)
            return {TAG: "scipy", "format": value.format, "parts": packed}
        raise CheckpointError(
            f"cannot store {path.lstrip('/') or 'the state'} in a checkpoint: it is a "
            f"{type(value).__module__}.{type(value).__name__}. Expected tensors, numpy or scipy "
            "arrays, numbers, text, None, and dictionaries or lists of them."
        )

    def _tensor(self, value: Tensor, path: str) -> Plain:
        if value.layout == torch.sparse_coo:
            value = value.detach().coalesce()
            parts = [value.indices(), value.values(), list(value.shape)]
            return {TAG: "coo", "parts": self.pack(parts, path)}
        if value.layout == torch.sparse_csr:
            parts = [value.crow_indices(), value.col_indices(), value.values(), list(value.shape)]
            return {TAG: "csr", "parts": self.pack(parts, path)}
        return {TAG: "tensor", "name": self._add(value, path)}

    def _add(self, tensor: Tensor, path: str) -> str:
        base = name = path.lstrip("/") or "tensor"
        number = 1
        while name in self.tensors:
            number += 1
            name = f"{base}#{number}"
        # A copy of its own: safetensors refuses tensors that share memory, as tied weights do.
        self.tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
        return name


def pack(state: object) -> tuple[Plain, dict[str, Tensor]]:
    """Split a nested state into a tree for JSON and named tensors.

    Known are dictionaries (any plain keys), lists, tuples, numbers, text, None, tensors (dense,
    sparse COO and CSR), numpy arrays and scipy sparse matrices. ``np.float64`` comes back as
    ``float``, ``OrderedDict`` as ``dict``; all else comes back as it was, on the CPU.

    Raises
    ------
    CheckpointError
        The state holds something else, for example a module; the message names its place.
    """
    packer = _Packer()
    return packer.pack(state, ""), packer.tensors


def unpack(tree: Plain, tensors: Mapping[str, Tensor]) -> Any:
    """Join what :func:`pack` split."""
    if isinstance(tree, list):
        return [unpack(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if TAG not in tree:
        return {key: unpack(item, tensors) for key, item in tree.items()}
    return _special(tree, tensors)


def _special(tree: State, tensors: Mapping[str, Tensor]) -> object:
    """Rebuild what JSON cannot say by itself."""
    kind = tree[TAG]
    if kind in ("tensor", "numpy"):
        tensor = tensors[tree["name"]]
        return tensor if kind == "tensor" else tensor.numpy()
    if kind == "float":
        return float(tree["value"])
    if kind == "tuple":
        return tuple(unpack(tree["items"], tensors))
    if kind == "dict":
        return {unpack(key, tensors): unpack(item, tensors) for key, item in tree["pairs"]}
    *parts, shape = unpack(tree["parts"], tensors)
    # Indices that point outside would make later operations read foreign memory.
    if kind == "scipy":
        matrix = sparse.csr_matrix(tuple(parts), shape=shape)
        matrix.check_format(full_check=True)
        return matrix.asformat(tree["format"])
    if kind == "csr":
        crow, column, value = parts
        return torch.sparse_csr_tensor(crow, column, value, size=shape, check_invariants=True)
    if kind == "coo":
        index, value = parts
        found = torch.sparse_coo_tensor(index, value, size=shape, check_invariants=True)
        return found.coalesce()
    raise ValueError(f"unknown kind {kind!r}")


def to_bytes(state: Mapping[str, object]) -> bytes:
    """Return a whole checkpoint file as bytes.

    Raises
    ------
    CheckpointError
        The state holds something that is not data.
    """
    tree, tensors = pack(state)
    text = json.dumps(tree, allow_nan=False)
    digest = _digest(text, tensors)
    metadata = {"format": FORMAT, "version": VERSION, "tree": text, "sha256": digest}
    return safetensors.torch.save(tensors, metadata)


def save_checkpoint(path: str | Path, state: Mapping[str, object]) -> None:
    """Write ``state`` to ``path``; a killed process leaves the old file or the whole new one.

    Raises
    ------
    CheckpointError
        The state holds something that is not data. The old file stays as it was.
    """
    write_checkpoint(path, to_bytes(state))


def write_checkpoint(path: str | Path, data: bytes) -> None:
    """Write the bytes of a checkpoint through a temporary file."""
    with atomic_write(path, "wb") as stream:
        stream.write(data)


def load_checkpoint(path: str | Path) -> State:
    """Read a checkpoint and verify its checksum. Arrays come back on the CPU.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, or no checkpoint of this package.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}.") from error
    try:
        tensors = safetensors.torch.load(data)
        metadata = _metadata(data)
    except _BROKEN as error:
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint: it is no complete safetensors file "
            f"({error}). Use another checkpoint of the run, or train again."
        ) from error
    _check_metadata(path, metadata, tensors)
    try:
        state = unpack(json.loads(metadata["tree"]), tensors)
    except _BROKEN as error:
        raise CheckpointError(f"{path} was written by another version: {error!r}.") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, expected a dictionary.")
    return state


def _metadata(data: bytes) -> dict[str, str]:
    """Read the metadata of a safetensors file whose header has already been validated."""
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length]).get("__metadata__") or {})


def _check_metadata(path: Path, metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> None:
    if metadata.get("format") != FORMAT or "tree" not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file but no checkpoint of recbole_mm "
            f"(its metadata says format={metadata.get('format')!r}, expected {FORMAT!r})."
        )
    if (version := metadata.get("version", "none")) != VERSION:
        raise CheckpointError(
            f"{path} was written by {_WRITERS.get(version, 'another version of recbole_mm')}: its "
            f"layout is {version!r}, expected {VERSION!r}. Train again, or use the version that "
            "wrote it."
        )
    if _digest(metadata["tree"], tensors) != metadata.get("sha256"):
        raise CheckpointError(
            f"{path} is damaged: its content does not match its checksum. "
            "Use another checkpoint of the run, or train again."
        )


def _digest(tree: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the tree and all tensors."""
    # As bytes, because NumPy knows no bfloat16.
    arrays = {
        f"{name} {tensor.dtype} {tuple(tensor.shape)}": tensor.reshape(-1).view(torch.uint8).numpy()
        for name, tensor in tensors.items()
    }
    return array_digest(arrays, tree)


def vocabulary_hash(item_tokens: Iterable[object]) -> str:
    """Return the SHA-256 of the item tokens in the order of their internal ids."""
    return hashlib.sha256(json.dumps([str(token) for token in item_tokens]).encode()).hexdigest()


def state_differences(model: Mapping[str, object], checkpoint: Mapping[str, object]) -> list[str]:
    """Say how a checkpoint's weights differ from what a model expects; empty if they fit."""
    missing = [key for key in model if key not in checkpoint]
    unexpected = [key for key in checkpoint if key not in model]
    mismatched = [
        f"{key} (model {_shape(model[key])}, checkpoint {_shape(checkpoint[key])})"
        for key in model
        if key in checkpoint and _shape(model[key]) != _shape(checkpoint[key])
    ]
    named = {"missing": missing, "unexpected": unexpected, "mismatched": mismatched}
    return [f"{name}: {_some(keys)}" for name, keys in named.items() if keys]


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _some(keys: list[str]) -> str:
    rest = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def rng_state() -> State:
    """Return the state of every random generator that training draws from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "numpy": np.random.get_state(legacy=False),
        "python": random.getstate(),
    }


def set_rng_state(state: State) -> None:
    """Put back what :func:`rng_state` returned; CUDA states only as far as devices exist."""
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])
    random.setstate(state["python"])
    if torch.cuda.is_available():
        for device, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(generator, device)
