"""Metrics of parts of the test rows: cold and seen targets, short and long histories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from recbole_mm.evaluation.ranking import metrics_from_ranks

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset

# Number of history items, from and up to.
HISTORY = {"1": (1, 1), "2": (2, 2), "3-5": (3, 5), "6+": (6, np.inf)}
Slices = dict[str, dict[str, dict[str, float]]]


def target_groups(target_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Divide rows into those with a target ``seen`` in training and ``cold`` ones.

    ``target_counts`` is ``(n,)``: how often the target of each row occurs in training.
    """
    cold = np.asarray(target_counts) == 0
    return {"seen": ~cold, "cold": cold}


def history_groups(lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Divide rows by the number of items the model was given, ``lengths`` ``(n,)``."""
    lengths = np.asarray(lengths)
    return {name: (low <= lengths) & (lengths <= high) for name, (low, high) in HISTORY.items()}


def group_metrics(
    ranks: np.ndarray,
    groups: Mapping[str, np.ndarray],
    topk: Iterable[int],
    metrics: Iterable[str],
) -> dict[str, dict[str, float]]:
    """Compute the metrics of each group of rows, with its size ``n``.

    The groups of a division hold each row once, so that the mean of their metrics weighted by
    ``n`` is the metric of all rows. A group without rows has ``n`` only.

    Parameters
    ----------
    ranks
        ``(n,)`` rank of the target of each row.
    groups
        Masks ``(n,)`` by name.
    topk, metrics
        As in :func:`recbole_mm.evaluation.ranking.metrics_from_ranks`.
    """
    topk, metrics = list(topk), list(metrics)
    result: dict[str, dict[str, float]] = {}
    for name, mask in groups.items():
        found = metrics_from_ranks(ranks[mask], topk, metrics) if mask.any() else {}
        result[name] = {"n": int(mask.sum()), **found}
    return result


def slice_metrics(
    ranks: np.ndarray,
    dataset: SessionDataset,
    topk: Iterable[int],
    metrics: Iterable[str],
    part: str = "test",
) -> Slices:
    """Compute the metrics of every division of a part's rows.

    Returns
    -------
    dict
        ``{"target": {"seen": {...}, "cold": {...}}, "history": {"1": ..., "2": ..., "3-5": ...,
        "6+": ...}}``, each with ``n`` and the metrics.
    """
    topk, metrics = list(topk), list(metrics)
    rows = dataset.rows(part)
    divisions = {
        "target": target_groups(dataset.train_counts[rows.target]),
        "history": history_groups(rows.length),
    }
    return {name: group_metrics(ranks, groups, topk, metrics) for name, groups in divisions.items()}
