"""Rows that tell what each modality of a model is worth: without it, with shuffled, random vectors.

A row is made again for each modality that it reads: left out by the model's own keys; with the
vectors of other items; with random vectors. What is lost against the row as it stands is what the
modality is worth.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from recbole_mm.config import MMConfig
from recbole_mm.data.atomic import header
from recbole_mm.data.session_dataset import feature_files
from recbole_mm.encode import available_modalities
from recbole_mm.errors import ConfigError
from recbole_mm.files import Plain
from recbole_mm.prepare import ensure_dataset
from recbole_mm.rows import RowSpec, as_argument
from recbole_mm.run.prepared import needed_modalities

logger = logging.getLogger(__name__)

MODALITIES = "modalities"
LEFT_OUT, SOURCES = "left out", ("shuffled", "random")
_PSEUDO = "pseudo_"


def knocked_out(
    rows: Sequence[RowSpec], what: str, configure: Callable[[RowSpec], MMConfig]
) -> list[RowSpec]:
    """Return the rows that are made of others by knocking out their modalities, one at a time.

    Parameters
    ----------
    rows
        Rows of a comparison.
    what
        ``modalities``.
    configure
        Returns the configuration of a row.

    Raises
    ------
    ConfigError
        ``what`` is another word, or no row reads a modality.
    """
    if what != MODALITIES:
        raise ConfigError(f"knock_out = {what!r} is not accepted; expected {MODALITIES}")
    made = [
        one
        for row in rows
        for one in _of_row(row, configure(row))
        if _can_be_run(one, configure(one))
    ]
    if not made:
        raise ConfigError(
            "knock_out = modalities: no row reads text, images or another modality here. Add one "
            'that does, for example --models="SRIM MMSBR"'
        )
    return made


def _of_row(row: RowSpec, config: MMConfig) -> Iterator[RowSpec]:
    """Yield the rows made of one."""
    ensure_dataset(config["dataset"], Path(config["data_path"]))
    available = available_modalities(config, feature_files(config))
    used = needed_modalities(config, available)
    without = _without(config, available)
    for modality in dict.fromkeys([*used, *without]):
        if modality in without:
            yield _made(row, modality, LEFT_OUT, without[modality])
        elif not modality.startswith(_PSEUDO):
            logger.info("%s has no key that leaves %s out", row.label, modality)
        if modality in used and not modality.startswith(_PSEUDO):
            # Pseudo vectors tell of the item, too.
            concerned = [name for name in used if name in (modality, _PSEUDO + modality)]
            for source in SOURCES:
                keys: dict[str, Plain] = {
                    "feature_source": source,
                    "feature_source_of": [*concerned],
                }
                yield _made(row, modality, source, keys)


def _can_be_run(row: RowSpec, config: MMConfig) -> bool:
    """Return whether a model makes sense of the keys; without its only input none does."""
    settings = config.spec.load_settings(config["preset"])
    try:
        if settings is not None:
            settings.of(config)
    except ConfigError as error:
        logger.warning("there is no row %s: %s", row.label, error)
        return False
    return True


def _without(config: MMConfig, available: Sequence[str]) -> dict[str, Mapping[str, Plain]]:
    """Return the keys that leave each modality out, of those that the data have."""
    settings = config.spec.load_settings(config["preset"])
    if settings is None:
        return {}
    accepted = settings.keys()
    item_file = Path(config["data_path"], f"{config['dataset']}.item")
    there = {*available, *(header(item_file) if item_file.is_file() else ())}
    return {
        name: keys
        for name, keys in settings.of(config).knock_outs(available).items()
        if name in there and all(key in accepted or key == "preset" for key in keys)
    }


def _made(row: RowSpec, modality: str, how: str, keys: Mapping[str, Plain]) -> RowSpec:
    """Return a row with other keys; those of the row that they replace are dropped."""
    kept = tuple((key, text) for key, text in row.keys if key not in keys)
    changed = tuple((key, as_argument(value)) for key, value in keys.items())
    name = f"without {modality}" if how == LEFT_OUT else f"{how} {modality}"
    return RowSpec(
        f"{row.label}, {name}", row.model, kept + changed, row.tuned,
        {"of": row.label, "modality": modality, "how": how},
    )  # fmt: skip
