"""Items that no session holds, known by their feature rows alone: ``candidates: features``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recbole_mm.data.itememb import read_itememb
from recbole_mm.errors import DataError

_SUFFIX = ".itememb"


def items_with_features(config: Any) -> set[str]:
    """Return the tokens of all items that have a row in any feature file of the data set.

    All files count, whichever the model reads, so that every model ranks the same candidates. Of
    two files of one modality the one in ``feature_path`` counts, as in a run.

    Parameters
    ----------
    config
        Read are ``dataset``, ``feature_path`` and ``data_path``.

    Raises
    ------
    DataError
        If there is no feature file.
    FeatureError
        If one is broken.
    """
    name = config["dataset"]
    folders = [Path(config[key]) for key in ("feature_path", "data_path") if config[key]]
    files = feature_files(folders, name)
    if not files:
        raise DataError(
            f"{name}: candidates is features, but there is no feature file in "
            f"{' or '.join(map(str, folders))}. Make one with `recbole-mm encode --dataset={name}`."
        )
    return {token for modality, path in files.items() for token in read_itememb(path, modality).ids}


def feature_files(folders: Iterable[Path], dataset: str) -> dict[str, Path]:
    """Return ``{modality: file}`` of a data set; earlier folders win."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            modality = path.name.removeprefix(f"{dataset}.").removesuffix(_SUFFIX)
            # A dot would make it the file of another data set, `shop.v2` beside `shop`.
            if path.name == f"{dataset}.{modality}{_SUFFIX}" and "." not in modality:
                found.setdefault(modality, path)
    return found
