"""What the models that count share: one epoch of nothing, choice on validation, prediction."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor, nn

from recbole_mm.model.counting.history import History
from recbole_mm.model.counting.scores import ndcg, own_items_last
from recbole_mm.model.counting.settings import Choice, CountingModelSettings, Grid

if TYPE_CHECKING:
    from recbole.data.dataloader import AbstractDataLoader

    from recbole_mm.data.session_dataset import SessionDataset

logger = logging.getLogger(__name__)

# Scores computed per choice at most; more validation rows than that are thinned out evenly.
_CELLS = 20_000_000
_BATCH = 512
SettingsClass = type[CountingModelSettings]
# Weight of popularity, which orders what is equal otherwise.
TIE = 1e-6


class CountingRecommender(SequentialRecommender, ABC):
    """A model that counts in the training sessions when it is built, and learns nothing else.

    RecBole trains it for one epoch like Pop, with a loss of zero. A subclass gives `variants`.

    Attributes
    ----------
    Settings
        Class of the settings.
    settings
        What it says, read from the configuration.
    chosen
        The keys chosen on validation, by name; part of the checkpoint.
    popularity
        ``(N,)`` float32: clicks in training, divided by those of the most popular item.
    """

    type = ModelType.TRADITIONAL
    input_type = InputType.POINTWISE
    Settings: ClassVar[SettingsClass] = CountingModelSettings
    settings: CountingModelSettings
    popularity: Tensor

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        self.settings = self.Settings.of(config)
        self._masked = config["history"] == "mask"
        clicks = dataset.train_counts
        popularity = torch.from_numpy(clicks / max(clicks.max(), 1)).float()
        self.register_buffer("popularity", popularity, persistent=False)
        # RecBole's optimisers want a weight; nothing reads this one.
        self.unused = nn.Parameter(torch.zeros(1))
        self.chosen: dict[str, str | float | bool] = self.grid().first()._asdict()
        self.other_parameter_name = ["chosen"]

    @abstractmethod
    def variants(self, history: History, grid: Grid) -> Iterator[tuple[Choice, Tensor]]:
        """Yield every choice of a grid with its scores ``(B, N)``, which the caller may change.

        ``own_last`` is left to the caller as well: it is False in each choice.
        """

    def grid(self) -> Grid:
        """Return the values of each key that are tried on validation."""
        return self.settings.grid()

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Return 0, with a gradient of 0."""
        return (self.unused * 0).sum()

    @torch.no_grad()
    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Return the scores of all items ``(B, N)``; padding has ``-inf``."""
        choice = Choice(**self.chosen)  # type: ignore[arg-type]
        _, scores = next(self._scored(interaction, Grid.of(choice)))
        scores[:, 0] = -math.inf
        return scores

    def predict(self, interaction: Interaction) -> Tensor:
        """Return the score of each row's ``item_id``, ``(B,)``."""
        item = interaction[self.ITEM_ID].unsqueeze(1)
        return self.full_sort_predict(interaction).gather(1, item).squeeze(1)

    def _scored(self, interaction: Interaction, grid: Grid) -> Iterator[tuple[Choice, Tensor]]:
        """Yield every choice of a grid with its scores, popularity and own items included."""
        item_seq = interaction[self.ITEM_SEQ]
        history = History.of(item_seq, interaction[self.ITEM_SEQ_LEN], self.n_items)
        for choice, scores in self.variants(history, grid):
            scores.add_(self.popularity, alpha=TIE)
            for last in grid.own_last:
                whole = own_items_last(scores, item_seq) if last else scores
                yield choice._replace(own_last=last), whole

    # ---- Choice on validation ----

    @torch.no_grad()
    def tune(self, valid_data: AbstractDataLoader) -> None:
        """Choose the open keys by NDCG@20 on validation rows; of equals the first stays.

        Parameters
        ----------
        valid_data
            Loader of the validation rows. Where they and the items are many, evenly spread rows
            are read: no choice takes more than 20 million scores, or those of 512 rows.
        """
        grid = self.grid()
        if self._masked:
            # What the run strikes out must not decide; of own items put last the same is true.
            grid = grid._replace(own_last=(True,))
        if grid.size() == 1:
            return
        total: dict[Choice, float] = {}
        for batch in self._batches(valid_data):
            for choice, scores in self._scored(batch, grid):
                gain = float(ndcg(scores, batch[self.ITEM_ID]).sum())
                total[choice] = total.get(choice, 0.0) + gain
        best = max(total, key=lambda choice: total[choice])
        self.chosen = best._asdict()
        logger.info("%s: chosen on validation: %s", type(self).__name__, self._told())

    def _batches(self, valid_data: AbstractDataLoader) -> Iterator[Interaction]:
        """Yield evenly spread validation rows in batches."""
        dataset = valid_data.dataset
        count = min(len(dataset), max(_BATCH, _CELLS // self.n_items))
        places = np.unique(np.linspace(0, len(dataset) - 1, num=count).astype(np.int64))
        size = max(1, min(_BATCH, _CELLS // self.n_items))
        for start in range(0, len(places), size):
            rows = torch.from_numpy(places[start : start + size])
            yield dataset[rows].to(self.device)

    def _told(self) -> str:
        """Return the open keys with their values, for the log."""
        tried = self.grid()._asdict()
        return ", ".join(f"{key} {self.chosen[key]}" for key in tried if len(tried[key]) > 1)

    def diagnostics(
        self, train_data: AbstractDataLoader, valid_data: AbstractDataLoader
    ) -> Mapping[str, float]:
        """Return what was chosen on validation by key; a rule is told by a 1 behind its name."""
        found: dict[str, float] = {}
        for key, tried in self.grid()._asdict().items():
            value = self.chosen[key]
            if len(tried) > 1 and isinstance(value, str):
                found[f"chosen/{key}_{value}"] = 1.0
            elif len(tried) > 1:
                found[f"chosen/{key}"] = float(value)
        return found
