"""The rows of an evaluation in chunks: sessions of like length together, columns cut, few scores.

Sessions of three items need no twenty columns, and scores that stay near the processor are counted
several times faster than those of all rows at once. So rows are taken by length, the longest
first, as many as make a few million scores, and the columns behind the chunk's longest session are
cut off where that changes no score.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction
from torch import Tensor

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.dataloader import FullSortEvalDataLoader

logger = logging.getLogger(__name__)

Rows = NDArray[np.int64]
Score = Callable[[Interaction], Tensor]

# Scores held at once: 20 MB, which stays near the processor; 512 MB on another device.
_CELLS, _CELLS_ON_DEVICE = 5_000_000, 128_000_000
# With fewer rows at once a product with the item table is bound by reading that table.
_FEWEST = 32
# With more, an encoder works outside of the processor's caches, on more padding.
_MOST = 512
# Of the shortest and of the middle rows that many are scored twice, to see whether cutting is safe.
_PROBED = 16


class Chunk(NamedTuple):
    """Some rows of a part, ready to be scored.

    Attributes
    ----------
    where
        ``(B,)`` their places among the rows that were asked for.
    interaction
        The rows, on the model's device.
    items
        ``(B,)`` the target of each, on the CPU.
    """

    where: Rows
    interaction: Interaction
    items: Tensor


def rows_at_once(n_items: int, device: torch.device, most: int) -> int:
    """Return how many rows are scored at once over ``n_items``: ``most`` or fewer, one at least."""
    if device.type == "cpu":
        return max(1, min(most, _MOST, max(_FEWEST, _CELLS // n_items)))
    return max(1, min(most, max(_FEWEST, _CELLS_ON_DEVICE // n_items)))


def chunk_count(loader: FullSortEvalDataLoader, rows: int) -> int:
    """Return the number of chunks of so many rows."""
    return -(-rows // _size(loader))


def chunks(
    loader: FullSortEvalDataLoader, score: Score, rows: Rows | None = None
) -> Iterator[Chunk]:
    """Yield rows of a part, of like length together, the longest first.

    Parameters
    ----------
    loader
        RecBole's full-ranking loader, one target per row. Of its configuration is read
        ``eval_batch_size``, the largest number of rows at once.
    score
        Scores of some rows, ``(B, n_items)``. It is asked twice for a few of them: columns are cut
        only if that changes no score beyond rounding. A model that needs its full width, or draws
        at random, keeps it.
    rows
        Numbers of the rows, in the order of the loader; all of them by default.
    """
    rows = np.arange(len(loader.dataset)) if rows is None else rows
    config = loader.config
    lengths = loader.dataset.inter_feat[config["ITEM_LIST_LENGTH_FIELD"]].numpy()[rows]
    order = np.argsort(-lengths, kind="stable")
    cut = _cutting_is_safe(loader, score, rows[order])
    size = _size(loader)
    for start in range(0, len(rows), size):
        where = order[start : start + size]
        interaction = _batch(loader, rows[where])
        items = interaction[config["ITEM_ID_FIELD"]]
        if cut:
            interaction = without_padding(interaction, config)
        yield Chunk(where, interaction.to(config["device"]), items)


def without_padding(interaction: Interaction, config: Config) -> Interaction:
    """Return rows without the columns behind the longest of their histories."""
    longest = int(interaction[config["ITEM_LIST_LENGTH_FIELD"]].max())
    columns = {
        name: value[:, :longest].contiguous() if name.endswith(config["LIST_SUFFIX"]) else value
        for name, value in interaction.interaction.items()
    }
    return Interaction(columns)


def _size(loader: FullSortEvalDataLoader) -> int:
    config = loader.config
    device, most = torch.device(config["device"]), int(config["eval_batch_size"])
    return rows_at_once(loader.dataset.item_num, device, most)


def _batch(loader: FullSortEvalDataLoader, rows: Rows) -> Interaction:
    """Return rows as the loader gives them, transformed where the configuration wants it."""
    interaction: Interaction = loader.collate_fn(rows)[0]
    return interaction


def _cutting_is_safe(loader: FullSortEvalDataLoader, score: Score, rows: Rows) -> bool:
    """Return whether rows, sorted by length, are scored alike with and without their padding."""
    config = loader.config
    middle = max(0, len(rows) // 2 - _PROBED // 2)
    for probed in (rows[-_PROBED:], rows[middle : middle + _PROBED]):
        if not len(probed):
            return False
        whole = _batch(loader, probed)
        narrow = without_padding(whole, config)
        expected = score(whole.to(config["device"])).clone()
        try:
            found = score(narrow.to(config["device"]))
        except Exception as error:  # Whatever a model of any origin says to another width.
            logger.debug("rows are scored at their full width: %s", error)
            return False
        if found.shape != expected.shape or not _alike(found, expected):
            logger.debug("rows are scored at their full width: padding changes the scores")
            return False
    return True


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Return whether scores of items differ by rounding alone; -inf is equal to itself."""
    found, expected = found[:, 1:], expected[:, 1:]
    finite = expected[torch.isfinite(expected)]
    scale = float(finite.abs().max()) if len(finite) else 0.0
    rounding = 100 * torch.finfo(expected.dtype).eps * scale
    return torch.allclose(found, expected, rtol=0.0, atol=rounding)
