"""The floor under a result: what counting without training reaches on the same rows.

`Counting` (docs/counting.md) is built from the run's training sessions, tuned on its validation
rows and tested on its test rows. Its ranks are kept beside the feature files under a hash of all
they are made of, so that later runs on the same rows read them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import numpy as np

from recbole_mm import key_table
from recbole_mm.config import MMConfig
from recbole_mm.errors import MMError
from recbole_mm.evaluation.new_items import ranks_among
from recbole_mm.evaluation.ranking import from_ranks, gains, metrics_from_ranks
from recbole_mm.evaluation.significance import paired_difference
from recbole_mm.evaluation.slices import Slices, slice_metrics
from recbole_mm.files import sha256_file
from recbole_mm.graph.derived import Arrays, derived, fingerprint
from recbole_mm.run.new_items import DIVISION, new_item_metrics
from recbole_mm.run.prepared import Prepared
from recbole_mm.trainer.base import trainer_class
from recbole_mm.version import __version__

logger = logging.getLogger(__name__)

FLOOR = "Counting"
# Keys of a run that are the model's own choice, not the protocol's.
_OWN = ("model", "dataset", "preset", "train_neg_sample_args", "case_sessions", "score_parts")


class Difference(TypedDict):
    """A run's metric minus the floor's on the same test rows, with its 95 % interval."""

    metric: str
    delta: float
    low: float
    high: float


class Floor(TypedDict):
    """What counting reaches: metrics, metrics of groups of rows, rank of each test row's target."""

    model: str
    valid: dict[str, float]
    test: dict[str, float]
    slices: Slices
    rank: list[int]
    tied: int
    difference: Difference


def floor_of(prepared: Prepared, ranks: np.ndarray) -> Floor | None:
    """Return the floor under a run whose test targets have these ranks ``(n,)``.

    None where ``floor: false`` says so, for `Counting` itself, and where no metric of the run
    follows from ranks. What keeps the floor from being counted costs a warning, not the run.
    """
    config = prepared.config
    metrics = from_ranks(config["metrics"])
    if not config["floor"] or config["model"] == FLOOR or not metrics:
        return None
    try:
        found = _ranks(prepared)
    except (MMError, OSError) as error:
        logger.warning("no floor under this result: %s", error)
        return None
    cuts = config["topk"]
    slices = slice_metrics(
        found["test"], prepared.dataset, cuts, metrics,
        popularity=config["popularity_groups"], history=config["history_groups"],
    )  # fmt: skip
    if "new" in found:
        slices[DIVISION] = new_item_metrics(prepared, found["test"], found["new"])
    return {
        "model": FLOOR,
        "valid": metrics_from_ranks(found["valid"], cuts, metrics),
        "test": metrics_from_ranks(found["test"], cuts, metrics),
        "slices": slices,
        "rank": found["test"].tolist(),
        "tied": int(found["tied"][0]),
        "difference": _difference(prepared, ranks, found["test"], metrics),
    }


def _difference(
    prepared: Prepared, ranks: np.ndarray, floor: np.ndarray, metrics: Iterable[str]
) -> Difference:
    """Compare the metric that chose the epoch, or the first one that follows from ranks."""
    chosen, _, cut = str(prepared.config["valid_metric"]).lower().partition("@")
    name = chosen if chosen in map(str.lower, metrics) else next(iter(metrics)).lower()
    sessions = prepared.dataset.session_tokens(prepared.dataset.rows("test").session)
    ours, theirs = (gains(rank, name, int(cut)) for rank in (ranks, floor))
    found = paired_difference(ours, theirs, sessions)
    metric = f"{name}@{cut}"
    return {"metric": metric, "delta": found.delta, "low": found.low, "high": found.high}


def _ranks(prepared: Prepared) -> Arrays:
    """Return the floor's ranks of validation and test targets, from the disk if they are there."""
    dataset, config = prepared.dataset, prepared.config
    item_file = dataset.item_columns.path
    made_of = {
        "rows": dataset.fingerprint(),
        "items": sha256_file(item_file) if item_file.is_file() else "",
        "text_fields": list(dataset.card.text_fields),
        "history": config["MAX_ITEM_LIST_LENGTH"],
        "version": __version__,
    }
    name = f"{config['dataset']}.floor"
    return derived(
        Path(config["feature_path"]), name, fingerprint({}, made_of), lambda: _count(prepared)
    )


def _count(prepared: Prepared) -> Arrays:
    """Build, tune and test `Counting` on the run's rows."""
    config = _config(prepared.config)
    model = config.model_class(config, prepared.train.dataset).to(config["device"])
    trainer = trainer_class(config.spec, config.model_class)(config, model)
    trainer.fit(prepared.train, prepared.valid, verbose=False, saved=False)
    trainer.evaluate(prepared.valid, load_best_model=False)
    valid = trainer.ranks
    trainer.evaluate(prepared.test, load_best_model=False)
    found = {"valid": valid, "test": trainer.ranks, "tied": np.array([trainer.tied])}
    held = prepared.dataset.held_out
    if held.any():
        found["new"] = ranks_among(model, prepared.test, held)
    return found


def _config(config: MMConfig) -> MMConfig:
    """Return the configuration of `Counting` under the protocol of a run."""
    plain = config.to_plain()
    protocol = {k: plain[k] for k in key_table.section("overall") if k in plain and k not in _OWN}
    protocol |= {"run_folder": config["run_folder"], "tensorboard": False}
    return MMConfig(FLOOR, config["dataset"], (), protocol)
