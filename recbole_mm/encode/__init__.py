"""From item content to vectors: encode text, import vectors, check that they still fit."""

from __future__ import annotations

from recbole_mm.encode.fresh import check_fresh, ensure_features, feature_folders, locate
from recbole_mm.encode.importer import import_vectors
from recbole_mm.encode.text import encode_text

__all__ = [
    "check_fresh",
    "encode_text",
    "ensure_features",
    "feature_folders",
    "import_vectors",
    "locate",
]
