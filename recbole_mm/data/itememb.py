"""Reader and writer of item vectors: ``<Dataset>.<modality>.itememb``.

The file is a RecBole atomic file that stock RecBole loads too (``additional_feat_suffix`` and
``preload_weight``): a header ``<modality>_id:token<TAB><modality>_emb:float_seq``, then one line
per item, its vector's numbers separated by blanks. RecBole's reader pads short vectors, lets
``nan`` pass and keeps the last of two rows; this one refuses such files and names the line.

Parsing 15,000 x 768 numbers takes a second or two, so the first read leaves a binary copy beside
the file, ``<file>.safetensors``, that later reads load instead.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from recbole_mm.data.sidecar import ItemEmb, load_sidecar, save_sidecar
from recbole_mm.errors import FeatureError
from recbole_mm.files import atomic_write

_BOM = b"\xef\xbb\xbf"
_NUMBER_BYTES = b"0123456789+-.eE "
_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NOT_FINITE = re.compile(rb"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_BAD_IN_ID = re.compile(rb"[\t\n\r\0]")
_MODALITY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def itememb_path(folder: str | Path, dataset: str, modality: str) -> Path:
    """Return ``<folder>/<dataset>.<modality>.itememb``.

    Raises
    ------
    FeatureError
        If ``modality`` is not a plain word (it becomes a column name and part of a file name).
    """
    if not _MODALITY.fullmatch(modality):
        raise FeatureError(
            f"modality {modality!r}: expected letters, digits and _, like text or image_clip."
        )
    return Path(folder) / f"{dataset}.{modality}.itememb"


def read_itememb(path: str | Path, modality: str) -> ItemEmb:
    """Read a feature file, from its binary copy if that is sound and was made from this very text.

    The copy is trusted if its own checksum fits and the text's SHA-256 is the noted one. From 16 MB
    on, samples take the place of both, with the text's size and time of change; the copy is then
    mapped into memory.

    Parameters
    ----------
    path
        The ``.itememb`` file. A byte-order mark and CRLF line ends are accepted.
    modality
        The word in front of ``_id`` and ``_emb`` in the header.

    Raises
    ------
    FeatureError
        With file and line, for a missing file, a wrong header, a wrong number of columns, bytes
        that are not UTF-8, an empty or repeated id, an empty, short or long vector, or a number
        that is none or not finite in float32.
    """
    path = Path(path)
    if not path.is_file():
        raise FeatureError(f"{path}: no such file. Expected the {modality} vectors of the items.")
    cached = load_sidecar(path, modality)
    if cached is not None:
        return cached
    with open(path, "rb") as stream:
        # Noted before reading: a change while reading then shows as a difference later.
        stat = os.fstat(stream.fileno())
        emb = _read_text(path, stream, modality)
    save_sidecar(path, modality, emb, stat)
    return emb


def write_itememb(path: str | Path, modality: str, ids: Sequence[str], vectors: np.ndarray) -> str:
    """Write a feature file, whole or not at all, and return its SHA-256.

    Numbers are written with nine significant digits, which float32 survives exactly.

    Parameters
    ----------
    path
        Final name.
    modality
        The word in front of ``_id`` and ``_emb`` in the header.
    ids
        Item tokens, each once.
    vectors
        ``(n, d)`` floats, finite in float32.

    Raises
    ------
    FeatureError
        If an id is empty, repeated, not UTF-8 or holds a tab or line end, or the vectors do not
        fit.
    """
    table = _checked_vectors(path, ids, vectors)
    names = _checked_ids(path, ids)
    digest = hashlib.sha256()
    row_format = " ".join(["%.9g"] * table.shape[1])
    with atomic_write(path, "wb") as stream:
        for line in chain([_header(modality)], _lines(names, table, row_format)):
            digest.update(line + b"\n")
            stream.write(line + b"\n")
    return digest.hexdigest()


def _lines(names: list[bytes], table: np.ndarray, row_format: str) -> Iterator[bytes]:
    """Yield the rows of a feature file without line ends."""
    for name, row in zip(names, table, strict=True):
        yield name + b"\t" + (row_format % tuple(row.tolist())).encode("ascii")


def _header(modality: str) -> bytes:
    """Return the header line without its line end."""
    return f"{modality}_id:token\t{modality}_emb:float_seq".encode()


def _checked_vectors(path: str | Path, ids: Sequence[str], vectors: np.ndarray) -> np.ndarray:
    """Return ``vectors`` as finite float32 ``(len(ids), d)``."""
    if vectors.ndim != 2 or 0 in vectors.shape or len(vectors) != len(ids):
        raise FeatureError(
            f"{path}: vectors of shape {vectors.shape} for {len(ids)} ids, expected "
            f"({len(ids)}, d) with at least one row and one column."
        )
    with np.errstate(over="ignore"):
        table = vectors.astype(np.float32)
    finite = np.isfinite(table).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise FeatureError(
            f"{path}: the vector of {ids[row]!r} (row {row}) holds nan, inf or a number beyond "
            "float32. Leave the item out; it then counts as missing."
        )
    return table


def _checked_ids(path: str | Path, ids: Sequence[str]) -> list[bytes]:
    """Return the ids as UTF-8, each usable as the first cell of a row and there once."""
    seen: set[bytes] = set()
    names = []
    for token in ids:
        name = token.encode("utf-8", "backslashreplace")
        if not token or re.search("[\t\n\r\0\ud800-\udfff]", token):
            raise FeatureError(
                f"{path}: id {token!r} cannot be written. Expected UTF-8 without tab and line end."
            )
        if name in seen:
            raise FeatureError(f"{path}: id {token!r} stands twice. Keep one vector per item.")
        seen.add(name)
        names.append(name)
    return names


def _read_text(path: Path, stream: BinaryIO, modality: str) -> ItemEmb:
    """Parse in bulk; if anything is odd, again line by line, which says where."""
    try:
        return _parse_fast(path, stream, modality)
    except ValueError:
        stream.seek(0)
        return _parse_lines(path, stream, modality)


def _read_header(path: Path, stream: BinaryIO, modality: str) -> bytes:
    """Check the first line and return its bytes."""
    raw = stream.readline()
    line = _strip_end(raw.removeprefix(_BOM))
    if line != _header(modality):
        got = line[:200].decode("utf-8", "backslashreplace")
        raise FeatureError(
            f"{path}, line 1: the header is {got!r}, expected {_header(modality).decode()!r} "
            "(two columns with a tab between them)."
        )
    return raw


def _strip_end(line: bytes) -> bytes:
    """Return ``line`` without its line end, LF or CRLF."""
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _parse_fast(path: Path, stream: BinaryIO, modality: str) -> ItemEmb:
    """Parse a well-formed file; ValueError (from wherever) means that a row is odd."""
    digest = hashlib.sha256(_read_header(path, stream, modality))
    ids: list[str] = []

    def cells() -> Iterator[str]:
        for line in stream:
            digest.update(line)
            token, _, cell = _strip_end(line).partition(b"\t")
            if (
                not token
                or not cell
                or _BAD_IN_ID.search(token)
                or cell.translate(None, _NUMBER_BYTES)
            ):
                raise ValueError("odd row")
            ids.append(token.decode("utf-8"))
            yield cell.decode("ascii")

    rows = cells()
    # numpy warns about empty input; here it is one more odd file.
    first = next(rows, "")
    with np.errstate(over="ignore"):
        vectors = np.loadtxt(
            chain([first or "odd"], rows), np.float32, comments=None, delimiter=" ", ndmin=2
        )
    if len(ids) != len(vectors) or len(set(ids)) != len(ids) or not np.isfinite(vectors).all():
        raise ValueError("odd row")
    return ItemEmb(ids, vectors, digest.hexdigest())


def _parse_lines(path: Path, stream: BinaryIO, modality: str) -> ItemEmb:
    """Parse line by line; slow, but every error names its line."""
    digest = hashlib.sha256(_read_header(path, stream, modality))
    lines: dict[str, int] = {}
    vectors: list[np.ndarray] = []
    for number, raw in enumerate(stream, start=2):
        digest.update(raw)
        where = f"{path}, line {number}"
        token, cell = _split_row(where, _strip_end(raw))
        if token in lines:
            raise FeatureError(
                f"{where}: id {token!r} stands in line {lines[token]} already. Keep one row "
                "per item."
            )
        lines[token] = number
        vectors.append(_parse_vector(where, token, cell))
        if len(vectors[-1]) != len(vectors[0]):
            raise FeatureError(
                f"{where}: the vector of {token!r} has {len(vectors[-1])} number(s), expected "
                f"{len(vectors[0])} as in line 2. All vectors of a file have one width."
            )
    if not vectors:
        raise FeatureError(f"{path}: a header without rows. Expected one row per item.")
    return ItemEmb(list(lines), np.stack(vectors), digest.hexdigest())


def _split_row(where: str, line: bytes) -> tuple[str, bytes]:
    """Return id and vector cell of one row."""
    if (columns := line.count(b"\t") + 1) != 2:
        raise FeatureError(
            f"{where}: {columns} column(s), expected 2: the id, a tab, the numbers with blanks "
            "between."
        )
    name, _, cell = line.partition(b"\t")
    try:
        token = name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FeatureError(f"{where}: the id is not UTF-8. Save the file as UTF-8.") from error
    if not token or _BAD_IN_ID.search(name):
        raise FeatureError(f"{where}: the id is {token!r}, expected an item's token.")
    return token, cell


def _parse_vector(where: str, token: str, cell: bytes) -> np.ndarray:
    """Return the numbers of one cell as float32 ``(d,)``."""
    numbers = [number for number in cell.split(b" ") if number]
    if not numbers:
        raise FeatureError(
            f"{where}: the vector of {token!r} is empty. Leave the row out; the item then counts "
            "as missing."
        )
    for number in numbers:
        if _NOT_FINITE.fullmatch(number):
            raise FeatureError(
                f"{where}: the vector of {token!r} holds {number.decode()!r}, expected finite "
                "numbers. Leave the row out; the item then counts as missing."
            )
        if not _NUMBER.fullmatch(number):
            got = number[:40].decode("utf-8", "backslashreplace")
            raise FeatureError(
                f"{where}: {got!r} is not a number. Expected numbers like -0.25 or 1e-3, "
                "with blanks between them."
            )
    with np.errstate(over="ignore"):
        vector = np.array([float(number) for number in numbers]).astype(np.float32)
    if not np.isfinite(vector).all():
        raise FeatureError(f"{where}: a number of {token!r} is too large for float32.")
    return vector
