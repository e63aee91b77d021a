"""The feature files of one data set: looked for in one place, and each read once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from recbole_mm.data.itememb import itememb_path, read_itememb
from recbole_mm.data.sidecar import ItemEmb
from recbole_mm.errors import FeatureError

_SUFFIX = ".itememb"


class FeatureFiles:
    """Where ``<dataset>.<modality>.itememb`` may lie, and what was read of it.

    Parameters
    ----------
    dataset
        Name of the data set, the first part of the file names.
    folders
        Places to look at; of two files of one modality the one in the earlier folder counts. A run
        looks into ``feature_path``, then beside the data.

    Attributes
    ----------
    folders
        The places, each once.
    """

    def __init__(self, dataset: str, folders: Iterable[str | Path]) -> None:
        self.dataset = dataset
        self.folders = tuple(dict.fromkeys(map(Path, folders)))
        self._read: dict[str, ItemEmb] = {}

    def paths(self) -> dict[str, Path]:
        """Return ``{modality: file}`` of all feature files that are there."""
        found: dict[str, Path] = {}
        for folder in self.folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                modality = path.name.removeprefix(f"{self.dataset}.").removesuffix(_SUFFIX)
                # A dot would make it the file of another data set, `shop.v2` beside `shop`.
                if path.name == f"{self.dataset}.{modality}{_SUFFIX}" and "." not in modality:
                    found.setdefault(modality, path)
        return found

    def find(self, modality: str) -> Path:
        """Return the feature file of a modality.

        Raises
        ------
        FeatureError
            If there is none, with the places looked at and the command that makes one.
        """
        places = [itememb_path(folder, self.dataset, modality) for folder in self.folders]
        for path in places:
            if path.is_file():
                return path
        raise FeatureError(
            f"{' and '.join(map(str, places))}: no such file. Expected the {modality} vectors of "
            f"the items. {self._how_to_make(modality)}."
        )

    def read(self, modality: str) -> ItemEmb:
        """Return the content of a modality's file; the file is read at the first call only.

        Raises
        ------
        FeatureError
            If there is none, or it is broken.
        """
        if modality not in self._read:
            self._read[modality] = read_itememb(self.find(modality), modality)
        return self._read[modality]

    def _how_to_make(self, modality: str) -> str:
        """Name the commands that make the file."""
        command = f"recbole-mm encode --dataset={self.dataset} --modality={modality}"
        if modality == "text":
            return f"Make it with `{command}`"
        return (
            f"Make it with `recbole-mm encode` (from pictures: `{command} --images=FOLDER`; by a "
            f"paper's recipe: --recipe), or import it: `{command} --from_npy=vectors.npy "
            "--ids=ids.txt`"
        )
