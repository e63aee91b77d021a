"""The rows and candidates that runs must share to be blended, as their folders have them stored.

Neither torch nor RecBole is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_mm import yaml_files
from recbole_mm.errors import CheckpointError, ConfigError
from recbole_mm.files import BEST, CONFIG, Plain

BLEND = "Blend"
# What makes rows, candidates and histories; the same for all runs of a blend.
PROTOCOL = (
    "dataset",
    "split_by",
    "split_ratio",
    "split_seed",
    "eval_targets",
    "cold_targets",
    "cold_items",
    "new_item_ids",
    "candidates",
    "history",
    "MAX_ITEM_LIST_LENGTH",
    "USER_ID_FIELD",
    "ITEM_ID_FIELD",
    "TIME_FIELD",
)


def stored_settings(folder: str | Path) -> dict[str, Plain]:
    """Return the settings that a finished run has stored.

    Raises
    ------
    CheckpointError
        There is no finished run, or its settings are damaged.
    """
    stored = Path(folder, CONFIG)
    if not stored.is_file() or not Path(folder, BEST).is_file():
        raise CheckpointError(
            f"{folder}: no {CONFIG} and {BEST} there. Expected the folder of a finished run, such "
            "as saved/<dataset>/<model>/<name>"
        )
    found = yaml_files.load_yaml(stored)
    if not {"model", *PROTOCOL} <= set(found):
        raise CheckpointError(f"{stored} is damaged: it does not name the run's protocol.")
    return found


def shared_protocol(folders: Sequence[str]) -> dict[str, Plain]:
    """Return the protocol that all runs share, and where their data lie.

    Raises
    ------
    ConfigError
        Fewer than two runs, or runs of two protocols; names the first key that differs.
    CheckpointError
        See `stored_settings`.
    """
    if len(folders) < 2:
        raise ConfigError("runs: expected two or more run folders, separated by blanks")
    own = stored_settings(folders[0])
    for folder in folders[1:]:
        require_same(own, stored_settings(folder), f"in {folders[0]}", f"in {folder}")
    return {key: own[key] for key in (*PROTOCOL, "data_path", "feature_path")}


def require_same(
    one: Mapping[str, Plain], other: Mapping[str, Plain], where: str, there: str
) -> None:
    """Refuse two runs whose rows or candidates differ; the texts say where each is from."""
    for key in PROTOCOL:
        if one[key] != other[key]:
            raise ConfigError(
                f"runs: {key} is {one[key]!r} {where} and {other[key]!r} {there}; expected runs on "
                "the same rows and candidates"
            )
