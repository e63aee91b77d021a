"""From item content to vectors: encode texts and pictures, import vectors, check that they fit."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recbole_mm.calling import make_callable

if TYPE_CHECKING:
    from recbole_mm.encode.freshness import available_modalities, check_fresh, ensure_features
    from recbole_mm.encode.image.job import encode_image
    from recbole_mm.encode.importer import import_vectors
    from recbole_mm.encode.text.job import encode_text

__all__ = [
    "available_modalities",
    "check_fresh",
    "encode_image",
    "encode_text",
    "ensure_features",
    "import_vectors",
]
_MODULES = {"encode_image": "image.job", "encode_text": "text.job", "import_vectors": "importer"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that the options can be read without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'freshness')}"), name)


# `recbole_mm.encode(...)` is the job; docs/api.md.
make_callable(__name__, "recbole_mm.api:encode")
