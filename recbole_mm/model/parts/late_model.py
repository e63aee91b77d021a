"""Any sequential model with counted parts added to its score after training."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_mm.errors import ConfigError
from recbole_mm.model.counting.base import CountingRecommender
from recbole_mm.model.counting.history import History
from recbole_mm.model.counting.scores import z_scores
from recbole_mm.model.parts.counted import counted_parts
from recbole_mm.model.parts.late import Batch, Fit, Weights, summed, terms

if TYPE_CHECKING:
    from recbole.data.dataloader import AbstractDataLoader

    from recbole_mm.data.session_dataset import SessionDataset

logger = logging.getLogger(__name__)

NETWORK = "network"
OWN_ITEMS = "own_items"
# Scores per table that is held while weights are chosen; more rows are thinned out evenly.
_CELLS = 20_000_000
_ROWS = 512


class LateSum(SequentialRecommender, ABC):
    """A score summed from networks' z-scores and counted parts, with weights fitted afterwards.

    ``score(j) = sum_m a_m z(network_m)_j + sum_p b_p z(part_p)_j``, own items last or kept. Weights
    and ways to count are fitted on validation rows by `fit_late`, and are part of the checkpoint.

    Attributes
    ----------
    late
        What was fitted, as plain values; empty before.
    """

    late: dict[str, Any]

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        names = config["score_parts"]
        self.late_counted = counted_parts(dataset, names, self.n_items)
        self._late_own_items, self._late_masked = OWN_ITEMS in names, config["history"] == "mask"
        self.late = {}
        self.other_parameter_name = [*getattr(self, "other_parameter_name", ()), "late"]

    def predict(self, interaction: Interaction) -> Tensor:
        """Return the score of each row's ``item_id``, ``(B,)``."""
        item = interaction[self.ITEM_ID].unsqueeze(1)
        whole: Tensor = self.full_sort_predict(interaction)
        return whole.gather(1, item).squeeze(1)

    @abstractmethod
    def late_networks(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the scores ``(B, N)`` of each network by name."""

    def late_weights(self) -> Weights:
        """Return what was fitted."""
        return Weights.of(self.late)

    def _late_sum(self, interaction: Interaction) -> Tensor:
        """Return the sum ``(B, N)``; padding has ``-inf``."""
        whole = summed(self._late_batch(interaction), self.late_counted, self.late_weights())
        whole[:, 0] = -math.inf
        return whole

    def _late_terms(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the weighted terms of the sum ``(B, N)``; padding has ``-inf``."""
        found = dict(terms(self._late_batch(interaction), self.late_counted, self.late_weights()))
        for scores in found.values():
            scores[:, 0] = -math.inf
        return found

    def _late_batch(self, interaction: Interaction) -> Batch:
        """Return a batch with the networks' z-scores."""
        networks = {
            name: z_scores(scores.view(len(interaction), -1).float())
            for name, scores in self.late_networks(interaction).items()
        }
        item_seq = interaction[self.ITEM_SEQ]
        history = History.of(item_seq, interaction[self.ITEM_SEQ_LEN], self.n_items)
        # A batch without targets may be scored as well.
        target = interaction[self.ITEM_ID] if self.ITEM_ID in interaction else item_seq[:, 0]
        return Batch(history, item_seq, target, networks)

    @torch.no_grad()
    def fit_late(self, valid_data: AbstractDataLoader) -> None:
        """Fit the weights on validation rows by NDCG@20, with the networks as they are.

        Parameters
        ----------
        valid_data
            Loader of the validation rows; where rows and items are many, evenly spread rows serve.
        """
        self.late = {}
        batches = [self._late_batch(rows) for rows in self._late_rows(valid_data)]
        found = Fit(batches, self.late_counted, self._late_own_items, self._late_masked).weights()
        self.late = found.plain()
        told = ", ".join(f"{name} {value:g}" for name, value in found.numbers().items())
        logger.info("%s: fitted on validation: %s", type(self).__name__, told)

    def _late_rows(self, valid_data: AbstractDataLoader) -> Iterator[Interaction]:
        """Yield evenly spread validation rows in batches."""
        dataset = valid_data.dataset
        count = min(len(dataset), max(_ROWS, _CELLS // self.n_items))
        places = np.unique(np.linspace(0, len(dataset) - 1, num=count).astype(np.int64))
        for start in range(0, len(places), _ROWS):
            yield dataset[torch.from_numpy(places[start : start + _ROWS])].to(self.device)

    def diagnostics(self, train_data: Any, valid_data: Any) -> dict[str, float]:
        """Return the fitted weights, and what the network says of itself."""
        own: Mapping[str, float] = {}
        if hasattr(super(), "diagnostics"):
            own = super().diagnostics(train_data, valid_data)
        numbers = self.late_weights().numbers() if self.late else {}
        return {**{f"late/{name}": value for name, value in numbers.items()}, **own}


class LateParts(LateSum):
    """Stands before a model's class: the network trains alone, then parts are added to its score.

    Until they are fitted, and so while the network trains, the score is the network's own.
    """

    def late_networks(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the network's own scores ``(B, N)``."""
        return {NETWORK: super().full_sort_predict(interaction)}

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Return the scores of all items ``(B, N)``; padding has ``-inf``."""
        if self.late:
            return self._late_sum(interaction)
        own: Tensor = super().full_sort_predict(interaction)
        return own

    def score_parts(self, interaction: Interaction) -> Mapping[str, Tensor]:
        """Return the weighted terms of the score ``(B, N)``, and the network's own parts."""
        own: Mapping[str, Tensor] = {}
        if hasattr(super(), "score_parts"):
            own = super().score_parts(interaction)
        if not self.late:
            return own
        found = self._late_terms(interaction)
        return {**found, **{name: part for name, part in own.items() if name not in found}}


def with_late_parts(model_class: type, names: Iterable[str]) -> type:
    """Return a model's class with parts added to its score after training.

    Parameters
    ----------
    model_class
        A sequential recommender, of this package or not.
    names
        ``transitions``, ``lexical``, ``own_items``, ``unseen_items``; none returns the class as it
        is.

    Raises
    ------
    ConfigError
        The model does not read the session, or counts already.
    """
    if not list(names) or issubclass(model_class, LateSum):
        return model_class
    if issubclass(model_class, CountingRecommender):
        raise ConfigError(
            f"score_parts: {model_class.__name__} counts already; expected no parts there"
        )
    if not issubclass(model_class, SequentialRecommender):
        raise ConfigError(
            f"score_parts: {model_class.__name__} does not read the session; expected a "
            "sequential model, such as SASRec or SRIM"
        )
    own = {"__module__": model_class.__module__, "__doc__": model_class.__doc__}
    return type(model_class.__name__, (LateParts, model_class), own)
