"""Writing files so that a good one is never lost, and hashing them."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

# What JSON and YAML files hold, and what the command line gives.
Plain: TypeAlias = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

# Names of the files in a run folder.
RESULT, CONFIG, LOG = "result.json", "config.yaml", "run.log"
BEST, LAST = "best.safetensors", "last.safetensors"


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` and rename it to ``path`` on success.

    The content is flushed to disk before the rename, so that a killed process leaves either
    the old file or the whole new one, never a part. On an exception the temporary file is removed.

    Parameters
    ----------
    path
        Final name. Missing parent folders are made.
    mode
        ``"w"`` for UTF-8 text with bare line feeds, ``"wb"`` for bytes.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, mode, **text) as stream:  # type: ignore[call-overload]
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """Return the process's umask (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal text."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
