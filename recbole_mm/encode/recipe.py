"""Named recipes: the feature files of a paper, as a list of steps in ``properties/recipe``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_mm import yaml_files
from recbole_mm.data.atomic import header
from recbole_mm.encode.image.labels import labels_path
from recbole_mm.encode.options import IMAGE, TEXT
from recbole_mm.encode.text.fields import LABELS, item_file
from recbole_mm.errors import ConfigError, EncodeError

logger = logging.getLogger(__name__)

Options = Mapping[str, Any]
"""Options of a step by name, as YAML or the command line gives them."""
_STEP_KEYS = {"modality", "optional", *TEXT, *IMAGE}


@dataclass(frozen=True)
class Step:
    """One feature file of a recipe.

    Attributes
    ----------
    modality
        Name of the file's modality.
    optional
        Whether the step is left out, with a word about it, where its input is absent.
    options
        As on the command line.
    """

    modality: str
    optional: bool
    options: Options

    @property
    def is_text(self) -> bool:
        """Return whether the step encodes text."""
        return is_text(self.modality, self.options)


def is_text(modality: str, options: Options) -> bool:
    """Return whether options ask for texts or pictures; if for neither, the modality tells.

    Raises
    ------
    EncodeError
        They ask for both.
    """
    text = [key for key in TEXT if options.get(key)]
    image = [key for key in IMAGE if options.get(key)]
    if text and image:
        raise EncodeError(
            f"--{text[0]} is about texts and --{image[0]} about pictures; one file holds one kind. "
            "Make two modalities, or name a --recipe."
        )
    return bool(text) or (not image and not modality.startswith("image"))


def load_recipe(name: str) -> list[Step]:
    """Read ``properties/recipe/<name>.yaml``.

    Raises
    ------
    EncodeError
        If there is no such recipe, naming those there are, or it is broken.
    """
    file = yaml_files.path("recipe", f"{name}.yaml")
    known = sorted(path.stem for path in file.parent.glob("*.yaml"))
    if name not in known:
        raise EncodeError(f"recipe {name!r} is unknown; there are {', '.join(known)}.")
    steps = yaml_files.load_yaml(file).get("steps")
    if not isinstance(steps, list) or not all(_is_step(step) for step in steps):
        raise EncodeError(
            f"{file}: expected steps, each with modality and any of "
            f"{', '.join(sorted(_STEP_KEYS - {'modality'}))}."
        )
    return [
        Step(
            step["modality"], bool(step.get("optional")),
            {key: value for key, value in step.items() if key not in ("modality", "optional")},
        )
        for step in steps
    ]  # fmt: skip


def _is_step(step: object) -> bool:
    """Return whether an entry of the YAML file is a step."""
    return isinstance(step, dict) and "modality" in step and set(step) <= _STEP_KEYS


def with_overrides(step: Step, given: Options) -> Step:
    """Return a step with what the user gave on the command line.

    A recipe's pooling and reading length belong to its encoder, and go with it.
    """
    table = TEXT if step.is_text else IMAGE
    own = dict(step.options)
    if step.is_text and given.get("text_encoder") not in (None, own.get("text_encoder")):
        own = {key: own[key] for key in own if key not in ("pooling", "max_length")}
    own |= {key: value for key, value in given.items() if key in table and value}
    return Step(step.modality, step.optional, own)


def present_fields(
    fields: list[str], folder: str | Path, dataset: str, out: str | Path, strict: bool
) -> list[str]:
    """Return the fields of a recipe that the data set has.

    Parameters
    ----------
    fields
        Columns; ``a|b`` takes the first of these that is there; ``@image`` are class names.
    folder, dataset
        The data set's folder and name.
    out
        Folder that may hold the class names, before ``folder``.
    strict
        Raise an error for a field that is not there, rather than leave it out with a word.

    Raises
    ------
    EncodeError
        If no field is there, or one is missing and ``strict`` is set.
    """
    columns = header(item_file(folder, dataset))
    found = []
    for entry in fields:
        names = entry.split("|")
        there = [name for name in names if _is_there(name, columns, (folder, out), dataset)]
        if there:
            found.append(there[0])
            continue
        what = f"{item_file(folder, dataset)}: no {' or '.join(map(_spelled, names))}"
        if strict:
            raise EncodeError(f"{what}. The recipe wants it, and --strict leaves nothing out.")
        logger.warning("%s; the recipe goes on without.", what)
    if not found:
        raise EncodeError(
            f"{item_file(folder, dataset)}: has none of {', '.join(map(_spelled, fields))}. Name "
            "other columns with --fields."
        )
    return found


def _is_there(
    name: str, columns: Mapping[str, str], places: tuple[str | Path, ...], dataset: str
) -> bool:
    """Return whether a column, or the labels of a modality, are there."""
    if not name.startswith(LABELS):
        return name in columns
    modality = name.removeprefix(LABELS)
    return any(labels_path(place, dataset, modality).is_file() for place in places)


def _spelled(name: str) -> str:
    """Return a field in words."""
    if name.startswith(LABELS):
        return f"class names of {name.removeprefix(LABELS)} pictures ({name})"
    return f"column {name}"


def select(steps: list[Step], modality: str | None, recipe: str) -> list[Step]:
    """Return the steps of one modality, or all.

    Raises
    ------
    ConfigError
        If the recipe makes no such modality.
    """
    chosen = [step for step in steps if modality in (None, step.modality)]
    if not chosen:
        names = ", ".join(step.modality for step in steps)
        raise ConfigError(f"recipe {recipe} makes {names}, not {modality}.")
    return chosen
