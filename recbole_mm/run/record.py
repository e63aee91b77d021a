"""The record of a run: what is kept of it on disk, and how it is shown."""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_mm import __version__
from recbole_mm.errors import DataError
from recbole_mm.evaluation.parts import CROSS_ENTROPY
from recbole_mm.evaluation.ranking import from_ranks, gains
from recbole_mm.evaluation.significance import interval
from recbole_mm.evaluation.slices import slice_metrics
from recbole_mm.files import RESULT, atomic_write

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset
    from recbole_mm.run.prepared import Prepared
    from recbole_mm.trainer.base import MMTrainerMixin

Record = dict[str, Any]
_PACKAGES = ("recbole", "torch", "numpy", "pandas", "scipy", "sentence-transformers")


@dataclass(frozen=True)
class RunResult:
    """The record of one run, as it stands in ``<folder>/result.json``.

    Attributes
    ----------
    folder
        The run folder.
    record
        Plain values; ``docs/protocols.md`` lists the keys. Metrics are not rounded.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def test(self) -> dict[str, float]:
        """Test metrics of the epoch that was best on validation."""
        return self.record["test"]

    @property
    def valid(self) -> dict[str, float]:
        """Validation metrics of that epoch."""
        return self.record["valid"]

    def save(self) -> None:
        """Write the record to ``<folder>/result.json``."""
        with atomic_write(self.folder / RESULT) as stream:
            json.dump(self.record, stream, indent=1, sort_keys=True, default=_plain)


def record_of(prepared: Prepared, trainer: MMTrainerMixin, valid: Any, test: Any) -> dict[str, Any]:
    """Return the record of a run that was trained and tested, without its total time.

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
        **_identity(prepared),
        "valid": valid,
        "test": test,
        "slices": slice_metrics(
            trainer.ranks,
            prepared.dataset,
            config["topk"],
            from_ranks(config["metrics"]),
            popularity=config["popularity_groups"],
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


def _identity(prepared: Prepared) -> dict[str, Any]:
    """Return who ran on what: names, marks, seed, fingerprint, versions, settings."""
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


def _ranks(dataset: SessionDataset, ranks: Any) -> dict[str, list[Any]]:
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    host = peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    device = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return host + device


def _plain(value: Any) -> Any:
    """Turn NumPy scalars into Python numbers for JSON."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def format_result(result: RunResult) -> str:
    """Return the result as text: metrics on validation and test, and what they rest on."""
    record = result.record
    marks = "".join(f" [{mark}]" for mark in ("SYNTHETIC", "LEAKY") if record[mark.lower()])
    if (source := feature_source(record)) != "real":
        marks += f" [{source.upper()} FEATURES]"
    counts = record["counts"]
    lines = [f"{record['model']} ({record['preset']}) on {record['dataset']}{marks}", ""]
    lines += [f"{'':<10}{'valid':>10}{'test':>10}   95 % interval of test"]
    for name, value in record["test"].items():
        valid = record["valid"][name]
        lines += [f"{name:<10}{valid:>10.4f}{value:>10.4f}   {_test_interval(record, name)}"]
    lines += _shown_parts(record) + _shown_diagnostics(record)
    seconds = record["seconds"]
    lines += [
        "",
        f"{counts['test_rows']} test rows ({counts['test_cold_targets']} with a target unseen in "
        f"training), {counts['items']} candidates, seed {record['seed']}",
        f"best epoch {record['best_epoch']} of {record['epochs_run']}, "
        f"{seconds['train']:.1f} s training, {seconds['total']:.1f} s in all, "
        f"{record['parameters']:,} parameters, {record['peak_memory_mb']:.0f} MiB",
        f"fingerprint {record['fingerprint']['data'][:16]} (same sessions, rows and candidates)",
        f"run folder {result.folder}",
    ]
    return "\n".join(lines)


def _shown_parts(record: dict[str, Any]) -> list[str]:
    """Return the metric that chose the epoch for each part and variant of the score."""
    metric = str(record["config"]["valid_metric"]).lower()
    lines = []
    for kind in ("parts", "variants"):
        found = record.get(kind, {})
        if not any(metric in values for values in found.get("test", {}).values()):
            continue
        wide = max(len(name) for name in (kind, *found["test"])) + 2
        lines += ["", f"{kind:<{wide}}{metric:>10}{metric:>10}{'ce':>10}{'ce':>10}"]
        lines += [" " * wide + f"{'valid':>10}{'test':>10}" * 2]
        for name, test in found["test"].items():
            both = (found["valid"][name], test)
            cells = [values[key] for key in (metric, CROSS_ENTROPY) for values in both]
            lines.append(f"{name:<{wide}}" + "".join(f"{cell:>10.4f}" for cell in cells))
    return lines


def _shown_diagnostics(record: dict[str, Any]) -> list[str]:
    """Return the model's diagnostics, one per line."""
    found = record.get("diagnostics", {})
    wide = max(map(len, found), default=0)
    lines = [f"{name:<{wide}}  {value:>12.6g}" for name, value in found.items()]
    return ["", "diagnostics", *lines] if lines else []


def _test_interval(record: dict[str, Any], name: str) -> str:
    """Return the 95 % interval of a test metric over sessions, by bootstrap."""
    metric, _, cut = name.partition("@")
    if not from_ranks([metric]):
        return "-"
    values = gains(np.array(record["ranks"]["rank"]), metric, int(cut))
    low, high = interval(values, record["ranks"]["session"])
    return f"{low:.4f} to {high:.4f}"


def feature_source(record: Record) -> str:
    """Return what the item vectors of a run were; ``real`` also for a run that used none."""
    used = record["fingerprint"]["features"]
    return str(record["config"].get("feature_source", "real")) if used else "real"


def read_result(run_folder: Path) -> Record | None:
    """Return the record of a run that ended well, or None.

    Raises
    ------
    DataError
        The file is there and is not JSON. Results are written whole, so something else broke it.
    """
    path = run_folder / RESULT
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); remove it to run again.") from error
    return record if isinstance(record, dict) and record.get("status") == "ok" else None
