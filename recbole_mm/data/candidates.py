"""Items that no session holds, known by their feature rows alone: ``candidates: features``."""

from __future__ import annotations

from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.errors import DataError


def items_with_features(files: FeatureFiles) -> set[str]:
    """Return the tokens of all items that have a row in any feature file of the data set.

    All files count, whichever the model reads, so that every model ranks the same candidates.

    Raises
    ------
    DataError
        If there is no feature file.
    FeatureError
        If one is broken.
    """
    modalities = files.paths()
    if not modalities:
        raise DataError(
            f"{files.dataset}: candidates is features, but there is no feature file in "
            f"{' or '.join(map(str, files.folders))}. Make one with "
            f"`recbole-mm encode --dataset={files.dataset}`."
        )
    return {token for modality in modalities for token in files.read(modality).ids}
