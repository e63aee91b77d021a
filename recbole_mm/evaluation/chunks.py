"""The rows of an evaluation in chunks: sessions of like length together, columns cut, few scores.

Sessions of three items need no twenty columns, and scores that stay near the processor are counted
several times faster than those of all rows at once. So rows are taken by length, the longest
first, as many as make a few million scores, and the columns behind the chunk's longest session are
cut off for models that ignore padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_mm import stock
from recbole_mm.data.batches import cut_to_longest

if TYPE_CHECKING:
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.model.abstract_recommender import AbstractRecommender

Rows = NDArray[np.int64]

# Scores held at once: 20 MB, which stays near the processor; 512 MB on another device.
_CELLS, _CELLS_ON_DEVICE = 5_000_000, 128_000_000
# With fewer rows at once a product with the item table is bound by reading that table.
_FEWEST = 32
# With more, an encoder works outside of the processor's caches, on more padding.
_MOST = 512


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


def chunks(
    model: AbstractRecommender, loader: FullSortEvalDataLoader, rows: Rows | None = None
) -> Iterator[Chunk]:
    """Yield rows of a part, of like length together, the longest first.

    Parameters
    ----------
    model
        Who will score them. Columns of padding are cut off if it ignores them, see
        `recbole_mm.stock.ignores_padding`.
    loader
        RecBole's full-ranking loader, one target per row. Of its configuration is read
        ``eval_batch_size``, the largest number of rows at once.
    rows
        Numbers of the rows, in the order of the loader; all of them by default.
    """
    config, part = loader.config, loader.dataset
    device, lengths = torch.device(config["device"]), config["ITEM_LIST_LENGTH_FIELD"]
    rows = np.arange(len(part)) if rows is None else rows
    order = np.argsort(-part.inter_feat[lengths].numpy()[rows], kind="stable")
    names = part.inter_feat.columns if stock.ignores_padding(type(model)) else ()
    sequences = [name for name in names if name.endswith(config["LIST_SUFFIX"])]
    size = rows_at_once(part.item_num, device, int(config["eval_batch_size"]))
    for start in range(0, len(rows), size):
        where = order[start : start + size]
        found = part[torch.from_numpy(rows[where])]
        if sequences:
            found = cut_to_longest(found, sequences, lengths)
        found = loader.transform(part, found)
        yield Chunk(where, found.to(device), found[config["ITEM_ID_FIELD"]])
