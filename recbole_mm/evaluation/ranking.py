"""Ranks of targets by counting, and the metrics that follow from them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_mm.errors import ConfigError


def target_ranks(scores: Tensor, items: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    r"""Rank each row's target among all items by counting, without sorting.

    With :math:`g` items of a greater and :math:`e` other items of an equal score, the tied items
    hold the positions :math:`g+1 \dots g+1+e`; each gets their mean, rounded up:

    .. math:: rank = 1 + g + \lceil e / 2 \rceil

    So a model that gives every item the same score ranks its targets in the middle, not first, and
    neither names nor numbers of items matter. All metrics are made of these ranks.

    Parameters
    ----------
    scores
        ``(B, n_items)``; column 0 is padding and never counts.
    items
        ``(B,)`` item id of the target of each row.

    Returns
    -------
    tuple
        Ranks ``(B,)``, from 1, and how many other items have the target's score ``(B,)``.
    """
    target = scores.gather(1, items.to(scores.device).unsqueeze(1))
    count = _counted_rows if scores.device.type == "cpu" else _counted_table
    greater, equal = count(scores[:, 1:], target)
    return 1 + greater + equal // 2, equal - 1


def _counted_rows(scores: Tensor, target: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count greater and equal scores row by row, each of which fits the processor's cache."""
    exact = torch.float64 if scores.dtype == torch.float64 else torch.float32
    table, values = scores.to(exact).numpy(), target.to(exact).numpy()
    greater, equal = np.empty(len(table), np.int64), np.empty(len(table), np.int64)
    found = np.empty(table.shape[1], dtype=bool)
    for place, (row, value) in enumerate(zip(table, values, strict=True)):
        greater[place] = np.count_nonzero(np.greater(row, value, out=found))
        equal[place] = np.count_nonzero(np.equal(row, value, out=found))
    return greater, equal


def _counted_table(scores: Tensor, target: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count greater and equal scores of all rows at once, where the scores lie."""
    counts = torch.stack([(scores > target).sum(dim=1), (scores == target).sum(dim=1)])
    greater, equal = counts.cpu().numpy()
    return greater, equal


# Metrics that follow from the rank of a row's one target.
_FROM_RANKS = ("hit", "recall", "precision", "mrr", "map", "ndcg")


def from_ranks(metrics: Iterable[str]) -> list[str]:
    """Return those of RecBole's metrics that follow from ranks; coverage and the like do not."""
    return [metric for metric in metrics if metric.lower() in _FROM_RANKS]


def gains(ranks: np.ndarray, metric: str, cut: int) -> np.ndarray:
    r"""Return what each row with one target contributes to a metric, ``(n,)``.

    With :math:`[\cdot]` 1 if true: Hit@K and Recall@K are the mean of :math:`[rank \le K]`,
    Precision@K that divided by :math:`K`, MRR@K and MAP@K the mean of :math:`[rank \le K] / rank`
    and NDCG@K the mean of :math:`[rank \le K] / \log_2(rank + 1)`.

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
        "map": within / ranks,
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
        Hit, MRR, MAP, NDCG, Recall or Precision, in any case; see :func:`gains`.

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
