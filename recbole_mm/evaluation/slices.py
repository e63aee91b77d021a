"""Metrics of parts of the test rows: cold, rare and popular targets, short and long histories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recbole_mm.evaluation.ranking import metrics_from_ranks

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset

# Upper ends of the groups by number of history items, which is the length of the session before the
# target, too, as far as MAX_ITEM_LIST_LENGTH lets it in.
HISTORY = (1, 2, 5)
# Upper ends of the groups by clicks on the target in training (AlterRec's figure 6 has the first).
POPULARITY = (30, 60, 90)
Slices = dict[str, dict[str, dict[str, float]]]


def target_groups(target_counts: np.ndarray) -> dict[str, np.ndarray]:
    """Divide rows into those with a target ``seen`` in training and ``cold`` ones.

    ``target_counts`` is ``(n,)``: how often the target of each row occurs in training.
    """
    cold = np.asarray(target_counts) == 0
    return {"seen": ~cold, "cold": cold}


def popularity_groups(
    target_counts: np.ndarray, bounds: Sequence[int] = POPULARITY
) -> dict[str, np.ndarray]:
    """Divide rows by how often their target was clicked in training.

    Parameters
    ----------
    target_counts
        ``(n,)`` clicks on the target of each row in the training sessions. Every click counts
        once, not once per prefix that holds it: prefixes repeat the early clicks of a session.
    bounds
        Upper ends of the groups, from 1, in any order.

    Returns
    -------
    dict
        Masks ``(n,)``; for ``[30, 60]`` they are called ``0``, ``1-30``, ``31-60`` and ``>60``.
    """
    counts = np.asarray(target_counts)
    last = max(bounds, default=0)
    return {"0": counts == 0, **_between(counts, bounds), f">{last}": counts > last}


def history_groups(lengths: np.ndarray, bounds: Sequence[int] = HISTORY) -> dict[str, np.ndarray]:
    """Divide rows by the number of items the model was given.

    Parameters
    ----------
    lengths
        ``(n,)`` items of the history of each row, at least 1.
    bounds
        Upper ends of the groups, from 1, in any order.

    Returns
    -------
    dict
        Masks ``(n,)``; for ``[1, 5]`` they are called ``1``, ``2-5`` and ``6+``.
    """
    lengths = np.asarray(lengths)
    last = max(bounds, default=0)
    return {**_between(lengths, bounds), f"{last + 1}+": lengths > last}


def _between(values: np.ndarray, bounds: Sequence[int]) -> dict[str, np.ndarray]:
    """Divide the values from 1 up to the last bound."""
    ends = [0, *sorted(set(bounds))]
    return {
        str(end) if end == below + 1 else f"{below + 1}-{end}": (below < values) & (values <= end)
        for below, end in zip(ends[:-1], ends[1:], strict=True)
    }


def group_metrics(
    ranks: np.ndarray,
    groups: Mapping[str, np.ndarray],
    topk: Iterable[int],
    metrics: Iterable[str],
    sessions: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """Compute the metrics of each group of rows, with its number of rows ``n``.

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
    sessions
        ``(n,)`` session of each row; if given, the number of ``sessions`` is added to each group.
    """
    topk, metrics = list(topk), list(metrics)
    result: dict[str, dict[str, float]] = {}
    for name, mask in groups.items():
        sizes = {"n": int(mask.sum())}
        if sessions is not None:
            sizes["sessions"] = len(np.unique(sessions[mask]))
        found = metrics_from_ranks(ranks[mask], topk, metrics) if mask.any() else {}
        result[name] = {**sizes, **found}
    return result


def slice_metrics(
    ranks: np.ndarray,
    dataset: SessionDataset,
    topk: Iterable[int],
    metrics: Iterable[str],
    part: str = "test",
    popularity: Sequence[int] = POPULARITY,
    history: Sequence[int] = HISTORY,
) -> Slices:
    """Compute the metrics of every division of a part's rows.

    ``popularity`` and ``history`` are the ends of the groups of these divisions.

    Returns
    -------
    dict
        ``{"target": {"seen": {...}, "cold": {...}}, "popularity": {"0": ..., "1-30": ..., ...},
        "history": {"1": ..., "2": ..., "3-5": ..., "6+": ...}}``, each with ``n`` and the metrics;
        also with ``sessions`` where a session has several rows.
    """
    topk, metrics = list(topk), list(metrics)
    rows = dataset.rows(part)
    counts = dataset.train_counts[rows.target]
    divisions = {
        "target": target_groups(counts),
        "popularity": popularity_groups(counts, popularity),
        "history": history_groups(rows.length, history),
    }
    several = len(np.unique(rows.session)) < len(rows.session)
    sessions = rows.session if several else None
    return {
        name: group_metrics(ranks, groups, topk, metrics, sessions)
        for name, groups in divisions.items()
    }
