"""A trained model with all that recommending needs, wherever it was restored from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_mm.serve.catalogue import Catalogue
from recbole_mm.serve.scorer import Scorer

if TYPE_CHECKING:
    from recbole.model.abstract_recommender import AbstractRecommender

    from recbole_mm.config import MMConfig
    from recbole_mm.data.session_dataset import SessionDataset


@dataclass(frozen=True, eq=False)
class Restored:
    """A trained model, from a run folder or a pack.

    Attributes
    ----------
    config
        The run's configuration.
    model
        The model with its best weights.
    dataset
        What it was built on: the run's training part, or the data set of a pack, which holds no
        sessions.
    items
        The catalogue.
    place
        The folder it comes from.
    """

    config: MMConfig
    model: AbstractRecommender
    dataset: SessionDataset
    items: Catalogue
    place: Path

    @cached_property
    def scorer(self) -> Scorer:
        """What scores sessions."""
        return Scorer(self.config, self.model, len(self.items))
