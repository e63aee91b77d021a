"""Metrics of the parts of a model's score, and of scores it could have given instead.

A model takes part by being a :class:`~recbole_mm.evaluation.hooks.HasScoreParts`, a
:class:`~recbole_mm.evaluation.hooks.HasScoreVariants`, or both.

Rows, candidates and the treatment of ties are those of the run's own metrics: every item but
padding is ranked, by counting; with `history: mask` those of the row's history are struck out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from recbole_mm.errors import TrainingError
from recbole_mm.evaluation.chunks import Rows, chunks
from recbole_mm.evaluation.hooks import HasScoreParts, HasScoreVariants
from recbole_mm.evaluation.masking import mask_history
from recbole_mm.evaluation.ranking import metrics_from_ranks, target_ranks

if TYPE_CHECKING:
    from recbole.data.dataloader import FullSortEvalDataLoader
    from recbole.data.interaction import Interaction
    from recbole.model.abstract_recommender import AbstractRecommender

# The model's own score stands beside its parts under this name.
WHOLE = "whole"
# Mean cross-entropy of the target under a softmax over all candidates, in nats.
CROSS_ENTROPY = "ce"

NamedScores = Iterable[tuple[str, Tensor]]
PartMetrics = dict[str, dict[str, float]]


def part_metrics(
    model: AbstractRecommender,
    loader: FullSortEvalDataLoader,
    topk: Iterable[int],
    metrics: Iterable[str],
) -> PartMetrics:
    """Compute the metrics of a model's whole score and of each of its parts.

    Parameters
    ----------
    model
        The model; it is left in evaluation mode.
    loader
        RecBole's full-ranking loader of validation or test rows.
    topk, metrics
        As in :func:`recbole_mm.evaluation.ranking.metrics_from_ranks`.

    Returns
    -------
    dict
        ``{"whole": {"ndcg@20": ..., "ce": ...}, "id": {...}, ...}``; empty if the model has no
        ``score_parts`` or these settings have no parts. ``ce`` is the mean cross-entropy of the
        target under a softmax over all candidates, in nats. A target that is struck out with its
        history is no candidate; its row is left out of ``ce`` alone.

    Raises
    ------
    TrainingError
        A part has another shape than ``(B, n_items)``, or a score is NaN or +inf.
    """
    if not isinstance(model, HasScoreParts):
        return {}

    def named(interaction: Interaction) -> Iterator[tuple[str, Tensor]]:
        parts = model.score_parts(interaction)
        if parts:
            yield WHOLE, model.full_sort_predict(interaction).view(len(interaction), -1)
        yield from parts.items()

    return _metrics(model, loader, named, list(topk), list(metrics))


def variant_metrics(
    model: AbstractRecommender,
    loader: FullSortEvalDataLoader,
    topk: Iterable[int],
    metrics: Iterable[str],
) -> PartMetrics:
    """Compute the metrics of each of a model's ``score_variants``; see :func:`part_metrics`."""
    if not isinstance(model, HasScoreVariants):
        return {}
    return _metrics(model, loader, model.score_variants, list(topk), list(metrics))


@torch.no_grad()
def _metrics(
    model: AbstractRecommender,
    loader: FullSortEvalDataLoader,
    named: Callable[[Interaction], NamedScores],
    topk: list[int],
    metrics: list[str],
) -> PartMetrics:
    """Go once over the loader's rows with any number of scores side by side."""
    model.eval()
    rows = len(loader.dataset)
    collected: dict[str, _Collector] = {}
    for where, interaction, items in chunks(model, loader):
        for name, scores in named(interaction):
            _check(model, name, scores, len(interaction))
            ranked = mask_history(scores, interaction, items, loader.config)
            collected.setdefault(name, _Collector(rows)).add(where, scores, ranked, items)
    return {name: found.metrics(topk, metrics) for name, found in collected.items()}


def _check(model: AbstractRecommender, name: str, scores: Tensor, rows: int) -> None:
    shape = (rows, model.n_items)
    if tuple(scores.shape) != shape:
        fault = f"shape {tuple(scores.shape)}, expected {shape}"
    elif not bool(scores[:, 1:].max() < torch.inf):  # True for NaN, too; padding never counts
        fault = "NaN or infinite scores, expected finite ones (or -inf)"
    else:
        return
    raise TrainingError(
        f"{type(model).__name__}: the part '{name}' of its score has {fault}. "
        "Mend score_parts or score_variants, or leave them out with part_metrics=none."
    )


class _Collector:
    """Ranks and cross-entropies of the targets of one kind of score."""

    def __init__(self, rows: int) -> None:
        self.ranks = np.empty(rows, dtype=np.int64)
        self.losses: list[Tensor] = []

    def add(self, where: Rows, scores: Tensor, ranked: Tensor, items: Tensor) -> None:
        """Add a chunk, scored and as it is ranked ``(B, n_items)``: without the masked items."""
        self.ranks[where], _ = target_ranks(ranked, items)
        # Column 0 is padding and no candidate.
        total = torch.logsumexp(ranked[:, 1:].float(), dim=1)
        column = items.to(scores.device).unsqueeze(1)
        target = ranked.gather(1, column)[:, 0]
        candidate = target == scores.gather(1, column)[:, 0]
        self.losses.append((total - target)[candidate].double().cpu())

    def metrics(self, topk: list[int], metrics: list[str]) -> dict[str, float]:
        found = metrics_from_ranks(self.ranks, topk, metrics)
        return {**found, CROSS_ENTROPY: float(torch.cat(self.losses).mean())}
