"""Which features a data set has, for models that take what is there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from recbole_mm.encode.freshness import Settings, locate
from recbole_mm.encode.text.fields import default_fields, item_file
from recbole_mm.encode.text.job import MODALITY
from recbole_mm.errors import FeatureError, MMError

logger = logging.getLogger(__name__)


def present_modalities(config: Settings, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return those of the modalities ``wanted`` that have a feature file, and say which.

    Text counts as present where it will be encoded on first use: ``encode_on_first_use`` is set and
    the ``.item`` file has a text column.

    Parameters
    ----------
    config
        Read are ``model``, ``dataset``, ``data_path`` (the data set's folder), ``feature_path`` and
        ``encode_on_first_use``.
    wanted
        Modalities in the order of preference, such as ``("text", "image")``.
    """
    found = tuple(name for name in wanted if _has_file(config, name) or _can_encode(config, name))
    absent = [name for name in wanted if name not in found]
    logger.info(
        "%s on %s: modalities used: %s%s",
        config["model"],
        config["dataset"],
        ", ".join(found) or "none",
        f" (no vectors of {', '.join(absent)})" if absent else "",
    )
    return found


def _has_file(config: Settings, modality: str) -> bool:
    try:
        locate(config, modality)
    except FeatureError:
        return False
    return True


def _can_encode(config: Settings, modality: str) -> bool:
    """Tell whether the texts stand there and may be encoded."""
    folder, dataset = Path(config["data_path"]), config["dataset"]
    if modality != MODALITY or not config["encode_on_first_use"]:
        return False
    try:
        return item_file(folder, dataset).is_file() and bool(default_fields(folder, dataset))
    except MMError:
        return False
