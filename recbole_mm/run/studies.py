"""What every run looks into once after training, with the best weights, besides its metrics.

A new study is one more call in :func:`after_training`. It may add an entry to ``result.json``
(:class:`~recbole_mm.run.record.Studies`) and write files into the run folder.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_mm.errors import TrainingError
from recbole_mm.evaluation.hooks import HasDiagnostics
from recbole_mm.evaluation.parts import PartMetrics, part_metrics, variant_metrics
from recbole_mm.evaluation.ranking import from_ranks
from recbole_mm.run.cases import write_cases
from recbole_mm.run.curves import write_curves
from recbole_mm.run.record import Studies

if TYPE_CHECKING:
    from recbole_mm.run.prepared import Prepared
    from recbole_mm.trainer.base import MMTrainerMixin

logger = logging.getLogger(__name__)


def after_training(prepared: Prepared, trainer: MMTrainerMixin, folder: Path) -> Studies:
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
    found = scores_apart(prepared)
    if numbers := diagnostics(prepared):
        found["diagnostics"] = numbers
    config = prepared.config
    write_curves(
        trainer.history, folder, config["valid_metric"].lower(),
        f"{config['model']} on {config['dataset']}", trainer.best_epoch + 1,
    )  # fmt: skip
    write_cases(prepared, folder)
    passed = time.perf_counter() - start
    trainer.seconds["studies"] = trainer.seconds.get("studies", 0.0) + passed
    return found


def scores_apart(prepared: Prepared) -> Studies:
    """Return ``parts`` and ``variants`` of the score on validation and test, as far as there are.

    ``part_metrics: none`` leaves both out.
    """
    found: Studies = {}
    if prepared.config["part_metrics"] == "none":
        return found
    if parts := _of_both(prepared, part_metrics):
        found["parts"] = parts
    if variants := _of_both(prepared, variant_metrics):
        found["variants"] = variants
    return found


def _of_both(prepared: Prepared, compute: Callable[..., PartMetrics]) -> dict[str, PartMetrics]:
    """Compute metrics on validation and test; none if the model has none on one of them."""
    config, loaders = prepared.config, {"valid": prepared.valid, "test": prepared.test}
    topk, metrics = config["topk"], from_ranks(config["metrics"])
    found = {part: compute(prepared.model, rows, topk, metrics) for part, rows in loaders.items()}
    return found if all(found.values()) else {}


def diagnostics(prepared: Prepared) -> dict[str, float]:
    """Return what the model says about itself, see :class:`HasDiagnostics`.

    Numbers by name; those that are not finite are left out with a warning. Test data are not handed
    over, so that nobody can tune on them.

    Raises
    ------
    TrainingError
        The hook does not return a dictionary.
    """
    model = prepared.model.eval()
    # A model may keep something of its own under this name.
    if not (isinstance(model, HasDiagnostics) and callable(model.diagnostics)):
        return {}
    found: object = model.diagnostics(prepared.train, prepared.valid)
    if not isinstance(found, Mapping):
        raise TrainingError(
            f"{type(model).__name__}.diagnostics returned a {type(found).__name__}, "
            "expected a dictionary of numbers by name."
        )
    numbers = {str(name): float(value) for name, value in found.items()}
    if bad := [name for name, value in numbers.items() if not math.isfinite(value)]:
        logger.warning("diagnostics that are not finite are left out: %s", ", ".join(bad))
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
