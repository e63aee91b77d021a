"""The manifest beside an ``.itememb`` file: what the vectors were made of, and by what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import get_origin, get_type_hints, is_typeddict

from recbole_mm.encode.source import About
from recbole_mm.errors import FeatureError
from recbole_mm.files import atomic_write, read_json

_FORMAT = "recbole_mm.manifest/1"
TEXT_PACKAGES = ("numpy", "torch", "transformers", "sentence-transformers")
PICTURE_PACKAGES = (*TEXT_PACKAGES, "pillow", "torchvision")
TFIDF_PACKAGES = ("numpy", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Manifest:
    """Where the vectors of one ``.itememb`` file come from.

    Attributes
    ----------
    dataset, modality
        The first two parts of the file name.
    kind
        ``encoded`` by this package, or ``imported`` from given vectors.
    itememb_sha256
        SHA-256 of the ``.itememb`` file.
    dim
        Length of a vector.
    counts
        Items with a vector, encoded, reused, missing, truncated, and the like.
    encoder
        What made the vectors.
    fields
        Columns of ``.item`` that make the text, in order; ``@image`` stands for the class names of
        the pictures.
    fields_asked
        True if the user named the fields, False if they are the data set's default.
    field_pooling
        ``join``: the fields are one text; ``mean``: the mean of the fields' vectors.
    texts_sha256
        SHA-256 over all items' text hashes.
    texts
        ``{item token: hash of its text}`` of the items with a text.
    truncated
        Tokens of the items whose text is longer than the encoder reads.
    pictures
        ``{item token: hash of its picture's file}``; of vectors made from pictures.
    missing
        ``{item token: why it has no vector}``; of items with a picture or text that gives none,
        and of those without a picture.
    source
        Of imported vectors: files and their SHA-256.
    versions
        Versions of the packages at the time.
    recipe
        Name of the recipe that the file is a part of, or the empty text.
    """

    dataset: str
    modality: str
    kind: str
    itememb_sha256: str
    dim: int
    counts: dict[str, int] = field(default_factory=dict)
    encoder: About = field(default_factory=About)
    fields: list[str] = field(default_factory=list)
    fields_asked: bool = False
    field_pooling: str = "join"
    texts_sha256: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    truncated: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    recipe: str = ""

    @property
    def contents(self) -> dict[str, str]:
        """Return ``{item token: hash of what it was encoded from}``."""
        return self.pictures or self.texts

    def made_of(self, itememb_sha256: str) -> Manifest:
        """Return the manifest of a file with this hash."""
        return replace(self, itememb_sha256=itememb_sha256)

    def save(self, path: str | Path) -> None:
        """Write the manifest as JSON, whole or not at all."""
        with atomic_write(path) as stream:
            json.dump({"format": _FORMAT, **asdict(self)}, stream, indent=1, ensure_ascii=False)
            stream.write("\n")


def manifest_path(itememb: str | Path) -> Path:
    """Return ``<Dataset>.<modality>.manifest.json`` for ``<Dataset>.<modality>.itememb``."""
    return Path(itememb).with_suffix(".manifest.json")


def load_manifest(path: str | Path) -> Manifest | None:
    """Read a manifest; None if there is no such file.

    Raises
    ------
    FeatureError
        If the file is no manifest.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        plain = read_json(path)
        if not isinstance(plain, dict) or plain.pop("format", None) != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT}")
        manifest = Manifest(**plain)
        _check_types(manifest)
    except (ValueError, TypeError) as error:
        raise FeatureError(
            f"{path}: not a manifest of this package ({error}). Remove it: the vectors beside it "
            "then count as your own; or remove both and encode again."
        ) from error
    return manifest


def _check_types(manifest: Manifest) -> None:
    """Raise a TypeError for a value of the wrong type."""
    for name, hint in get_type_hints(Manifest).items():
        kind = dict if is_typeddict(hint) else get_origin(hint) or hint
        if type(getattr(manifest, name)) is not kind:
            raise TypeError(f"{name} is not of type {kind.__name__}")


def text_hash(text: str) -> str:
    """Return 32 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


def texts_hash(hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 over ``{item: text hash}``, independent of the order of items."""
    lines = "".join(f"{item}\t{hashes[item]}\n" for item in sorted(hashes))
    return hashlib.sha256(lines.encode("utf-8")).hexdigest()


def package_versions(packages: Iterable[str] = TEXT_PACKAGES) -> dict[str, str]:
    """Return the versions of the packages that shape the vectors, where installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
