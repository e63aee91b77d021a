"""Multimodal session recommendation for RecBole.

>>> import recbole_mm
>>> result = recbole_mm.run("SRIM", "Cellphones", epochs=1)  # doctest: +SKIP
>>> recommender = recbole_mm.Recommender.load(result.folder)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from recbole_mm.version import __version__ as __version__

if TYPE_CHECKING:
    from recbole_mm.api import compare, encode, run, tune
    from recbole_mm.config import MMConfig
    from recbole_mm.errors import MMError
    from recbole_mm.model.base import MMSequentialRecommender
    from recbole_mm.registry import available_models, register_model
    from recbole_mm.serve.recommender import Recommender

__all__ = [
    "MMConfig",
    "MMError",
    "MMSequentialRecommender",
    "Recommender",
    "available_models",
    "compare",
    "encode",
    "register_model",
    "run",
    "tune",
]

# Imported on first use: importing the package must not import torch.
_HOMES = {
    "MMConfig": "config",
    "MMError": "errors",
    "MMSequentialRecommender": "model.base",
    "Recommender": "serve.recommender",
    "available_models": "registry",
    "register_model": "registry",
}


# Rooms of the package that are also called.
_JOBS = ("compare", "encode", "run", "tune")


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _JOBS:
        return import_module(f"recbole_mm.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'recbole_mm' has no attribute '{name}'")
    return getattr(import_module(f"recbole_mm.{_HOMES[name]}"), name)
