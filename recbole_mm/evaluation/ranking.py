"""Ranks of targets by counting, and the metrics that follow from them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from recbole_mm.errors import ConfigError


def target_ranks(scores: Tensor, rows: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    r"""Rank targets among all items by counting, without sorting.

    With :math:`g` items of a greater and :math:`e` other items of an equal score, the tied items
    hold the positions :math:`g+1 \dots g+1+e`; each gets their mean, rounded up:

    .. math:: rank = 1 + g + \lceil e / 2 \rceil

    So a model that gives every item the same score ranks its targets in the middle, not first.

    Parameters
    ----------
    scores
        ``(B, n_items)``; column 0 is padding and never counts.
    rows, items
        ``(T,)`` row and item id of each target.

    Returns
    -------
    tuple
        Ranks ``(T,)``, from 1, and the number of equal scores ``(T,)``, as int64 on the CPU.
    """
    rows, items = rows.to(scores.device), items.to(scores.device)
    one_each = len(rows) == len(scores) and bool((rows[1:] == rows[:-1] + 1).all())
    candidates = (scores if one_each else scores[rows])[:, 1:]
    target = scores[rows, items].unsqueeze(1)
    greater = (candidates > target).sum(dim=1)
    equal = (candidates == target).sum(dim=1) - 1
    return (1 + greater + (equal + 1) // 2).cpu(), equal.cpu()


class RankCollector:
    """Gathers the ranks of an evaluation batch by batch."""

    def __init__(self) -> None:
        self._ranks: list[Tensor] = []
        self._equal: list[Tensor] = []

    @property
    def batches(self) -> int:
        """Number of batches added so far."""
        return len(self._ranks)

    def add(self, scores: Tensor, rows: Tensor, items: Tensor) -> None:
        """Add a batch; see :func:`target_ranks`."""
        ranks, equal = target_ranks(scores, rows, items)
        self._ranks.append(ranks)
        self._equal.append(equal)

    def ranks(self) -> np.ndarray:
        """Return the ranks of all targets in the order they came, int64 ``(T,)``."""
        return torch.cat(self._ranks).numpy() if self._ranks else np.empty(0, dtype=np.int64)

    def tied(self) -> int:
        """Return how many targets share their score with another item."""
        return sum(int((equal > 0).sum()) for equal in self._equal)


# Metrics that follow from the rank of a row's one target.
_FROM_RANKS = ("hit", "recall", "precision", "mrr", "ndcg")


def from_ranks(metrics: Iterable[str]) -> list[str]:
    """Return those of RecBole's metrics that follow from ranks; coverage and the like do not."""
    return [metric for metric in metrics if metric.lower() in _FROM_RANKS]


def gains(ranks: np.ndarray, metric: str, cut: int) -> np.ndarray:
    r"""Return what each row with one target contributes to a metric, ``(n,)``.

    With :math:`[\cdot]` 1 if true: Hit@K and Recall@K are the mean of :math:`[rank \le K]`,
    Precision@K that divided by :math:`K`, MRR@K the mean of :math:`[rank \le K] / rank` and
    NDCG@K the mean of :math:`[rank \le K] / \log_2(rank + 1)`.

    Raises
    ------
    ConfigError
        Unknown metric, or a cut-off below 1.
    """
    if cut < 1:
        raise ConfigError(f"topk must hold whole numbers from 1, got {cut}.")
    ranks = np.asarray(ranks, dtype=np.float64)
    within = ranks <= cut
    known = {
        "hit": within.astype(np.float64),
        "recall": within.astype(np.float64),
        "precision": within / cut,
        "mrr": within / ranks,
        "ndcg": within / np.log2(ranks + 1),
    }
    if metric.lower() not in known:
        raise ConfigError(f"unknown metric {metric!r}; known from ranks: {', '.join(known)}.")
    return known[metric.lower()]


def metrics_from_ranks(
    ranks: np.ndarray, topk: Iterable[int], metrics: Iterable[str]
) -> dict[str, float]:
    """Compute metrics for rows with one target each, equal to RecBole's where no scores tie.

    Parameters
    ----------
    ranks
        ``(n,)``, from 1.
    topk
        Cut-offs.
    metrics
        Hit, MRR, NDCG, Recall or Precision, in any case; see :func:`gains`.

    Returns
    -------
    dict
        Values by ``name@k``, in RecBole's order; ``nan`` if there are no rows.

    Raises
    ------
    ConfigError
        Unknown metric, or a cut-off below 1.
    """
    cuts = list(topk)
    result = {}
    for metric in metrics:
        for cut in cuts:
            values = gains(ranks, metric, cut)
            result[f"{metric.lower()}@{cut}"] = float(values.mean()) if len(values) else np.nan
    return result
