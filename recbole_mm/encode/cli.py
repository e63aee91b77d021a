"""The job ``recbole-mm encode``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from recbole_mm import processes
from recbole_mm.encode.image.download import Limits
from recbole_mm.encode.image.job import NoPicturesError, encode_image
from recbole_mm.encode.image.labels import TOP
from recbole_mm.encode.importer import import_vectors
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.encode.options import IMAGE, TEXT
from recbole_mm.encode.price import MODALITY as PRICE
from recbole_mm.encode.price import encode_price
from recbole_mm.encode.recipe import (
    Options,
    Step,
    is_text,
    load_recipe,
    present_fields,
    select,
    with_overrides,
)
from recbole_mm.encode.text.job import MODALITY, encode_text
from recbole_mm.errors import EncodeError
from recbole_mm.files import checked_name
from recbole_mm.options import comma_words
from recbole_mm.prepare import ensure_dataset
from recbole_mm.yaml_files import default_data_path, default_feature_path

logger = logging.getLogger(__name__)

# When another of several processes has ended.
_START_AGAIN = "Finished chunks are kept: start again, with any number of processes."


def encode_command(args: argparse.Namespace, overrides: Mapping[str, object]) -> int:
    """Encode texts or pictures, or import vectors, and print what was made.

    Parameters
    ----------
    args
        ``dataset`` is required; the rest are the options of `recbole_mm.encode.options`, None
        where not given. ``from_npy`` and ``ids`` import instead of encoding.
    overrides
        Other ``--key=value`` pairs: ``feature_path`` and ``ITEM_ID_FIELD`` mean what they mean in
        a run.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    EncodeError, FeatureError, DataError
        With what is wrong and how to mend it.
    """
    # Of several processes, the first speaks.
    handler = logging.StreamHandler(sys.stderr) if processes.leads() else logging.NullHandler()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    if "image_urls" in overrides:
        raise EncodeError("--image_urls is called --image_col now, and takes paths, too.")
    if unknown := sorted(set(overrides) - {"feature_path", "ITEM_ID_FIELD"}):
        raise EncodeError(
            f"encode does not know {', '.join('--' + key for key in unknown)}. `recbole-mm encode "
            "--help` lists its options."
        )
    folder = Path(args.data_path or default_data_path()) / checked_name(args.dataset, "dataset")
    default = default_feature_path(folder, args.dataset)
    out = Path(args.out or str(overrides.get("feature_path") or default))
    item_field = str(overrides.get("ITEM_ID_FIELD") or "item_id")
    with processes.joined(None, _START_AGAIN):
        for path in _made(args, folder, out, item_field):
            _report(path)
    return 0


def _made(args: argparse.Namespace, folder: Path, out: Path, item_field: str) -> list[Path]:
    """Make what was asked for; what takes no time, the first of several processes does."""
    if args.from_npy or args.ids:
        return _by_one(lambda: _import(args, out))
    with processes.leader_first():
        ensure_dataset(args.dataset, folder)
    if args.modality == PRICE and not args.recipe:
        return _by_one(lambda: encode_price(folder, args.dataset, out, item_field))
    job = _Work(args, folder, out, item_field)
    return job.recipe() if args.recipe else [job.single()]


def _by_one(make: Callable[[], Path]) -> list[Path]:
    """Let the first process make a file."""
    with processes.leader_first():
        return [make()] if processes.leads() else []


class _Common(TypedDict, total=False):
    """What `encode_text` and `encode_image` both take."""

    modality: str
    item_field: str
    download: bool
    recipe: str
    batch_size: int


class _Work:
    """One call: what the user gave, and where things lie."""

    def __init__(self, args: argparse.Namespace, folder: Path, out: Path, item_field: str):
        self.args = args
        self.folder = folder
        self.out = out
        self.item_field = item_field
        self.given = {key: getattr(args, key, None) for key in (*TEXT, *IMAGE)}
        self.given["fields"] = _split(self.given["fields"])

    def single(self) -> Path:
        """Encode one modality."""
        modality = self.args.modality or MODALITY
        text = is_text(modality, self.given)
        encoder = "text_encoder" if text else "image_encoder"
        options = {**self.given, encoder: self.args.encoder or self.given[encoder]}
        return self.encode(Step(modality, False, options), text)

    def recipe(self) -> list[Path]:
        """Encode the steps of a recipe; return the files."""
        if self.args.encoder:
            self.given["text_encoder"] = self.given["text_encoder"] or self.args.encoder
        paths = []
        for step in select(load_recipe(self.args.recipe), self.args.modality, self.args.recipe):
            try:
                paths.append(self.recipe_step(with_overrides(step, self.given)))
            except _AbsentError as error:
                if self.args.strict or not step.optional:
                    raise
                _write(f"{step.modality}: left out ({error})\n")
        return paths

    def recipe_step(self, step: Step) -> Path:
        """Encode one step, with the fields that the data set has."""
        options = dict(step.options)
        if step.is_text and "fields" in options and not self.given["fields"]:
            try:
                options["fields"] = present_fields(
                    options["fields"], self.folder, self.args.dataset, self.out, self.args.strict
                )
            except EncodeError as error:
                raise _AbsentError(str(error)) from error
        try:
            return self.encode(Step(step.modality, step.optional, options), step.is_text)
        except NoPicturesError as error:
            raise _AbsentError(str(error)) from error

    def encode(self, step: Step, text: bool) -> Path:
        """Encode one feature file."""
        options = step.options
        common: _Common = {
            "modality": step.modality, "item_field": self.item_field,
            "download": bool(self.args.download), "recipe": self.args.recipe or "",
        }  # fmt: skip
        if size := _positive(self.args.batch_size, "batch_size"):
            common["batch_size"] = size
        if text:
            return encode_text(
                self.folder, self.args.dataset, self.out, fields=options.get("fields"),
                field_pooling=options.get("field_pooling") or "join",
                encoder=options.get("text_encoder") or "minilm", pooling=options.get("pooling"),
                max_length=options.get("max_length"), precision=options.get("precision"), **common,
            )  # fmt: skip
        return encode_image(
            self.folder, self.args.dataset, self.out, images=options.get("images"),
            image_col=options.get("image_col"), limits=self.limits(options),
            encoder=options.get("image_encoder") or "googlenet", weights=options.get("weights"),
            labels=_positive(options.get("labels"), "labels") or TOP, **common,
        )  # fmt: skip

    def limits(self, options: Options) -> Limits:
        """Return the bounds of fetching."""
        return replace(
            _limits(options), allow_private=bool(getattr(self.args, "allow_private", False))
        )


class _AbsentError(EncodeError):
    """The input of a recipe's step is not there."""


def _import(args: argparse.Namespace, out: Path) -> Path:
    """Import vectors; both files are needed."""
    if not (args.from_npy and args.ids):
        raise EncodeError(
            "importing vectors needs both --from_npy=vectors.npy and --ids=ids.txt (one item id "
            "per line, in the order of the rows)."
        )
    return import_vectors(args.from_npy, args.ids, out, args.dataset, args.modality or MODALITY)


def _split(fields: str | Sequence[str] | None) -> list[str] | None:
    """Return field names given as a list, or as text with commas or blanks between."""
    if not fields:
        return None
    return comma_words(fields if isinstance(fields, str) else " ".join(fields))


def _positive(value: str | float | None, name: str) -> int | None:
    """Return a given number as a whole number from 1."""
    if value is None:
        return None
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1 or number != float(value):
        raise EncodeError(f"{name} is {value!r}, expected a whole number from 1, like 64.")
    return number


def _limits(options: Options) -> Limits:
    """Return the bounds of fetching."""
    names = {"max_downloads": "count", "max_megabytes": "megabytes", "download_pause": "pause"}
    given = {names[key]: options[key] for key in names if options.get(key) is not None}
    if wrong := [key for key in names if (options.get(key) or 0) < 0]:
        raise EncodeError(f"{wrong[0]} is {options[wrong[0]]}, expected 0 or more.")
    return Limits(**given)


def _report(path: Path) -> None:
    """Print what lies on disk now."""
    manifest = load_manifest(manifest_path(path))
    counts = manifest.counts if manifest else {}
    _write(f"{path}\n")
    for name, count in counts.items():
        _write(f"  {name}: {count}\n")


def _write(text: str) -> None:
    """Print, once for all processes."""
    if processes.leads():
        sys.stdout.write(text)
