"""The record of a run: what is kept of it on disk, in ``result.json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast, get_type_hints

import numpy as np
import torch

from recbole_mm import stock
from recbole_mm.errors import DataError
from recbole_mm.evaluation.parts import PartMetrics
from recbole_mm.evaluation.ranking import from_ranks
from recbole_mm.evaluation.slices import Slices, slice_metrics
from recbole_mm.files import RESULT, Plain, atomic_write, fits, read_json
from recbole_mm.run.floor import Floor
from recbole_mm.spec import OURS
from recbole_mm.trainer.history import EpochRecord
from recbole_mm.version import __version__

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset
    from recbole_mm.run.prepared import Prepared
    from recbole_mm.trainer.base import MMTrainerMixin

_PACKAGES = ("recbole", "torch", "numpy", "pandas", "scipy", "sentence-transformers")

# What every version wrote of a run that ended well, and every reader relies on.
_NEEDED = {
    *("model", "dataset", "seed", "synthetic", "leaky", "fingerprint", "counts", "config"),
    *("valid", "test", "ranks", "epochs_run", "best_epoch", "seconds"),
}

# Two of the marks; the others say enough by themselves.
MASKED, TIED = "HISTORY MASKED", "ALL TIED"

Metrics = dict[str, float]


class Fingerprint(TypedDict):
    """Hashes of what was ranked: sessions and candidates, and each modality's vectors."""

    data: str
    features: dict[str, str]


class Ranks(TypedDict):
    """Session and rank of the target of each test row."""

    session: list[str]
    rank: list[int]


class Subject(TypedDict):
    """Who ran on what: names, marks, seed, fingerprint, versions, settings."""

    model: str
    preset: str
    dataset: str
    synthetic: bool
    leaky: bool
    seed: int
    fingerprint: Fingerprint
    counts: dict[str, int]
    versions: dict[str, str]
    device: str
    config: dict[str, Plain]
    command: list[str]


class Outcome(Subject):
    """What training and test gave, besides."""

    status: str
    valid: Metrics
    test: Metrics
    slices: Slices
    epochs_run: int
    best_epoch: int
    seconds: dict[str, float]
    parameters: int
    peak_memory_mb: float
    history: list[EpochRecord]
    ranks: Ranks
    tied: int


class Studies(TypedDict, total=False):
    """What was looked at after training, as far as the model has it; by ``valid`` and ``test``."""

    parts: dict[str, PartMetrics]
    variants: dict[str, PartMetrics]
    diagnostics: dict[str, float]
    floor: Floor


class Record(Outcome, Studies):
    """The content of ``result.json``; ``docs/protocols.md`` explains the keys."""


@dataclass(frozen=True)
class RunResult:
    """The record of one run, as it stands in ``<folder>/result.json``.

    Attributes
    ----------
    folder
        The run folder.
    record
        Plain values. Metrics are not rounded.
    """

    folder: Path
    record: Record

    @property
    def test(self) -> Metrics:
        """Test metrics of the epoch that was best on validation."""
        return self.record["test"]

    @property
    def valid(self) -> Metrics:
        """Validation metrics of that epoch."""
        return self.record["valid"]

    def save(self) -> None:
        """Write the record to ``<folder>/result.json``."""
        with atomic_write(self.folder / RESULT) as stream:
            json.dump(self.record, stream, indent=1, sort_keys=True, default=_plain)


def outcome_of(
    prepared: Prepared, trainer: MMTrainerMixin, valid: Metrics, test: Metrics
) -> Outcome:
    """Return what a run gave that was trained and tested, without its total time.

    Parameters
    ----------
    prepared
        What was trained on what.
    trainer
        The trainer after its test evaluation.
    valid, test
        Metrics of the best epoch.
    """
    config, model = prepared.config, prepared.model
    return {
        "status": "ok",
        **_subject(prepared),
        "valid": valid,
        "test": test,
        "slices": slice_metrics(
            trainer.ranks,
            prepared.dataset,
            config["topk"],
            from_ranks(config["metrics"]),
            popularity=config["popularity_groups"],
            history=config["history_groups"],
        ),
        # Epoch 0, if it is there, is the untrained model.
        "epochs_run": sum(record["epoch"] > 0 for record in trainer.history),
        "best_epoch": trainer.best_epoch + 1,
        "seconds": dict(trainer.seconds),
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "peak_memory_mb": peak_memory_mb(),
        "history": trainer.history,
        "ranks": _ranks(prepared.dataset, trainer.ranks),
        "tied": int(trainer.tied),
    }


def _subject(prepared: Prepared) -> Subject:
    config, dataset, model = prepared.config, prepared.dataset, prepared.model
    features = dataset.item_features
    return {
        "model": config["model"],
        "preset": config["preset"],
        "dataset": config["dataset"],
        "synthetic": dataset.card.synthetic,
        "leaky": bool(getattr(model, "leaky", False)),
        "seed": config["seed"],
        "fingerprint": {
            "data": dataset.fingerprint(),
            "features": dict(features.hashes) if features else {},
        },
        "counts": dict(dataset.counts),
        "versions": _versions(),
        "device": str(config["device"]),
        "config": config.to_plain(),
        "command": sys.argv,
    }


def _ranks(dataset: SessionDataset, ranks: np.ndarray) -> Ranks:
    """Return the test rows' sessions and the ranks of their targets."""
    sessions = dataset.session_tokens(dataset.rows("test").session)
    return {"session": sessions, "rank": [int(rank) for rank in ranks]}


def _versions() -> dict[str, str]:
    found = {"recbole_mm": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def peak_memory_mb() -> float:
    """Return the process's largest resident memory so far, in MiB (GPU memory added)."""
    if sys.platform == "win32":
        import psutil

        host = psutil.Process().memory_info().peak_wset / 2**20
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        host = peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    device = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return host + device


def _plain(value: object) -> Plain:
    """Turn NumPy scalars into Python numbers for JSON."""
    if hasattr(value, "item"):
        return cast(Plain, value.item())
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def model_name(model: str, preset: str) -> str:
    """Return the model with its preset; RecBole's own models have none."""
    if preset == "sound" and model not in OURS and stock.source_file(model):
        return model
    return f"{model} ({preset})"


def marks(record: Record) -> list[str]:
    """Return what a reader must not overlook.

    ``LEAKY``, ``SYNTHETIC``, ``HISTORY MASKED``, ``ALL TIED`` if every test target shares its score
    with other items, and ``RANDOM FEATURES`` or ``SHUFFLED FEATURES`` if the run used item vectors
    and they were not the real ones, with the modalities where not all were replaced.
    """
    found = {
        "LEAKY": record["leaky"],
        "SYNTHETIC": record["synthetic"],
        MASKED: record["config"].get("history") == "mask",
        TIED: record.get("tied") == len(record["ranks"]["rank"]) > 0,
    }
    source = str(record["config"].get("feature_source", "real"))
    if record["fingerprint"]["features"]:
        only = record["config"].get("feature_source_of")
        kinds = f" ({', '.join(map(str, only))})" if isinstance(only, list) else ""
        found[f"{source.upper()} FEATURES{kinds}"] = source != "real"
    return [mark for mark, true in found.items() if true]


def _is_record(found: Mapping[str, object]) -> bool:
    """Return whether a table can be made of this; earlier versions wrote fewer keys."""
    hints = get_type_hints(Record)
    shaped = found.keys() >= _NEEDED and all(
        fits(value, hints[key]) for key, value in found.items() if key in hints
    )
    if not shaped:
        return False
    record = cast(Record, found)
    ranks, slices = record["ranks"], record.get("slices", {})
    counted = all("n" in group for groups in slices.values() for group in groups.values())
    chosen_by = str(record["config"].get("valid_metric")).lower()
    if not counted or chosen_by not in record["test"]:
        return False
    return 0 < len(ranks["rank"]) == len(ranks["session"]) and min(ranks["rank"]) >= 1


def read_result(run_folder: Path) -> Record | None:
    """Return the record of a run that ended well, or None.

    Raises
    ------
    DataError
        The file is there and is no result. Results are written whole, so something else broke it.
    """
    path = run_folder / RESULT
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        ended_well = isinstance(found, dict) and found.get("status") == "ok"
        if ended_well and not _is_record(found):
            raise ValueError("a key is missing or has a value of another type")
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); remove it to run again.") from error
    return cast(Record, found) if ended_well else None
