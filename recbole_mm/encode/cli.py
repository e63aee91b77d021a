"""The job ``recbole-mm encode``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_mm.data.itememb import itememb_path
from recbole_mm.encode.importer import import_vectors
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.encode.text import BATCH_SIZE, MODALITY, encode_text
from recbole_mm.errors import EncodeError
from recbole_mm.prepare import ensure_dataset
from recbole_mm.yaml_files import default_data_path, default_feature_path

logger = logging.getLogger(__name__)


def encode_command(args: argparse.Namespace, overrides: Mapping[str, Any]) -> int:
    """Encode item texts, or import vectors, and print what was made.

    Parameters
    ----------
    args
        ``dataset`` is required. ``data_path`` is the folder above the data set's; ``modality`` is
        ``text`` by default; ``fields`` is a list, or text with commas or blanks between; then
        ``encoder``, ``batch_size`` and ``out`` (default: where a run
        looks, beside the data unless that is read-only). ``from_npy`` and
        ``ids`` import instead of encoding.
    overrides
        Other ``--key=value`` pairs: ``text_encoder``, ``feature_path`` and ``ITEM_ID_FIELD`` mean
        what they mean in a run.

    Returns
    -------
    int
        Exit code 0.

    Raises
    ------
    EncodeError, FeatureError, DataError
        With what is wrong and how to mend it.
    """
    _check_overrides(overrides)
    folder = Path(args.data_path or default_data_path()) / args.dataset
    default = default_feature_path(folder, args.dataset)
    out = Path(args.out or overrides.get("feature_path") or default)
    modality = args.modality or MODALITY
    if args.from_npy or args.ids:
        path = _import(args, out, modality)
    elif modality == MODALITY:
        ensure_dataset(args.dataset, folder)
        path = encode_text(
            folder, args.dataset, out,
            fields=_split(args.fields),
            encoder=args.encoder or overrides.get("text_encoder") or "minilm",
            batch_size=_batch_size(args.batch_size),
            item_field=overrides.get("ITEM_ID_FIELD") or "item_id",
        )  # fmt: skip
    else:
        raise EncodeError(
            f"modality {modality!r}: only text can be encoded here. Make the vectors with a tool "
            f"of your choice and import them: `recbole-mm encode --dataset={args.dataset} "
            f"--modality={modality} --from_npy=vectors.npy --ids=ids.txt` (row r of the table "
            f"belongs to line r+1 of the ids), which writes "
            f"{itememb_path(out, args.dataset, modality)}."
        )
    _report(path)
    return 0


def _check_overrides(overrides: Mapping[str, Any]) -> None:
    """Refuse keys that this job does not read."""
    known = {"text_encoder", "feature_path", "ITEM_ID_FIELD"}
    if unknown := sorted(set(overrides) - known):
        raise EncodeError(
            f"encode does not know {', '.join('--' + key for key in unknown)}. Expected --dataset, "
            "--data_path, --modality, --fields, --encoder, --from_npy, --ids, --out, --batch_size, "
            "--ITEM_ID_FIELD."
        )


def _import(args: argparse.Namespace, out: Path, modality: str) -> Path:
    """Import vectors; both files are needed."""
    if not (args.from_npy and args.ids):
        raise EncodeError(
            "importing vectors needs both --from_npy=vectors.npy and --ids=ids.txt (one item id "
            "per line, in the order of the rows)."
        )
    return import_vectors(args.from_npy, args.ids, out, args.dataset, modality)


def _split(fields: Any) -> list[str] | None:
    """Return field names given as a list, or as text with commas or blanks between."""
    if not fields:
        return None
    text = fields if isinstance(fields, str) else " ".join(fields)
    return text.replace(",", " ").split()


def _batch_size(value: Any) -> int:
    """Return the batch size as a positive number."""
    try:
        size = int(value or BATCH_SIZE)
    except ValueError:
        size = 0
    if size < 1:
        raise EncodeError(f"batch_size is {value!r}, expected a whole number from 1, like 64.")
    return size


def _report(path: Path) -> None:
    """Print what lies on disk now."""
    manifest = load_manifest(manifest_path(path))
    counts = manifest.counts if manifest else {}
    sys.stdout.write(f"{path}\n")
    for name, count in counts.items():
        sys.stdout.write(f"  {name}: {count}\n")
