"""Where a feature file is made: one writer at a time, resumable, never a partial file."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from recbole_mm import processes
from recbole_mm.data.checked import load_checked, save_checked
from recbole_mm.data.itememb import itememb_path, read_itememb, write_itememb
from recbole_mm.data.sidecar import ItemEmb
from recbole_mm.encode.manifest import Manifest, load_manifest, manifest_path
from recbole_mm.errors import EncodeError
from recbole_mm.files import atomic_write, parse_json, read_json, sha256_file

logger = logging.getLogger(__name__)


class Store:
    """The feature file of one data set and modality, with its manifest and work folder.

    The work folder ``.<Dataset>.<modality>.parts`` holds finished chunks of vectors. It outlives a
    killed process, and the next one goes on from it.

    Attributes
    ----------
    path
        The ``.itememb`` file.
    manifest
        Path of the manifest beside it.
    parts
        The work folder.
    """

    def __init__(self, folder: str | Path, dataset: str, modality: str):
        self.dataset = dataset
        self.modality = modality
        self.path = itememb_path(folder, dataset, modality)
        self.manifest = manifest_path(self.path)
        self.parts = self.path.with_name(f".{dataset}.{modality}.parts")
        self._lock = self.path.with_name(f".{dataset}.{modality}.lock")
        self._holder = self.parts / "holder.json"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write this file; the system frees it when the process dies.

        Of several processes of one run the first holds it for all, and the others leave with it.

        Raises
        ------
        EncodeError
            If another process holds it (it is named), or the folder cannot be written.
        """
        if processes.group().rank > 0:
            processes.wait()
            yield
            processes.wait()
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._lock, timeout=0), self._noted():
                self._finish_interrupted()
                processes.wait()
                yield
            processes.wait()
        except Timeout as error:
            raise EncodeError(
                f"{self.path} is being made by {self._read_holder()}. Wait until it has ended, "
                "then start again."
            ) from error
        except (OSError, NotImplementedError) as error:
            raise EncodeError(
                f"{self.path}: cannot be written ({error}). Finished parts are kept; mend the "
                "disk or name another folder (--out in `recbole-mm encode`, --feature_path in a "
                "run)."
            ) from error

    def previous(self) -> tuple[Manifest, ItemEmb] | None:
        """Return the file and manifest that a new one replaces, or None.

        Raises
        ------
        EncodeError
            If the file there was not made by this package or was edited since: it is not replaced.
        """
        if not self.path.is_file():
            return None
        manifest = load_manifest(self.manifest)
        if manifest is None or manifest.itememb_sha256 != sha256_file(self.path):
            why = "has no manifest" if manifest is None else "was edited after it was made"
            raise EncodeError(
                f"{self.path} exists and {why}, so it may be your own work and is not overwritten. "
                "Move it away, or write into another folder with --out."
            )
        return manifest, read_itememb(self.path, self.modality)

    def publish(self, ids: Sequence[str], vectors: np.ndarray, manifest: Manifest) -> None:
        """Put vectors and manifest in place, then drop the work folder.

        Both are complete in the work folder before the first of the two renames, so that a process
        killed between the renames leaves what `_finish_interrupted` needs.
        """
        staged = self.parts / self.path.name
        sha256 = write_itememb(staged, self.modality, ids, vectors)
        self.publish_manifest(manifest.made_of(sha256), staged)

    def publish_manifest(self, manifest: Manifest, staged: Path | None = None) -> None:
        """Put a manifest in place, with the vectors in ``staged`` or for those already there."""
        pending = self.parts / self.manifest.name
        manifest.save(pending)
        if staged is not None:
            os.replace(staged, self.path)
        os.replace(pending, self.manifest)
        shutil.rmtree(self.parts, ignore_errors=True)

    def load_part(self, number: int, key: str) -> tuple[np.ndarray, list[str]] | None:
        """Return vectors and notes of a finished chunk, or None.

        Parameters
        ----------
        number
            Position of the chunk.
        key
            What the chunk must have been made of; a part with another key is not used.
        """
        path = self._part(number)
        try:
            arrays, metadata = load_checked(path)
            if metadata["key"] != key:
                return None
            return arrays["vectors"], parse_json(metadata["notes"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, OSError) as error:
            logger.warning("%s cannot be used (%s); the chunk is encoded again.", path, error)
            return None

    def save_part(self, number: int, key: str, vectors: np.ndarray, notes: list[str]) -> None:
        """Keep a finished chunk."""
        metadata = {"key": key, "notes": json.dumps(notes)}
        save_checked(self._part(number), {"vectors": vectors}, metadata)

    def _part(self, number: int) -> Path:
        """Return the file of a chunk."""
        return self.parts / f"{number:06d}.safetensors"

    def _finish_interrupted(self) -> None:
        """Put a manifest in place that a killed process left behind after it placed the vectors."""
        pending = self.parts / self.manifest.name
        manifest = load_manifest(pending)
        if manifest is None or not self.path.is_file():
            return
        if manifest.itememb_sha256 == sha256_file(self.path):
            os.replace(pending, self.manifest)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Write down who holds the lock for as long as it is held."""
        holder = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now().isoformat(timespec="seconds"),
        }
        with atomic_write(self._holder) as stream:
            json.dump(holder, stream)
        try:
            yield
        finally:
            self._holder.unlink(missing_ok=True)
            with suppress(OSError):  # the folder stays while it holds finished chunks
                self.parts.rmdir()

    def _read_holder(self) -> str:
        """Say who holds the lock."""
        try:
            holder = read_json(self._holder)
            return f"process {holder['process']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
