"""Writing files so that a good one is never lost, hashing them, and reading JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import IO, Any, TypeAlias, Union, get_args, get_origin, get_type_hints, is_typeddict

from recbole_mm.errors import ConfigError

# What JSON and YAML files hold, and what the command line gives.
Plain: TypeAlias = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

# What `tempfile` makes of a final name.
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")

# Names of the files in a run folder.
RESULT, CONFIG, LOG = "result.json", "config.yaml", "run.log"
BEST, LAST = "best.safetensors", "last.safetensors"


def checked_name(name: str, key: str) -> str:
    """Return a name that becomes a part of file names.

    Raises
    ------
    ConfigError
        It is empty, names another folder, or holds characters that no file name can.
    """
    if name in ("", ".", "..") or not name.isprintable() or set(name) & set("/\\"):
        raise ConfigError(
            f"{key} = {name!r} is not accepted; expected a plain name, such as Cellphones. Where "
            "its folder lies, --data_path says."
        )
    return name


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

    Raises
    ------
    OSError
        The file cannot be written; it carries the name of the file, also where the disk is full.
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
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            # A write to a full disk does not say by itself which file it was.
            error.filename = str(target)
        raise


def remove_unfinished(folder: str | Path, name: str = "*") -> None:
    """Remove what a process left that was killed in `atomic_write` of a file of this name.

    Only for files that no other process writes.
    """
    for temporary in Path(folder).glob(f".{name}.*"):
        if _TEMPORARY.fullmatch(temporary.name):
            temporary.unlink()


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        It is not UTF-8, not JSON, or nested too deeply.
    OSError
        It cannot be read.
    """
    return parse_json(Path(path).read_text(encoding="utf-8"))


def parse_json(text: str) -> Any:
    """Parse JSON; a ValueError says what is wrong with it."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def fits(value: object, hint: Any) -> bool:
    """Return whether a value read from JSON has the shape that a type hint says.

    Known are typed dictionaries (keys that may be missing are not looked at), lists, dictionaries
    by text, unions, numbers, text, bool and None; any other hint accepts everything.
    """
    if is_typeddict(hint):
        hints = get_type_hints(hint)
        return isinstance(value, dict) and all(
            name in value and fits(value[name], hints[name]) for name in hint.__required_keys__
        )
    inner, origin = get_args(hint), get_origin(hint)
    if origin is list:
        return isinstance(value, list) and all(fits(member, inner[0]) for member in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(one, inner[1]) for one in value.values())
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if hint in (int, float):
        wanted = (int, float) if hint is float else (int,)
        return isinstance(value, wanted) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (str, bool, type(None)) else True


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
