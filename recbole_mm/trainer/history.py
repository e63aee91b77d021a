"""What is noted of each epoch of a training."""

from __future__ import annotations

from typing import TypedDict

from recbole_mm.evaluation.parts import PartMetrics


class _Every(TypedDict):
    """What every epoch has."""

    epoch: int
    loss: dict[str, float]


class EpochRecord(_Every, total=False):
    """One epoch, as it stands in checkpoints and under ``history`` in ``result.json``.

    ``epoch`` counts from 1; 0 is the untrained model. ``loss`` is the mean per batch, by part;
    ``valid`` and ``parts`` are there if the epoch was validated. The rest is AlterRec's: the branch
    that was trained, and how. A trainer of yours may add plain values of its own.
    """

    valid: dict[str, float]
    parts: PartMetrics
    branch: str
    negatives: str
    learning_rate: float
