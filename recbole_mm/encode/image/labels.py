"""Class names of pictures, beside the vectors they follow from: ``<Dataset>.image.labels.json``.

GoogLeNet's class scores are one linear map of its pooled vectors, which the feature file holds
bit for bit, so that the names need no second pass over the pictures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recbole_mm.data.itememb import itememb_path, read_itememb
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.errors import EncodeError
from recbole_mm.files import atomic_write, read_json

TOP = 2
_FORMAT = "recbole_mm.labels/1"


def labels_path(folder: str | Path, dataset: str, modality: str) -> Path:
    """Return ``<folder>/<Dataset>.<modality>.labels.json``."""
    return itememb_path(folder, dataset, modality).with_suffix(".labels.json")


def top_classes(
    vectors: np.ndarray, weight: np.ndarray, bias: np.ndarray, count: int
) -> np.ndarray:
    """Return the numbers of the ``count`` best classes of each row, best first.

    Parameters
    ----------
    vectors
        ``(n, d)`` pooled features.
    weight, bias
        ``(classes, d)`` and ``(classes,)`` of the classifier.
    count
        Classes per row.
    """
    best = [np.argsort(-(weight @ vector + bias), kind="stable")[:count] for vector in vectors]
    return np.stack(best)


def write_labels(
    itememb: Path, modality: str, classifier: tuple[np.ndarray, np.ndarray, list[str]], count: int
) -> Path:
    """Name the best classes of every item of a feature file.

    Parameters
    ----------
    itememb
        The feature file, of pooled GoogLeNet vectors.
    modality
        Its modality.
    classifier
        Weight ``(classes, d)``, bias ``(classes,)`` and the classes' names.
    count
        Names per item.
    """
    emb = read_itememb(itememb, modality)
    weight, bias, names = classifier
    best = top_classes(emb.vectors, weight, bias, count)
    plain = {
        "format": _FORMAT,
        "itememb_sha256": emb.sha256,
        "top": count,
        "labels": {
            token: [names[c] for c in row] for token, row in zip(emb.ids, best, strict=True)
        },
    }
    path = itememb.with_suffix(".labels.json")
    with atomic_write(path) as stream:
        json.dump(plain, stream, indent=1, ensure_ascii=False)
        stream.write("\n")
    return path


def labels_fit(itememb: Path, sha256: str, count: int) -> bool:
    """Return whether the labels beside a feature file were made of it, ``count`` per item."""
    try:
        plain = read_json(itememb.with_suffix(".labels.json"))
        return (plain["format"], plain["itememb_sha256"], plain["top"]) == (_FORMAT, sha256, count)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_labels(places: Sequence[str | Path], dataset: str, modality: str) -> dict[str, list[str]]:
    """Return ``{item token: class names}`` from the first folder that has them.

    Raises
    ------
    EncodeError
        If there are none, they are broken, or the feature file beside them is another by now.
    """
    paths = [labels_path(place, dataset, modality) for place in places]
    path = next((path for path in paths if path.is_file()), None)
    command = f"`recbole-mm encode --dataset={dataset} --modality={modality} --images=FOLDER`"
    if path is None:
        raise EncodeError(
            f"{' and '.join(map(str, paths))}: no such file. Expected the class names of the "
            f"pictures (field @{modality}). GoogLeNet names them: {command}."
        )
    try:
        plain = read_json(path)
        labels, sha256 = plain["labels"], plain["itememb_sha256"]
        if plain["format"] != _FORMAT or not all(_is_names(names) for names in labels.values()):
            raise ValueError(f"its format is not {_FORMAT}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncodeError(
            f"{path}: no labels of this package ({error}). Remove it and type {command}."
        ) from error
    manifest = load_manifest(manifest_path(itememb_path(path.parent, dataset, modality)))
    if manifest is not None and manifest.itememb_sha256 != sha256:
        raise EncodeError(f"{path}: made of other vectors than those beside it. Type {command}.")
    return dict(labels)


def _is_names(names: object) -> bool:
    """Return whether this is a list of texts."""
    return isinstance(names, list) and all(isinstance(name, str) for name in names)
