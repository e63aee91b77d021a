"""The trained networks of finished runs, as `Blend` sums them."""

from __future__ import annotations

from pathlib import Path

from recbole.model.abstract_recommender import AbstractRecommender

from recbole_mm import yaml_files
from recbole_mm.config import MMConfig
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.errors import CheckpointError, ConfigError
from recbole_mm.files import BEST, CONFIG
from recbole_mm.model.parts.late_model import LateParts
from recbole_mm.protocol import BLEND, require_same, shared_protocol
from recbole_mm.run.prepared import Prepared, prepare
from recbole_mm.trainer.base import trainer_class


def blended(config: MMConfig, model_class: type, dataset: SessionDataset) -> AbstractRecommender:
    """Make a `Blend` of finished runs; see `recbole_mm.run.prepared.prepare`.

    Raises
    ------
    ConfigError
        The runs, or they and the blend, have other rows or candidates.
    CheckpointError
        A checkpoint is missing, damaged, or does not fit.
    """
    folders: list[str] = config["runs"]
    require_same(shared_protocol(folders), config.to_plain(), "in the runs", "here")
    networks: dict[str, AbstractRecommender] = {}
    for folder in folders:
        name, network = _member(Path(folder), dataset, config["use_gpu"])
        number = sum(known.partition(" ")[0] == name for known in networks) + 1
        networks[name if number == 1 else f"{name} {number}"] = network
    made: AbstractRecommender = model_class(config, dataset, networks)
    return made


def _member(folder: Path, rows: SessionDataset, use_gpu: bool) -> tuple[str, AbstractRecommender]:
    """Return model name and network of one run."""
    config = run_config(folder, use_gpu)
    model = str(config["model"])
    if model == BLEND:
        raise ConfigError(f"runs: {folder} is a blend itself; give the runs that it sums")
    made = restore(config, folder)
    if made.dataset.fingerprint() != rows.fingerprint():
        raise ConfigError(f"runs: {folder} has other rows or candidates than the blend")
    if isinstance(made.model, LateParts):
        made.model.late = {}
    return model, made.model.eval()


def run_config(folder: Path, use_gpu: bool) -> MMConfig:
    """Return the configuration of a finished run; nothing is written to its folder.

    Raises
    ------
    CheckpointError
        Its settings are damaged.
    """
    if not {"model", "dataset"} <= set(yaml_files.load_yaml(folder / CONFIG)):
        raise CheckpointError(f"{folder / CONFIG} is damaged: it names no model and data set.")
    overrides = {"run_folder": str(folder), "tensorboard": False, "use_gpu": use_gpu}
    return MMConfig(None, None, [folder / CONFIG], overrides)


def prepare_run(config: MMConfig) -> Prepared:
    """As `prepare`, also where the model is a `Blend` of runs."""
    return prepare(config, blended) if config["model"] == BLEND else prepare(config)


def restore(config: MMConfig, folder: Path) -> Prepared:
    """Build a run's data and model again, and load its best weights.

    Raises
    ------
    CheckpointError
        The checkpoint is damaged, or the data are not those of the run.
    """
    prepared = prepare_run(config)
    trainer = trainer_class(prepared.spec, type(prepared.model))(config, prepared.model)
    trainer.load_model(folder / BEST, prepared.train)
    return prepared
