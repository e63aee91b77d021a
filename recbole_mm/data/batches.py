"""Training batches of rows of like length, without the columns that hold nothing but padding.

Most histories are far shorter than ``MAX_ITEM_LIST_LENGTH``, but a batch drawn at random nearly
always holds a long one, and then nothing can be cut. `LengthBuckets` draws the rows of an epoch at
random, too, and then sorts them inside of pools of a few batches.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from recbole.data import data_preparation
from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.data.interaction import Interaction
from torch import Tensor
from torch.utils.data import Sampler

from recbole_mm import stock

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.sampler import AbstractSampler

    from recbole_mm.data.session_dataset import SessionDataset

logger = logging.getLogger(__name__)

# Loaders of training, validation and test rows.
Loaders = tuple[TrainDataLoader, FullSortEvalDataLoader, FullSortEvalDataLoader]


class LengthBuckets(Sampler[int]):
    """An order of rows in which each ``batch_size`` that follow each other are of like length.

    An epoch is a random permutation of the rows, cut into pools of ``pool`` batches. A pool is
    sorted by length and cut into batches, which then come in random order. What does not fill a
    batch is left unsorted and comes last, so that no row stands in a small batch for its length.

    Parameters
    ----------
    lengths
        Length of each row's history ``(n,)``.
    batch_size
        Rows per batch.
    pool
        Batches per pool.
    generator
        Source of both random orders; its state is all that the next epoch depends on.
    """

    def __init__(
        self, lengths: Tensor, batch_size: int, pool: int, generator: torch.Generator
    ) -> None:
        self.lengths, self.batch_size, self.pool = lengths, batch_size, pool
        self.generator = generator

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self), generator=self.generator)
        whole = len(order) - len(order) % self.batch_size
        for rows in torch.split(order[:whole], self.pool * self.batch_size):
            yield from self._sorted(rows).tolist()
        yield from order[whole:].tolist()

    def _sorted(self, rows: Tensor) -> Tensor:
        """Return the rows of a pool ``(p,)`` in batches by length, the batches in random order."""
        batches = rows[self.lengths[rows].argsort(stable=True)].view(-1, self.batch_size)
        return batches[torch.randperm(len(batches), generator=self.generator)].flatten()


def cut_to_longest(rows: Interaction, sequences: Sequence[str], lengths: str) -> Interaction:
    """Return the rows without the columns behind their longest history.

    Parameters
    ----------
    rows
        Rows with left-aligned sequences.
    sequences
        Fields ``(B, T)`` that are as long as the history.
    lengths
        Field of the history's length ``(B,)``.
    """
    longest = max(int(rows[lengths].max()), 1)
    cut = {name: rows[name][:, :longest] for name in sequences}
    return Interaction({**rows.interaction, **cut})


class BucketedLoader(TrainDataLoader):
    """RecBole's training loader with `LengthBuckets`, each batch cut to its longest history.

    Reads ``length_buckets``, the batches per pool; the rest is RecBole's. An epoch holds the same
    rows as RecBole's, each once.
    """

    def __init__(
        self,
        config: Config,
        dataset: SessionDataset,
        sampler: AbstractSampler | None,
        shuffle: bool = True,
    ) -> None:
        super().__init__(config, dataset, sampler, shuffle=shuffle)
        rows, suffix = dataset.inter_feat, config["LIST_SUFFIX"]
        self._lengths = dataset.item_list_length_field
        self._sequences = [name for name in rows.columns if name.endswith(suffix)]
        order: Any = LengthBuckets(
            rows[self._lengths], self.step, config["length_buckets"], self.generator
        )
        # torch closes a loader's own fields once it is made; RecBole's constructor makes it.
        self.batch_sampler.sampler = order

    def collate_fn(self, index: Sequence[int]) -> Interaction:
        """Return a batch; transforms and negatives see the cut rows, as the model does."""
        rows = cut_to_longest(self._dataset[np.array(index)], self._sequences, self._lengths)
        return self._neg_sampling(self.transform(self._dataset, rows))


def loaders(config: Config, dataset: SessionDataset) -> Loaders:
    """Split a data set and return its loaders, with ``length_buckets`` above 0 in buckets.

    A model that reads a fixed number of columns keeps its batches as they are, and the log says so.
    """
    train, valid, test = data_preparation(config, dataset)
    if not config["length_buckets"]:
        return train, valid, test
    if not stock.ignores_padding(config.model_class):
        logger.info(
            "length_buckets: %s is not known to ignore columns of padding, its batches stay whole",
            config["model"],
        )
        return train, valid, test
    return BucketedLoader(config, train.dataset, train._sampler, True), valid, test
