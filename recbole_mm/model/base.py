"""What the package's sequential models share: features, cached item tables, prediction."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_mm.errors import FeatureError
from recbole_mm.model.chunked import mean_softmax_ce
from recbole_mm.model.settings import ModelSettings

if TYPE_CHECKING:
    from recbole_mm.data.features import ItemFeatures
    from recbole_mm.data.session_dataset import SessionDataset


class MMSequentialRecommender(SequentialRecommender, ABC):
    """A sequential recommender that scores ``encode(session) . candidates^T``.

    A subclass gives `item_tables` (all that depends on items alone, with the key ``"candidates"``)
    and `encode` (a batch's query vectors). Evaluation computes the tables once; they are dropped as
    soon as the model is trained, moved, or given other weights.

    Attributes
    ----------
    Settings
        Class of the settings; a model that reads ``config["key"]`` itself needs none.
    settings
        What it says, read from the configuration.
    features
        The data set's item features, or None.
    loss_names
        Names of the parts that `calculate_loss` returns.
    ignores_padding
        True as long as a session's columns are read through `inputs`: batches may then come
        without the columns behind their longest session. ``check_model`` sees whether it holds.
    loss_by_rows
        True if the loss is a mean over rows that draws at random for each, so that batches may be
        shared out among processes; without it the trainer tries whether they may.
    leaky
        True if the model was shown validation or test items; results carry this mark.
    """

    Settings: ClassVar[type[ModelSettings]] = ModelSettings
    settings: ModelSettings
    loss_names: tuple[str, ...] = ("main",)
    ignores_padding: ClassVar[bool] = True
    loss_by_rows: ClassVar[bool] = False
    leaky: bool = False

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        self.settings = self.Settings.of(config)
        self.features: ItemFeatures | None = dataset.item_features
        self._feature_hint = (str(config["dataset"]), type(self).__name__)
        self._cached: Mapping[str, Tensor] | None = None

    @abstractmethod
    def item_tables(self) -> Mapping[str, Tensor]:
        """Return what depends on items alone; ``"candidates"`` is ``(n_items, D)``."""

    @abstractmethod
    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return query vectors ``(B, D)`` of sessions ``(B, T)`` with lengths ``(B,)``."""

    def feature(self, modality: str) -> tuple[Tensor, Tensor]:
        """Return a modality's features ``(n_items, d)`` and mask ``(n_items,)``.

        Raises
        ------
        FeatureError
            If the data set carries no such features.
        """
        have = [] if self.features is None else sorted(self.features.tables)
        if self.features is None or modality not in have:
            dataset, model = self._feature_hint
            raise FeatureError(
                f"{model} needs {modality} features of {dataset}, and found "
                f"{', '.join(have) or 'none'}. Make them with "
                f"'python -m recbole_mm encode --dataset={dataset} --modality={modality}'"
            )
        return self.features.table(modality), self.features.mask(modality)

    def current_tables(self) -> Mapping[str, Tensor]:
        """Return the item tables, from the cache while evaluating without gradients."""
        if self.training or torch.is_grad_enabled():
            return self.item_tables()
        if self._cached is None:
            self._cached = self.item_tables()
        return self._cached

    def inputs(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """Return item ids ``(B, T)`` and lengths ``(B,)``, cut to the longest row of the batch."""
        lengths = interaction[self.ITEM_SEQ_LEN]
        longest = max(int(lengths.max()), 1)
        return interaction[self.ITEM_SEQ][:, :longest], lengths

    def full_precision(self) -> AbstractContextManager[object]:
        """Switch mixed precision off: sparse products and summed propagation need float32."""
        return torch.autocast(device_type=torch.device(self.device).type, enabled=False)

    def predict(self, interaction: Interaction) -> Tensor:
        """Return the score of each row's ``item_id``, ``(B,)``."""
        item = interaction[self.ITEM_ID]
        with self.full_precision():
            query, candidates = self._match(interaction)
            scores = (query * candidates[item]).sum(dim=1)
        return scores.masked_fill(item == 0, -math.inf)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Return the scores of all items ``(B, n_items)``; padding has ``-inf``."""
        with self.full_precision():
            query, candidates = self._match(interaction)
            scores = query @ candidates.T
        scores[:, 0] = -math.inf
        return scores

    def _match(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """Return query vectors ``(B, D)`` and candidates ``(n_items, D)``."""
        tables = self.current_tables()
        return self.encode(*self.inputs(interaction), tables), tables["candidates"]

    def softmax_loss(self, interaction: Interaction, own_items: str) -> Tensor:
        """Return the mean softmax cross-entropy of ``query . candidates`` over all items.

        Parameters
        ----------
        interaction
            Sessions and their targets.
        own_items
            The setting ``train_own_items``: ``"mask"`` strikes a session's own items out.
        """
        with self.full_precision():
            query, candidates = self._match(interaction)
            struck = self.inputs(interaction)[0] if own_items == "mask" else None
            return mean_softmax_ce(query, candidates, interaction[self.ITEM_ID], struck)

    def drop_caches(self) -> None:
        """Forget what was computed from weights that are now others, or elsewhere.

        A subclass that keeps more than the item tables extends it. Training changes weights as
        well, but not always all: `train` drops the item tables alone.
        """
        self._cached = None

    def train(self, mode: bool = True) -> MMSequentialRecommender:
        """Switch between training and evaluation; drops the cached item tables."""
        self._cached = None
        super().train(mode)
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Load weights; drops all caches."""
        self.drop_caches()
        return super().load_state_dict(state_dict, *args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move or cast the model; drops all caches."""
        self.drop_caches()
        return super()._apply(*args, **kwargs)
