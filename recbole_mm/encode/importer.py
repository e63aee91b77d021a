"""Import vectors made elsewhere: a ``.npy`` table and a list of item ids."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from recbole_mm.encode.manifest import Manifest, package_versions
from recbole_mm.encode.store import Store
from recbole_mm.errors import FeatureError
from recbole_mm.files import sha256_file

logger = logging.getLogger(__name__)


def import_vectors(
    from_npy: str | Path, ids: str | Path, out: str | Path, dataset: str, modality: str
) -> Path:
    """Make an ``.itememb`` file of a NumPy table.

    Parameters
    ----------
    from_npy
        ``.npy`` file, ``(n, d)`` floats; row ``r`` belongs to line ``r + 1`` of ``ids``.
    ids
        UTF-8 text, one item token per line.
    out
        Folder of the result.
    dataset, modality
        First two parts of the file name.

    Returns
    -------
    pathlib.Path
        ``<out>/<dataset>.<modality>.itememb``; the manifest lies beside it.

    Raises
    ------
    FeatureError
        If the table is no ``.npy`` file of finite floats, or the ids do not fit it.
    EncodeError
        If another process writes the same file, or the file there is not this package's work.
    """
    store = Store(out, dataset, modality)
    vectors = _read_table(Path(from_npy))
    tokens = _read_ids(Path(ids), len(vectors), from_npy)
    manifest = Manifest(
        dataset=dataset,
        modality=modality,
        kind="imported",
        itememb_sha256="",
        dim=vectors.shape[1],
        counts={"items": len(tokens)},
        source={
            "vectors": Path(from_npy).name,
            "vectors_sha256": sha256_file(from_npy),
            "ids": Path(ids).name,
            "ids_sha256": sha256_file(ids),
        },
        versions=package_versions(),
    )
    with store.writing():
        store.previous()
        store.publish(tokens, vectors, manifest)
    logger.info("%s: %d vectors of %d numbers imported.", store.path, *vectors.shape)
    return store.path


def _read_table(path: Path) -> np.ndarray:
    """Return a ``.npy`` table of finite floats as float32 ``(n, d)``."""
    expected = "Expected a .npy file with floats of shape (items, d), as numpy.save writes it."
    if not path.is_file():
        raise FeatureError(f"{path}: no such file. {expected}")
    try:
        # Mapped, so that a header which promises too much is refused before memory is taken.
        table = np.load(path, allow_pickle=False, mmap_mode="r")
    except Exception as error:  # numpy parses the header as Python text and raises what that raises
        raise FeatureError(f"{path}: cannot be read ({error}). {expected}") from error
    if not isinstance(table, np.ndarray) or table.dtype.kind != "f" or table.ndim != 2:
        got = f"{table.dtype} {table.shape}" if isinstance(table, np.ndarray) else "an archive"
        raise FeatureError(f"{path}: holds {got}. {expected}")
    if 0 in table.shape:
        raise FeatureError(f"{path}: the table of shape {table.shape} is empty. {expected}")
    with np.errstate(over="ignore"):
        vectors = np.array(table, dtype=np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise FeatureError(
            f"{path}: row {int(np.argmin(finite))} (counted from 0) and "
            f"{int((~finite).sum()) - 1} more hold nan, inf or numbers beyond float32. Leave "
            "these items out of table and ids; they then count as missing."
        )
    return vectors


def _read_ids(path: Path, count: int, table: str | Path) -> list[str]:
    """Return the ``count`` tokens of an id file, one per line."""
    if not path.is_file():
        raise FeatureError(f"{path}: no such file. Expected one item id per line (--ids=ids.txt).")
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    lines = raw.removesuffix(b"\n").split(b"\n")
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            token = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise FeatureError(f"{path}, line {number}: not UTF-8. Save it as UTF-8.") from error
        if not token or "\t" in token:
            raise FeatureError(f"{path}, line {number}: {token!r}, expected one item id per line.")
        if token in first:
            raise FeatureError(
                f"{path}, line {number}: id {token!r} stands in line {first[token]} already. Keep "
                "one vector per item."
            )
        first[token] = number
    if len(first) != count:
        raise FeatureError(
            f"{path}: {len(first)} ids for the {count} rows of {table}. Expected one id per row, "
            "in the order of the rows."
        )
    return list(first)
