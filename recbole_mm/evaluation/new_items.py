"""Rows that a model learned by item id, of items that training never held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recbole_mm.evaluation.chunks import chunks
from recbole_mm.evaluation.masking import mask_history
from recbole_mm.evaluation.ranking import target_ranks

if TYPE_CHECKING:
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.model.abstract_recommender import AbstractRecommender

    from recbole_mm.data.features import ItemFeatures

POLICIES = ("neighbours", "zero")
# Known items whose mean stands for a new one.
NEIGHBOURS = 10
# Rows of cosines that are held at once.
_CELLS = 20_000_000


def nearest_known(
    features: ItemFeatures | None,
    clicks: np.ndarray,
    first: int | np.ndarray,
    policy: str = "neighbours",
) -> Tensor:
    """Return the trained items nearest to new ones by content, ``(M, H)`` with 0 for none.

    Parameters
    ----------
    features
        Vectors of all items. Of several modalities the first in which both items have a vector
        counts; text is tried first.
    clicks
        ``(N,)``: how often an item occurs in training; those that do may be neighbours.
    first
        Number of the first new item, all behind it being new; or the numbers of the new items.
    policy
        With ``zero`` no item has a neighbour.
    """
    new = np.arange(first, len(clicks)) if isinstance(first, int) else first
    near = torch.zeros(len(new), NEIGHBOURS, dtype=torch.long)
    if features is None or policy == "zero":
        return near
    names = sorted(features.tables, key=lambda name: name != "text")
    trained = torch.from_numpy(np.asarray(clicks) > 0)
    for name in names:
        lacking = torch.nonzero(near[:, 0] == 0)[:, 0]
        mask = features.mask(name)
        rows = lacking[mask[torch.from_numpy(new)][lacking]]
        candidates = torch.nonzero(mask & trained)[:, 0]
        if len(rows) and len(candidates):
            near[rows] = _nearest(features.table(name), torch.from_numpy(new)[rows], candidates)
    return near


def _nearest(table: Tensor, rows: Tensor, candidates: Tensor) -> Tensor:
    """Return the candidates of the largest cosines, ``(M, H)`` filled up with 0."""
    unit = F.normalize(table.float(), dim=1)
    count = min(NEIGHBOURS, len(candidates))
    found = torch.zeros(len(rows), NEIGHBOURS, dtype=torch.long)
    size = max(1, _CELLS // len(candidates))
    for start in range(0, len(rows), size):
        cosines = unit[rows[start : start + size]] @ unit[candidates].T
        found[start : start + size, :count] = candidates[cosines.topk(count, dim=1).indices]
    return found


def filled_rows(table: Tensor, before: int, near: Tensor) -> Tensor:
    """Return a table with rows for new items behind those of the known ones.

    Parameters
    ----------
    table
        ``(N + e, ...)``; the last ``e`` rows are no items (a mask) and stay last.
    before
        ``N``.
    near
        Neighbours ``(M, H)`` of the new items.
    """
    return torch.cat([table[:before], means(table, near), table[before:]])


def means(table: Tensor, near: Tensor) -> Tensor:
    """Return the mean row of each item's neighbours, zeros where it has none."""
    near = near.to(table.device)
    there = (near > 0).to(table.dtype)
    rows = table[near].flatten(2) if table.ndim > 1 else table[near].unsqueeze(2)
    total = (rows * there.unsqueeze(2)).sum(dim=1) / there.sum(dim=1, keepdim=True).clamp(min=1)
    return total.view(len(near), *table.shape[1:])


@torch.no_grad()
def ranks_among(
    model: AbstractRecommender, loader: FullSortEvalDataLoader, held: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the rank of each row's target among some items alone.

    Parameters
    ----------
    model
        The model.
    loader
        RecBole's full-ranking loader.
    held
        bool ``(N,)``: the candidates. Rows whose target is none of them are left out.

    Returns
    -------
    numpy.ndarray
        int64 ``(n,)``, in the order of the rows.
    """
    model.eval()
    device = torch.device(loader.config["device"])
    others = torch.from_numpy(~held).to(device)
    targets = loader.dataset.inter_feat[loader.config["ITEM_ID_FIELD"]].numpy()
    rows = np.flatnonzero(held[targets])
    ranks = np.empty(len(rows), dtype=np.int64)
    for where, interaction, items in chunks(model, loader, rows):
        scores = model.full_sort_predict(interaction).view(len(interaction), -1)
        ranked = mask_history(scores, interaction, items, loader.config)
        ranks[where], _ = target_ranks(ranked.masked_fill(others, -torch.inf), items)
    return ranks


@torch.no_grad()
def fill_unseen(model: nn.Module, n_items: int, new: np.ndarray, near: Tensor) -> list[str]:
    """Fill the rows of items that training never held, in every table that is learned by item id.

    Such a table is a parameter with a row per item, and one more at most (a mask).

    Parameters
    ----------
    model
        The trained model.
    n_items
        ``N``, padding included.
    new
        Numbers ``(M,)`` of the items.
    near
        Their neighbours ``(M, H)``.

    Returns
    -------
    list of str
        Names of the tables that were filled.
    """
    names = []
    for name, weight in model.named_parameters():
        if weight.ndim and len(weight) in (n_items, n_items + 1):
            weight[torch.from_numpy(new).to(weight.device)] = means(weight, near)
            names.append(name)
    # Models that keep tables of items while they evaluate forget them here.
    model.train()
    model.eval()
    return names
