"""All that a run needs before it trains: data, features, loaders and model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from recbole.data.dataloader import FullSortEvalDataLoader, TrainDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import init_seed

from recbole_mm import compat, processes
from recbole_mm.config import MMConfig
from recbole_mm.data.audit import audit
from recbole_mm.data.batches import loaders
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.session_dataset import SessionDataset, feature_files
from recbole_mm.encode import available_modalities, ensure_features
from recbole_mm.errors import ConfigError
from recbole_mm.exits import is_out_of_memory
from recbole_mm.model.parts.late_model import with_late_parts
from recbole_mm.prepare import ensure_dataset
from recbole_mm.spec import ModelSpec

logger = logging.getLogger(__name__)

# Modalities whose absence is worth a word.
_USUAL = ("text", "image")


@dataclass
class Prepared:
    """All that training needs, built from a configuration."""

    config: MMConfig
    spec: ModelSpec
    dataset: SessionDataset
    train: TrainDataLoader
    valid: FullSortEvalDataLoader
    test: FullSortEvalDataLoader
    model: AbstractRecommender


# Makes the model of a configuration: given that, its class and the training data.
Builder = Callable[[MMConfig, type, SessionDataset], AbstractRecommender]


def _plain(config: MMConfig, model_class: type, dataset: SessionDataset) -> AbstractRecommender:
    """Make a model as RecBole does."""
    return model_class(config, dataset)


def prepare(config: MMConfig, build: Builder = _plain) -> Prepared:
    """Build data, features, loaders and model from a configuration, and audit the split."""
    compat.quiet_warnings()
    model_class = with_late_parts(config.model_class, config["score_parts"])
    files, modalities = ready_files(config)
    init_seed(config["seed"], config["reproducibility"])
    with _blaming_settings(config):
        dataset = SessionDataset(config, files)
        _check_topk(config, dataset)
        if modalities:
            dataset.item_features = load_features(config, dataset, files, modalities)
        train, valid, test = loaders(config, dataset)
        passed = audit(dataset)
        # Again, so that the weights depend on the seed alone and not on what ran before.
        init_seed(config["seed"], config["reproducibility"])
        model = build(config, model_class, train.dataset).to(config["device"])
    for sentence in passed:
        logger.info("audit: %s", sentence)
    if getattr(model, "leaky", False):
        logger.warning("audit: LEAKY, the model was given validation or test data on purpose")
    return Prepared(config, config.spec, dataset, train, valid, test, model)


@contextmanager
def _blaming_settings(config: MMConfig) -> Iterator[None]:
    """Turn what RecBole or a model raises for a setting into an error that names the settings.

    Where the user has set nothing that could be the reason, it is a bug and stays what it is.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        if not (given := config.given()):
            raise
        raise _refused(config, given, error) from error
    except RuntimeError as error:
        given = config.given()
        if is_out_of_memory(error) or not given:
            raise
        raise _refused(config, given, error) from error


def _refused(config: MMConfig, given: Mapping[str, object], error: Exception) -> ConfigError:
    """Return the error that names the settings of the user."""
    named = [f"{key} = {value!r} ({config.source(key)})" for key, value in given.items()]
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ConfigError(
        f"{config['model']} on {config['dataset']} cannot be built with these settings: {why} "
        f"({type(error).__name__}). One of them is not possible here: {', '.join(named)}. "
        "`--explain=KEY` says what a key accepts."
    )


def _check_topk(config: MMConfig, dataset: SessionDataset) -> None:
    """Refuse a cut-off beyond the catalogue, which the evaluator cannot rank, before training."""
    items, deepest = dataset.item_num - 1, max(config["topk"])
    if deepest > items:
        half = max(1, items // 2)
        raise ConfigError(
            f"{config.source('topk')}: topk asks for the first {deepest} items, but "
            f"{config['dataset']} has {items}. Lower it, for example --topk=[{half}] "
            f"--valid_metric=NDCG@{half}"
        )


def ready_files(config: MMConfig) -> tuple[FeatureFiles, tuple[str, ...]]:
    """See that data and feature files are there, encoding text on first use.

    Returns
    -------
    tuple
        The feature files, and the modalities that the model reads.
    """
    with processes.leader_first():
        ensure_dataset(config["dataset"], Path(config["data_path"]))
        files = feature_files(config)
        modalities = needed_modalities(config, available_modalities(config, files))
        ensure_features(config, files, modalities)
    return files, modalities


def needed_modalities(config: MMConfig, available: Sequence[str]) -> tuple[str, ...]:
    """Return the modalities that this configuration of the model reads.

    Our models' settings say it, given what is ``available``. A third party's class may refine its
    registered list by a class method ``modalities(config)``.
    """
    settings = config.spec.load_settings(config["preset"])
    if settings is not None:
        chosen = settings.of(config)
        used = chosen.feature_files(available)
        absent = [name for name in chosen.feature_files(_USUAL) if name not in used]
        names = ", ".join(used) or "none"
        names += f" (no vectors of {', '.join(absent)})" if absent else ""
        logger.info("%s on %s: modalities used: %s", config["model"], config["dataset"], names)
        return used
    refine = getattr(config.model_class, "modalities", None)
    return tuple(refine(config)) if callable(refine) else config.spec.modalities


def load_features(
    config: MMConfig, dataset: SessionDataset, files: FeatureFiles, modalities: Sequence[str]
) -> ItemFeatures:
    """Load item vectors, aligned with the data set's items."""
    tokens = dataset.field2id_token[dataset.iid_field]
    return ItemFeatures.load(
        files, tokens, modalities, missing=config["missing_features"],
        source=config["feature_source"], seed=config["seed"], source_of=config["feature_source_of"],
    )  # fmt: skip


def load_dataset(
    model: str,
    dataset: str,
    config_files: Sequence[str | Path] = (),
    overrides: Mapping[str, object] | None = None,
) -> SessionDataset:
    """Read and split a data set as a run of ``model`` would, without building the model."""
    compat.quiet_warnings()
    config = MMConfig(model, dataset, config_files, overrides)
    ensure_dataset(config["dataset"], Path(config["data_path"]))
    with _blaming_settings(config):
        built = SessionDataset(config)
        built.build()
    return built
