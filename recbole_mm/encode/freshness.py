"""Before a run: see that the feature files are there and still fit what they were made of."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.encode.manifest import Manifest, load_manifest, manifest_path
from recbole_mm.encode.source import resolve_encoder
from recbole_mm.encode.text.fields import default_fields, item_file, item_texts
from recbole_mm.encode.text.job import MODALITY, encode_text, text_contents
from recbole_mm.encode.text.tfidf import TFIDF, tfidf_revision
from recbole_mm.errors import EncodeError, FeatureError, MMError

logger = logging.getLogger(__name__)

_LISTED = 3


class Settings(Protocol):
    """What is needed of a configuration."""

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key."""


def available_modalities(config: Settings, files: FeatureFiles) -> tuple[str, ...]:
    """Return the modalities of a data set that have a feature file, text and image first.

    Text counts where it will be encoded on first use, too: ``encode_on_first_use`` is set and the
    ``.item`` file has a text column.

    Parameters
    ----------
    config
        Read are ``data_path`` (the data set's folder) and ``encode_on_first_use``.
    files
        The data set's feature files.
    """
    there = [*files.paths(), *([MODALITY] if _can_encode(config, files.dataset) else [])]
    return tuple(sorted(set(there), key=lambda name: (name != MODALITY, name != "image", name)))


def _can_encode(config: Settings, dataset: str) -> bool:
    """Tell whether the texts stand there and may be encoded."""
    folder = Path(config["data_path"])
    try:
        return bool(
            config["encode_on_first_use"]
            and item_file(folder, dataset).is_file()
            and default_fields(folder, dataset)
        )
    except MMError:
        return False


def ensure_features(config: Settings, files: FeatureFiles, modalities: Iterable[str]) -> None:
    """See that every modality has a feature file that still fits; encode text on first use.

    Parameters
    ----------
    config
        Read are ``data_path`` (the data set's folder), ``text_encoder``, ``encode_on_first_use``
        and ``ITEM_ID_FIELD``.
    files
        The data set's feature files; text is encoded into the first of their folders.
    modalities
        What the model needs.

    Raises
    ------
    FeatureError
        If a file is missing or stale.
    EncodeError
        If text has to be encoded and cannot be.
    """
    encoder, item_field = config["text_encoder"], config["ITEM_ID_FIELD"]
    for modality in modalities:
        try:
            files.find(modality)
        except FeatureError:
            if modality != MODALITY or not config["encode_on_first_use"]:
                raise
            _encode_first(config, files)
            continue
        check_fresh(files, modality, config["data_path"], encoder=encoder, item_field=item_field)


def _encode_first(config: Settings, files: FeatureFiles) -> None:
    """Encode text into the first feature folder."""
    out = files.folders[0]
    logger.info(
        "%s has no text vectors yet: encoding its items once with %s into %s.",
        files.dataset, config["text_encoder"], out,
    )  # fmt: skip
    encode_text(
        config["data_path"], files.dataset, out,
        encoder=config["text_encoder"], item_field=config["ITEM_ID_FIELD"],
    )  # fmt: skip


def check_fresh(
    files: FeatureFiles,
    modality: str,
    folder: str | Path,
    *,
    encoder: str,
    item_field: str = "item_id",
) -> None:
    """Compare a feature file with its manifest, and the manifest with data and settings.

    A file without manifest is the user's own and passes. Of vectors made from pictures only the
    file is checked, since a run does not know the pictures. Text that a recipe or pooling options
    asked for, and any modality but ``text``, keeps its own encoder, whatever the run says.

    Parameters
    ----------
    files
        The data set's feature files.
    modality
        Which of them.
    folder
        The data set's folder, with its ``.item`` file.
    encoder
        The text encoder that the run asks for.
    item_field
        Column with the item tokens.

    Raises
    ------
    FeatureError
        If the file was edited, or its texts, fields or encoder are others by now; all that differs
        is named.
    """
    path, dataset = files.find(modality), files.dataset
    manifest = load_manifest(manifest_path(path))
    if manifest is None:
        logger.info("%s has no manifest: taken as it is.", path)
        return
    if files.read(modality).sha256 != manifest.itememb_sha256:
        raise FeatureError(
            f"{path} is stale: the vector file was edited after it was made. To keep it as your "
            f"own remove {manifest_path(path)}; to make it anew remove both and run `recbole-mm "
            "encode`."
        )
    if manifest.kind != "encoded" or manifest.pictures:
        return
    if manifest.recipe or manifest.encoder.get("asked") or modality != MODALITY:
        encoder = str(manifest.encoder.get("name"))
    reasons = [_encoder_change(manifest, encoder)]
    if item_file(folder, dataset).is_file():
        reasons += _text_changes(manifest, folder, dataset, item_field, path.parent)
    if stale := [reason for reason in reasons if reason]:
        raise FeatureError(
            f"{path} is stale: {'; '.join(stale)}. Bring it up to date with `recbole-mm encode "
            f"--dataset={dataset} --data_path={Path(folder).parent} --modality={modality} "
            f"--encoder={encoder}{_options(manifest)} --out={path.parent}`."
        )


def _options(manifest: Manifest) -> str:
    """Return the options that made a file, as they are given to ``recbole-mm encode``."""
    options = dict(manifest.encoder.get("asked", {}))
    if manifest.field_pooling != "join":
        options["field_pooling"] = manifest.field_pooling
    if manifest.fields_asked:
        options["fields"] = f'"{" ".join(manifest.fields)}"'
    if manifest.recipe:
        options["recipe"] = manifest.recipe
    return "".join(f" --{key}={value}" for key, value in options.items())


def _encoder_change(manifest: Manifest, encoder: str) -> str:
    """Say how the encoder differs, or return the empty text."""
    name, revision = manifest.encoder.get("name"), manifest.encoder.get("revision")
    try:
        now = tfidf_revision() if encoder == TFIDF else resolve_encoder(encoder).revision
    except EncodeError:
        # The vectors are there, so the encoder need not be; then only its name can be compared.
        return "" if name == encoder else f"encoder (made by {name}, the run asks for {encoder})"
    if now == revision:
        return ""
    if name == encoder:
        return f"encoder ({name} was {revision}, is {now})"
    return f"encoder (made by {name}, the run asks for {encoder}; or set --text_encoder={name})"


def _text_changes(
    manifest: Manifest, folder: str | Path, dataset: str, item_field: str, place: Path
) -> list[str]:
    """Say how fields and texts differ; class names are looked for in ``place`` first."""
    reasons = []
    fields = manifest.fields
    if not manifest.fields_asked and fields != (now := default_fields(folder, dataset)):
        reasons.append(f"fields (made of {', '.join(fields)}, are {', '.join(now)})")
        fields = now
    try:
        items = item_texts(folder, dataset, fields, item_field, (place, folder))
    except MMError as error:
        return [*reasons, f"texts ({error})"]
    contents = text_contents(items, manifest.field_pooling)
    changed = [t for t, content in contents.items() if manifest.texts.get(t) != content.key]
    gone = [token for token in manifest.texts if token not in contents]
    for named, what in ((changed, "changed or new"), (gone, "gone")):
        if named:
            shown = ", ".join(named[:_LISTED]) + (", ..." if len(named) > _LISTED else "")
            reasons.append(f"texts of {len(named)} item(s) {what} ({shown})")
    return reasons
