"""What several released codes have in common, for the models that repeat it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole.config import Config
from torch import nn

from recbole_mm.model.base import MMSequentialRecommender

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset


class FirstEpochDropout(MMSequentialRecommender):
    """Dropout in the first epoch only.

    The released loops call ``eval()`` before they test and never ``train()`` again.
    """

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        self._dropouts = [(m, m.p) for m in self.modules() if isinstance(m, nn.Dropout)]

    def start_epoch(self, epoch_idx: int) -> None:
        """Set the dropouts of an epoch, counted from 0."""
        for module, share in self._dropouts:
            module.p = share if epoch_idx == 0 else 0.0
