"""Trained models from run folders and from packs."""

from __future__ import annotations

from pathlib import Path

from recbole_mm import stock
from recbole_mm.config import MMConfig
from recbole_mm.errors import CheckpointError, ConfigError
from recbole_mm.files import BEST, CONFIG
from recbole_mm.run.members import restore, run_config
from recbole_mm.serve.catalogue import Catalogue
from recbole_mm.serve.pack import PACK, read_pack, whole_pack
from recbole_mm.serve.restored import Restored


def load(folder: str | Path, device: str = "cpu") -> Restored:
    """Restore a model from a run folder or a pack.

    Raises
    ------
    CheckpointError
        The folder is neither, or damaged.
    """
    folder = whole_pack(Path(folder))
    if (folder / PACK).is_file():
        return read_pack(folder, device)
    if (folder / CONFIG).is_file() and (folder / BEST).is_file():
        return read_run(folder, device)
    raise CheckpointError(
        f"{folder}: neither a pack ({PACK}) nor a run folder ({CONFIG} and {BEST}). Name the "
        "folder that `recbole-mm run` printed (saved/<dataset>/<model>/...), or that "
        "`recbole-mm pack` wrote."
    )


def read_run(folder: Path, device: str = "cpu") -> Restored:
    """Build a run's data and model again, and load its best weights.

    Raises
    ------
    CheckpointError
        The checkpoint is damaged, or the data are not those of the run.
    ConfigError
        The model scores by what training held of the session itself.
    """
    config = run_config(folder, use_gpu=device != "cpu")
    refuse_unknown_sessions(config)
    prepared = restore(config, folder)
    # Models of RecBole look at what they were built on: the training part.
    dataset = prepared.train.dataset
    return Restored(config, prepared.model, dataset, Catalogue.of(dataset), folder)


def refuse_unknown_sessions(config: MMConfig) -> None:
    """Refuse a model that knows sessions by their training rows alone."""
    if stock.scores_by_user(config.model_class):
        raise ConfigError(
            f"{config['model']} scores a session by what training held of it and cannot recommend "
            "to a new one. Use a model that reads the items of the session, such as SessionKNN."
        )
