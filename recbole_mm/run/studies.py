"""What every run looks into once after training, with the best weights, besides its metrics.

A new study is one more call in :func:`after_training`. It may return entries of ``result.json`` and
write files into the run folder.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_mm.errors import TrainingError
from recbole_mm.evaluation.parts import part_metrics, variant_metrics
from recbole_mm.evaluation.ranking import from_ranks
from recbole_mm.run.cases import write_cases
from recbole_mm.run.curves import write_curves

if TYPE_CHECKING:
    from recbole_mm.run.prepared import Prepared
    from recbole_mm.trainer.base import MMTrainerMixin

logger = logging.getLogger(__name__)


def after_training(prepared: Prepared, trainer: MMTrainerMixin, folder: Path) -> dict[str, Any]:
    """Make all studies and return their entries of ``result.json``.

    Parameters
    ----------
    prepared
        What was trained on what. The model holds the weights that were best on validation.
    trainer
        The trainer after the test; its time for studies is counted in ``seconds["studies"]``.
    folder
        The run folder.

    Raises
    ------
    TrainingError
        What the model's hooks return is of no use.
    """
    start = time.perf_counter()
    found = {**scores_apart(prepared), "diagnostics": diagnostics(prepared)}
    write_curves(trainer.history, folder, prepared.config["valid_metric"].lower())
    write_cases(prepared, folder)
    passed = time.perf_counter() - start
    trainer.seconds["studies"] = trainer.seconds.get("studies", 0.0) + passed
    return {name: value for name, value in found.items() if value}


def scores_apart(prepared: Prepared) -> dict[str, Any]:
    """Return ``parts`` and ``variants`` of the score on validation and test, as far as there are.

    ``part_metrics: none`` leaves both out.
    """
    config, model = prepared.config, prepared.model
    loaders = {"valid": prepared.valid, "test": prepared.test}
    if config["part_metrics"] == "none":
        return {}
    topk, metrics = config["topk"], from_ranks(config["metrics"])
    found: dict[str, Any] = {}
    for name, compute in (("parts", part_metrics), ("variants", variant_metrics)):
        computed = {part: compute(model, loader, topk, metrics) for part, loader in loaders.items()}
        found[name] = computed if all(computed.values()) else {}
    return found


def diagnostics(prepared: Prepared) -> dict[str, float]:
    """Return what the model's own ``diagnostics(train_data, valid_data)`` says.

    Numbers by name; those that are not finite are left out with a warning. Test data are not handed
    over, so that nobody can tune on them.

    Raises
    ------
    TrainingError
        The hook does not return a dictionary.
    """
    hook = getattr(prepared.model, "diagnostics", None)
    if not callable(hook):
        return {}
    prepared.model.eval()
    found = hook(prepared.train, prepared.valid)
    if not isinstance(found, Mapping):
        raise TrainingError(
            f"{type(prepared.model).__name__}.diagnostics returned a {type(found).__name__}, "
            "expected a dictionary of numbers by name."
        )
    numbers = {str(name): float(value) for name, value in found.items()}
    if bad := [name for name, value in numbers.items() if not math.isfinite(value)]:
        logger.warning("diagnostics that are not finite are left out: %s", ", ".join(bad))
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
