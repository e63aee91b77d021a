"""Starting UniSRec from what it learned on other data sets."""

from __future__ import annotations

import logging
from pathlib import Path

from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_mm.config import MMConfig
from recbole_mm.data.card import load_dataset_card
from recbole_mm.data.session_dataset import feature_files
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.errors import CheckpointError
from recbole_mm.files import BEST
from recbole_mm.run.prepared import Prepared
from recbole_mm.trainer.checkpoint import load_checkpoint, state_differences

logger = logging.getLogger(__name__)

# Name and modality of the data that several data sets are mixed into, in the folder ``data``.
MIXED, MODALITY = "mixed", "content"
# Vectors by item id belong to one data set.
_OWN = "item_embedding."
Encoders = dict[str, dict[str, str]]


def encoders(config: MMConfig) -> Encoders:
    """Return what made the vectors of each modality, as far as it is known."""
    files, found = feature_files(config), Encoders()
    for modality in config["modalities"]:
        manifest = load_manifest(manifest_path(files.find(modality)))
        about = manifest.encoder if manifest is not None else {}
        found[modality] = {
            key: str(about.get(key, "")) for key in ("name", "revision", "fitted_on")
        }
    return found


def start_from_pretrained(prepared: Prepared) -> None:
    """Give a new model the weights of the folder ``pretrained``, where its settings name one.

    Raises
    ------
    CheckpointError
        There are no such weights, they do not fit, or they were learned from other vectors.
    """
    model, config = prepared.model, prepared.config
    if (named := getattr(getattr(model, "settings", None), "pretrained", None)) is not None:
        model.take_pretrained(_weights(Path(named), model, encoders(config)))
        logger.info("%s starts from what was learned in %s", config["model"], named)


def _weights(folder: Path, model: AbstractRecommender, made_by: Encoders) -> dict[str, Tensor]:
    """Return the weights of a folder, where they fit a model and its vectors."""
    if not (folder / BEST).is_file():
        raise CheckpointError(
            f"{folder}: no {BEST} there. Expected the folder that `recbole-mm pretrain "
            "--output=...` wrote."
        )
    weights: dict[str, Tensor] = load_checkpoint(folder / BEST)["model"]
    own = {name: one for name, one in model.state_dict().items() if not name.startswith(_OWN)}
    if differences := state_differences(own, weights):
        raise CheckpointError(
            f"{folder} does not fit this model: {'; '.join(differences)}. Use the sizes, the "
            "MAX_ITEM_LIST_LENGTH and the encoder of the pre-training."
        )
    learned = load_dataset_card(folder / "data" / MIXED).report.get("encoders", made_by)
    if list(learned.values()) != list(made_by.values()):
        raise CheckpointError(
            f"{folder} was pre-trained on vectors made by {learned}, these are made by {made_by}. "
            "Encode by the same encoder."
        )
    return weights
