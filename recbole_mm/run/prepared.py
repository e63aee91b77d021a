"""All that a run needs before it trains: data, features, loaders and model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from recbole.data import data_preparation
from recbole.utils import init_seed

from recbole_mm import compat
from recbole_mm.config import MMConfig
from recbole_mm.data.audit import audit
from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.encode import ensure_features, locate
from recbole_mm.prepare import ensure_dataset
from recbole_mm.registry import ModelSpec

logger = logging.getLogger(__name__)


@dataclass
class Prepared:
    """All that training needs, built from a configuration."""

    config: MMConfig
    spec: ModelSpec
    dataset: SessionDataset
    train: Any
    valid: Any
    test: Any
    model: torch.nn.Module


def prepare(config: MMConfig) -> Prepared:
    """Build data, features, loaders and model from a configuration, and audit the split."""
    compat.quiet_warnings()
    spec = config.spec
    ensure_dataset(config["dataset"], Path(config["data_path"]))
    init_seed(config["seed"], config["reproducibility"])
    dataset = SessionDataset(config)
    model_class = config.model_class
    modalities = needed_modalities(config, spec)
    if modalities:
        dataset.item_features = load_features(config, dataset, modalities)
    train, valid, test = data_preparation(config, dataset)
    passed = audit(dataset)
    # Again, so that the weights depend on the seed alone and not on what ran before.
    init_seed(config["seed"], config["reproducibility"])
    model = model_class(config, train.dataset).to(config["device"])
    for sentence in passed:
        logger.info("audit: %s", sentence)
    if getattr(model, "leaky", False):
        logger.warning("audit: LEAKY, the model was given validation or test data on purpose")
    return Prepared(config, spec, dataset, train, valid, test, model)


def needed_modalities(config: MMConfig, spec: ModelSpec) -> tuple[str, ...]:
    """Return the modalities that this configuration of the model reads.

    A model class may refine its registered list by a class method ``modalities(config)``: SRIM with
    random content needs no text.
    """
    refine = getattr(config.model_class, "modalities", None)
    return tuple(refine(config)) if callable(refine) else spec.modalities


def load_features(
    config: MMConfig, dataset: SessionDataset, modalities: Sequence[str]
) -> ItemFeatures:
    """Load item vectors, encoding text on first use, aligned with the data set's items."""
    ensure_features(config, modalities)
    tokens = dataset.field2id_token[dataset.iid_field]
    folders = {modality: locate(config, modality).parent for modality in modalities}
    return ItemFeatures.load(
        folders, config["dataset"], tokens, modalities, missing=config["missing_features"],
        source=config["feature_source"], seed=config["seed"],
    )  # fmt: skip


def load_dataset(
    model: str,
    dataset: str,
    config_files: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
) -> SessionDataset:
    """Read and split a data set as a run of ``model`` would, without building the model."""
    config = MMConfig(model, dataset, config_files, overrides)
    ensure_dataset(config["dataset"], Path(config["data_path"]))
    built = SessionDataset(config)
    built.build()
    return built
