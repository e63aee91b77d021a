"""Pre-training UniSRec on several data sets.

The training sessions of all data sets become one data set, ``mixed``, with the vectors that each
data set's own run would read. Nothing of a validation or test part goes in, so that a data set may
be learned from and be the target afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from recbole_mm.config import MMConfig
from recbole_mm.data.card import DatasetCard
from recbole_mm.data.itememb import itememb_path, write_itememb
from recbole_mm.data.loading import inter_file
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.peers.unisrec import UniSRec
from recbole_mm.prepare import ensure_dataset
from recbole_mm.prepare.output import INTER_TYPES, write_dataset
from recbole_mm.run.execute import run
from recbole_mm.run.prepared import Prepared, prepare
from recbole_mm.run.pretrained import MIXED, MODALITY, encoders
from recbole_mm.run.record import RunResult

MODEL, PRESET = "UniSRec", "pretrain"
# Stands between a data set's name and its tokens.
_MARK = ":"


def pretrain(
    datasets: Sequence[str],
    output: str | Path,
    config_files: Sequence[str | Path] = (),
    overrides: Mapping[str, object] | None = None,
) -> RunResult:
    """Pre-train UniSRec on the training sessions of some data sets.

    Parameters
    ----------
    datasets
        Their names; each is split as its own runs split it.
    output
        Becomes the run folder; ``pretrained`` names it afterwards. The mixed data lie in ``data``
        there.
    config_files, overrides
        As in `recbole_mm.run.run`.

    Raises
    ------
    recbole_mm.errors.MMError
        As in `recbole_mm.run.run`; and vectors of the data sets that were not made alike.
    """
    keys = dict(overrides or {})
    if len(set(datasets)) < len(datasets) or not datasets:
        raise ConfigError("--datasets: expected one or more names, each once")
    parts = {}
    for name in datasets:
        config = MMConfig(MODEL, name, config_files, {**keys, "preset": PRESET})
        ensure_dataset(name, Path(config["data_path"]))
        inter_file(name, Path(config["data_path"]))
        parts[name] = prepare(config)
    _require_alike(parts)
    folder = Path(output)
    write_mixed(folder / "data", parts)
    own = {
        "preset": PRESET,
        "data_path": str(folder / "data"),
        "feature_path": str(folder / "data" / MIXED),
        "run_folder": str(folder),
        "modalities": [MODALITY],
        "split_by": "session_random",
        "split_ratio": [8, 1, 1],
        "floor": False,
    }
    return run(MODEL, MIXED, config_files, {**keys, **own})


def write_mixed(folder: Path, parts: Mapping[str, Prepared]) -> Path:
    """Write the training sessions and the vectors of several data sets as one.

    Vectors are those that `UniSRec` reads: centred and scaled on each data set's training items.
    """
    frames, tokens, vectors = [], list[str](), []
    for name, part in parts.items():
        dataset = part.train.dataset
        frames.append(_sessions(name, dataset))
        seen = (dataset.train_counts > 0) & _described(dataset)
        tokens += [f"{name}{_MARK}{token}" for token in dataset.tokens(np.flatnonzero(seen))]
        vectors.append(cast(UniSRec, part.model).described[seen].cpu().numpy())
    card = DatasetCard(
        MIXED,
        source=", ".join(parts),
        synthetic=any(part.dataset.card.synthetic for part in parts.values()),
        report={"encoders": encoders(next(iter(parts.values())).config)},
    )
    place = folder / MIXED
    write_itememb(itememb_path(place, MIXED, MODALITY), MODALITY, tokens, np.concatenate(vectors))
    return write_dataset(place, card, (pd.concat(frames), INTER_TYPES), None)


def _sessions(name: str, dataset: SessionDataset) -> pd.DataFrame:
    """Return the training sessions of a data set, tokens marked by its name."""
    train = dataset.train_sessions
    owner = np.repeat(train.session, train.lengths())
    return pd.DataFrame(
        {
            "session_id": [f"{name}{_MARK}{one}" for one in dataset.session_tokens(owner)],
            "item_id": [f"{name}{_MARK}{one}" for one in dataset.tokens(train.items)],
            "timestamp": train.time,
        }
    )


def _described(dataset: SessionDataset) -> np.ndarray:
    """Return which items have a vector of any modality, bool ``(N,)``."""
    features = dataset.item_features
    assert features is not None  # UniSRec reads at least one modality
    found: np.ndarray = np.any([mask.numpy() for mask in features.masks.values()], axis=0)
    return found


def _require_alike(parts: Mapping[str, Prepared]) -> None:
    """Refuse data sets whose vectors lie in different spaces."""
    (first, one), *others = parts.items()
    for name, part in others:
        widths = [cast(UniSRec, two.model).described.shape[1] for two in (one, part)]
        made_by = [encoders(two.config) for two in (one, part)]
        if widths[0] != widths[1] or made_by[0] != made_by[1]:
            raise FeatureError(
                f"the vectors of {first} ({widths[0]} numbers, made by {made_by[0]}) and those of "
                f"{name} ({widths[1]} numbers, made by {made_by[1]}) do not lie in one space. "
                "Encode all by one encoder, and not by tfidf, which counts the words of each "
                "catalogue by itself."
            )
