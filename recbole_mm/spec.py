"""What is known of a model before its class is imported, and the models of this package."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_mm.errors import ConfigError

if TYPE_CHECKING:
    from recbole_mm.model.settings import ModelSettings

# Classes that were handed over instead of named by a path, by the model's name.
CLASSES: dict[str, type] = {}


def _imported_class(path: str) -> type:
    found: type = import_object(path)
    return found


def import_object(path: str) -> Any:
    """Import ``package.module:Name`` and return the object.

    Raises
    ------
    ConfigError
        The path is not of that form, or the module has no such name.
    """
    module, _, name = path.partition(":")
    if not name:
        raise ConfigError(f"'{path}' must be written package.module:Class")
    found = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"the module {module} has no '{name}'")
        found = getattr(found, part)
    return found


@dataclass(frozen=True)
class ModelSpec:
    """What is known of a model before its class is imported.

    Attributes
    ----------
    name
        Name on the command line; also the class name for RecBole's models.
    path
        ``package.module:Class``.
    trainer
        ``package.module:Class`` of its trainer, or None for RecBole's choice.
    modalities
        Feature files that a third party's model reads, such as ``("text", "image")``; ours say it
        in their settings.
    origin
        ``"recbole_mm"``, ``"recbole"`` or ``"plugin"``.
    defaults
        YAML file with the default of each of its keys, or None.
    settings
        ``package.module:Class`` of its settings (`recbole_mm.model.settings`), or None for a model
        that reads its keys by name.
    variants
        ``{preset: (class, settings)}``, paths like the two above, of presets that are classes of
        their own: what a released code does differently.
    """

    name: str
    path: str
    trainer: str | None = None
    modalities: tuple[str, ...] = ()
    origin: str = "plugin"
    defaults: Path | None = None
    settings: str | None = None
    variants: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def load(self, preset: str = "sound") -> type:
        """Import and return the model's class, which a preset may replace by a variant of it."""
        if preset in self.variants:
            return _imported_class(self.variants[preset][0])
        return CLASSES.get(self.name) or _imported_class(self.path)

    def load_settings(self, preset: str = "sound") -> type[ModelSettings] | None:
        """Import and return the class of the settings, without importing torch."""
        path = self.variants[preset][1] if preset in self.variants else self.settings
        found: type[ModelSettings] | None = import_object(path) if path else None
        return found

    def load_trainer(self) -> type | None:
        """Import and return the model's own trainer class, or None."""
        return import_object(self.trainer) if self.trainer else None


_MODEL = "recbole_mm.model"
OURS = {
    "SRIM": ModelSpec(
        "SRIM",
        f"{_MODEL}.srim.model:SRIM",
        origin="recbole_mm",
        settings=f"{_MODEL}.srim.settings:SRIMSettings",
        variants={
            "official": (
                f"{_MODEL}.srim.official:OfficialSRIM",
                f"{_MODEL}.srim.settings:OfficialSRIMSettings",
            ),
            "official_leaky": (
                f"{_MODEL}.srim.official:OfficialLeakySRIM",
                f"{_MODEL}.srim.settings:OfficialSRIMSettings",
            ),
        },
    ),
    "AlterRec": ModelSpec(
        "AlterRec",
        f"{_MODEL}.alterrec.model:AlterRec",
        "recbole_mm.trainer.alterrec:AlterRecTrainer",
        origin="recbole_mm",
        settings=f"{_MODEL}.alterrec.settings:AlterRecSettings",
        variants={
            "official": (
                f"{_MODEL}.alterrec.official:OfficialAlterRec",
                f"{_MODEL}.alterrec.settings:OfficialAlterRecSettings",
            )
        },
    ),
    "NFRec": ModelSpec(
        "NFRec",
        f"{_MODEL}.alterrec.nfrec:NFRec",
        origin="recbole_mm",
        settings=f"{_MODEL}.alterrec.settings:NFRecSettings",
    ),
    "MMSBR": ModelSpec(
        "MMSBR",
        f"{_MODEL}.mmsbr.model:MMSBR",
        origin="recbole_mm",
        settings=f"{_MODEL}.mmsbr.settings:MMSBRSettings",
        variants={
            "official": (
                f"{_MODEL}.mmsbr.official:OfficialMMSBR",
                f"{_MODEL}.mmsbr.settings:OfficialMMSBRSettings",
            ),
        },
    ),
    "MDSRec": ModelSpec(
        "MDSRec",
        f"{_MODEL}.mdsrec.model:MDSRec",
        origin="recbole_mm",
        settings=f"{_MODEL}.mdsrec.settings:MDSRecSettings",
    ),
    "Blend": ModelSpec(
        "Blend",
        f"{_MODEL}.parts.blend:Blend",
        origin="recbole_mm",
        settings=f"{_MODEL}.parts.settings:BlendSettings",
    ),
    **{
        name: ModelSpec(
            name,
            f"{_MODEL}.peers.{module}:{name}",
            origin="recbole_mm",
            settings=f"{_MODEL}.peers.settings:{name}Settings",
        )
        for name, module in (
            ("LLM2SASRec", "llm2"),
            ("LLM2BERT4Rec", "llm2"),
        )
    },
    "DIMO": ModelSpec(
        "DIMO",
        f"{_MODEL}.peers.dimo:DIMO",
        origin="recbole_mm",
        settings=f"{_MODEL}.peers.settings:DIMOSettings",
        variants={
            "official": (
                f"{_MODEL}.peers.dimo_official:OfficialDIMO",
                f"{_MODEL}.peers.settings:OfficialDIMOSettings",
            ),
        },
    ),
    "CoHHN": ModelSpec(
        "CoHHN",
        f"{_MODEL}.peers.cohhn:CoHHN",
        origin="recbole_mm",
        settings=f"{_MODEL}.peers.settings:CoHHNSettings",
    ),
    "MISSRec": ModelSpec(
        "MISSRec",
        f"{_MODEL}.peers.missrec:MISSRec",
        origin="recbole_mm",
        settings=f"{_MODEL}.peers.settings:MISSRecSettings",
    ),
    "UniSRec": ModelSpec(
        "UniSRec",
        f"{_MODEL}.peers.unisrec:UniSRec",
        origin="recbole_mm",
        settings=f"{_MODEL}.peers.settings:UniSRecSettings",
        variants={
            "pretrain": (
                f"{_MODEL}.peers.contrastive:ContrastiveUniSRec",
                f"{_MODEL}.peers.settings:ContrastiveUniSRecSettings",
            ),
        },
    ),
    **{
        name: ModelSpec(
            name,
            f"{_MODEL}.counting.{module}:{name}",
            origin="recbole_mm",
            settings=f"{_MODEL}.counting.settings:{name}Settings",
        )
        for name, module in (
            ("SPop", "rules"),
            ("SessionRules", "rules"),
            ("SessionKNN", "neighbours"),
            ("ContentKNN", "content"),
            ("Counting", "model"),
        )
    },
}
# Models of RecBole that take item vectors as well; without any they are RecBole's, bit by bit.
WITH_VECTORS = {
    name: ModelSpec(
        name,
        f"{_MODEL}.peers.vectors:{name}",
        origin="recbole",
        settings=f"{_MODEL}.peers.settings:VectorSettings",
    )
    for name in ("SASRecF", "GRU4RecF", "FDSA")
}
