"""Packs: a trained model in a folder of its own, restored without the training data.

``pack.json`` says what it is, ``items.json`` names the items, ``model.safetensors`` holds weights,
settings and whatever the model counted or fitted. All of it is data; nothing is executed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from recbole_mm.config import MMConfig
from recbole_mm.errors import CheckpointError, MMError
from recbole_mm.exits import is_out_of_memory
from recbole_mm.files import atomic_write, read_json, sha256_file
from recbole_mm.model.parts.late_model import with_late_parts
from recbole_mm.protocol import BLEND
from recbole_mm.serve.card import CARD, card_page, model_card
from recbole_mm.serve.catalogue import Catalogue
from recbole_mm.serve.packed import PackedDataset, dataset_state
from recbole_mm.serve.restored import Restored
from recbole_mm.trainer.checkpoint import load_checkpoint, save_checkpoint, state_differences
from recbole_mm.trainer.state import other_parameters, to_device
from recbole_mm.version import __version__

if TYPE_CHECKING:
    from recbole.model.abstract_recommender import AbstractRecommender

logger = logging.getLogger(__name__)

PACK, ITEMS, MODEL, PAGE = "pack.json", "items.json", "model.safetensors", "README.md"
FORMAT = "recbole_mm.pack/1"
# Keys of a run that a pack does without: where things lay, and what was looked at after training.
_LEFT_OUT = ("run_folder", "data_path", "feature_path", "checkpoint_dir", "case_sessions")
_CHECKED = 32


def write_pack(restored: Restored, output: str | Path) -> Path:
    """Write the model of a run as a pack, and make sure that it scores the same.

    Parameters
    ----------
    restored
        A model of a run folder.
    output
        The folder; a pack that is there already is replaced whole.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CheckpointError
        The folder holds something else, it is a pack already, another process writes it, the model
        keeps what no file can hold, or the pack does not score as the run does.
    """
    target = Path(output)
    if isinstance(restored.dataset, PackedDataset):
        raise CheckpointError(f"{restored.place} is a pack already; copy the folder instead.")
    if restored.config["model"] == BLEND:
        raise CheckpointError(
            "a blend stands on the runs that it sums and cannot be packed. Give its run folder to "
            "recommend, or pack one of the runs; any of them takes counted parts (score_parts)."
        )
    if target.exists() and not (target / PACK).is_file() and any(target.iterdir()):
        raise CheckpointError(f"{target} holds something that is no pack; name another --output.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone_with(target):
        # Not before: what lies there by such a name is removed first.
        with tempfile.TemporaryDirectory(prefix=_prefix(target), dir=target.parent) as name:
            made = Path(name) / "pack"
            _write(restored, made)
            _check_scores(restored, made)
            _put_in_place(made, target)
    return target


def whole_pack(folder: Path) -> Path:
    """Return the folder, or what it held before, where `pack` was killed while it replaced it."""
    before = _before(folder)
    return before if not folder.exists() and (before / PACK).is_file() else folder


def _prefix(target: Path) -> str:
    return f".{target.name}."


def _before(target: Path) -> Path:
    """Return where a pack lies while another takes its place."""
    return target.with_name(f"{_prefix(target)}old")


def _put_in_place(made: Path, target: Path) -> None:
    """Replace a pack; at any moment one is whole, see `whole_pack`."""
    before = _before(target)
    if target.exists():
        shutil.rmtree(before, ignore_errors=True)
        os.replace(target, before)
    os.replace(made, target)
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def _alone_with(target: Path) -> Iterator[None]:
    """Keep a second process away from a pack, and remove what a killed one left."""
    prefix = _prefix(target)
    try:
        with FileLock(target.with_name(f"{prefix}lock"), timeout=0):
            for left in target.parent.glob(f"{glob.escape(prefix)}*"):
                if re.fullmatch("[a-z0-9_]{8}", left.name.removeprefix(prefix)) and left.is_dir():
                    shutil.rmtree(left)
            yield
    except Timeout as error:
        raise CheckpointError(
            f"{target}: another process is packing there. Wait for it, or name another --output."
        ) from error


def _write(restored: Restored, folder: Path) -> None:
    """Write the files; the one that makes the folder a pack comes last."""
    folder.mkdir()
    model = restored.model
    state = {
        "weights": model.state_dict(),
        "other": other_parameters(model),
        "dataset": dataset_state(restored.dataset),
    }
    save_checkpoint(folder / MODEL, state)
    items = {"ids": restored.items.tokens, "titles": restored.items.titles}
    _write_json(folder / ITEMS, items)
    card = model_card(restored)
    _write_json(folder / CARD, card)
    with atomic_write(folder / PAGE) as stream:
        stream.write(card_page(card))
    _write_json(folder / PACK, _description(restored, folder))


def _description(restored: Restored, folder: Path) -> dict[str, Any]:
    config = restored.config
    plain = {key: value for key, value in config.to_plain().items() if key not in _LEFT_OUT}
    return {
        "format": FORMAT,
        "model": config["model"],
        "dataset": config["dataset"],
        "config": plain,
        "recbole_mm": __version__,
        "config_sha256": _config_digest(plain),
        "sha256": {name: sha256_file(folder / name) for name in (ITEMS, MODEL)},
    }


def _config_digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the settings, in which a flipped digit could ask for any memory."""
    plain = json.loads(json.dumps(config))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _write_json(path: Path, value: object) -> None:
    with atomic_write(path) as stream:
        json.dump(value, stream, ensure_ascii=False, indent=1 if path.name != ITEMS else None)
        stream.write("\n")


def _check_scores(restored: Restored, folder: Path) -> None:
    """Refuse a pack whose scores differ from the run's in any bit."""
    count = min(_CHECKED, len(restored.items) - 1)
    few = [[1 + (7 * row + place) % count for place in range(1 + row % 4)] for row in range(count)]
    scorer = restored.scorer
    expected = scorer.scores(scorer.rows(few))
    if not torch.equal(expected, scorer.scores(scorer.rows(few))):
        name = restored.config["model"]
        raise CheckpointError(f"{name} scores the same sessions differently each time.")
    if not torch.equal(expected, _scores_of(folder, few, str(scorer.device))):
        raise CheckpointError(
            f"{restored.config['model']} scores differently when it is restored without the "
            "training data: it counts in them when it is built. Let it keep what it counts: "
            "self.counts = dataset.fitted('counts', lambda: ...), see docs/adding_a_model.md."
        )


def _scores_of(folder: Path, few: list[list[int]], device: str) -> torch.Tensor:
    """Restore a pack and return its scores of some sessions."""
    try:
        made = _restored(folder, "cpu" if device == "cpu" else "cuda").scorer
        return made.scores(made.rows(few))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a model does that finds no sessions
        raise CheckpointError(
            f"the model cannot be built without the training data ({type(error).__name__}: "
            f"{error}). Let it keep what it counts there: dataset.fitted('counts', lambda: ...), "
            "see docs/adding_a_model.md."
        ) from error


def read_pack(folder: str | Path, device: str = "cpu") -> Restored:
    """Restore a model from its pack.

    Raises
    ------
    CheckpointError
        The pack is damaged, or written by another version.
    ConfigError
        The model is not known here; a third party's needs ``--plugins``.
    """
    try:
        return _restored(Path(folder), device)
    except Exception as error:  # whatever a model makes of what is not its own
        if isinstance(error, MMError) or is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{folder} holds what its model cannot be restored from ({type(error).__name__}: "
            f"{error}): it was packed by another version of recbole_mm or of the model, or changed "
            "since. Pack the run again."
        ) from error


def _restored(folder: Path, device: str) -> Restored:
    """Build the model of a pack, and see that it scores."""
    config = _read_config(folder, device)
    state = load_checkpoint(folder / MODEL)
    dataset = PackedDataset(config, state["dataset"], folder)
    model_class = with_late_parts(config.model_class, config["score_parts"])
    model = model_class(config, dataset).to(config["device"])
    _load(model, state, folder)
    items = _read_items(folder, dataset)
    restored = Restored(config, model, dataset, items, folder)
    restored.scorer.scores(restored.scorer.rows([[1]]))
    return restored


def _read_config(folder: Path, device: str) -> MMConfig:
    """Return the settings of a pack whose files are those that were packed."""
    description = _read_description(folder)
    for name, expected in description["sha256"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != expected:
            raise CheckpointError(
                f"{folder / name} is missing or damaged: it is not what was packed. "
                "Copy the pack again, or pack the run again."
            )
    overrides = {**description["config"], "use_gpu": device != "cpu", "tensorboard": False}
    return MMConfig(None, None, (), overrides)


def _read_items(folder: Path, dataset: PackedDataset) -> Catalogue:
    """Read names and titles of the items; a ValueError says that there are others."""
    names, count, counts = read_json(folder / ITEMS), dataset.item_num, dataset.train_counts
    if not isinstance(counts, np.ndarray) or counts.dtype.kind != "i" or counts.shape != (count,):
        raise ValueError(f"{MODEL} does not hold {count} counts of clicks")
    for name in ("ids", "titles"):
        found = names[name]
        texts = isinstance(found, list) and all(isinstance(one, str) for one in found)
        if not texts or len(found) != count:
            raise ValueError(f"{ITEMS} does not hold {count} {name}")
    return Catalogue(names["ids"], names["titles"], counts)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / PACK
    try:
        found = read_json(path)
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}, expected {FORMAT!r}")
        if not {ITEMS, MODEL} <= set(found["sha256"]) or not isinstance(found["config"], dict):
            raise ValueError("it names no files or no settings")
        if found["config_sha256"] != _config_digest(found["config"]):
            raise ValueError("its settings are not those that were packed")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no pack of this version ({error}). Pack the run again."
        ) from error
    return dict(found)


def _load(model: AbstractRecommender, state: Mapping[str, Any], folder: Path) -> None:
    """Put weights, and what the model declares besides, into a new model."""
    differences = state_differences(model.state_dict(), state["weights"])
    if differences:
        raise CheckpointError(
            f"the weights in {folder} do not fit the model:\n  " + "\n  ".join(differences)
        )
    model.load_state_dict(state["weights"])
    model.load_other_parameter(to_device(state["other"], model.device))
