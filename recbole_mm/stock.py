"""RecBole's own models, found by their source files without importing RecBole."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeGuard

from recbole_mm import yaml_files

FAMILIES = ("sequential", "general")
OTHER_FAMILIES = ("context_aware", "knowledge_aware")
UNSUPPORTED = {
    "S3Rec": "it is trained in two stages by a trainer of its own",
    "RaCT": "it is trained in three stages by a trainer of its own",
    "RecVAE": "its trainer alternates two optimisers in a loop of its own",
    "NCL": "its trainer clusters users in a loop of its own",
    "GRU4RecKG": "it needs knowledge-graph vectors of the items",
    "KSR": "it needs knowledge-graph vectors of the items",
    "DIN": "it predicts clicks row by row and cannot rank all items",
    "DIEN": "it predicts clicks row by row and cannot rank all items",
}
# Sequential models whose loss and scores do not change when columns that hold nothing but padding
# are cut off; a test compares both, gradients included. Of the others Caser, FOSSIL, HGN, RepeatNet
# and SINE have weights or indices per column, HRM pools a fixed number of columns, and FEARec,
# LightSANs, NPE, NextItNet, SHAN and STAMP let padding into the sum.
_IGNORES_PADDING = frozenset(
    {
        *("BERT4Rec", "CORE", "FPMC", "GCSAN", "GRU4Rec", "NARM", "SASRec", "SRGNN", "TransRec"),
    }
)


@cache
def folder() -> Path | None:
    """Return RecBole's package folder without importing it, or None where it is not installed."""
    spec = importlib.util.find_spec("recbole")
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def source_file(name: str, families: Sequence[str] = FAMILIES) -> tuple[str, Path] | None:
    """Return family and file of the RecBole model of that name, whatever its upper case."""
    root = folder()
    for family in families if root else ():
        file = Path(str(root), "model", f"{family}_recommender", f"{name.lower()}.py")
        if name.isidentifier() and file.is_file():
            return family, file
    return None


@cache
def argument_names() -> list[str]:
    """Return the keys of RecBole's own lists of arguments.

    The file that holds them is read by itself: ``import recbole.utils`` would import torch.
    """
    file = Path(str(folder()), "utils", "argument_list.py")
    lists = [node.value for node in ast.parse(file.read_text("utf-8")).body if _is_list(node)]
    return [name for value in lists for name in ast.literal_eval(value)]


def _is_list(node: ast.stmt) -> TypeGuard[ast.Assign]:
    """Return whether a statement assigns a list to a name such as ``general_arguments``."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.List)


def class_in(file: Path) -> str | None:
    """Return the name of the class that a RecBole module is called after."""
    for name in re.findall(r"^class (\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE):
        if name.lower() == file.stem:
            return str(name)
    return None


def class_names(family: str) -> list[str]:
    """Return the model names of one RecBole family, read from its source files."""
    root = folder()
    files = Path(str(root), "model", f"{family}_recommender").glob("*.py") if root else ()
    return [name for file in files if (name := class_in(file))]


def scores_by_user(model_class: type) -> bool:
    """Return whether a model is scored by one of RecBole's general recommenders, user by user.

    They know a user, here a session, by its id or by its training rows, and never read
    ``item_id_list``. Pop and Random need no user. A subclass that scores in its own way is free.
    """
    own = (
        cls for cls in model_class.__mro__ if {"full_sort_predict", "predict"} & vars(cls).keys()
    )
    _, _, module = next(own, model_class).__module__.partition("recbole.model.general_recommender.")
    return bool(module) and module not in ("pop", "random")


def ignores_padding(model_class: type) -> bool:
    """Return whether columns behind the longest history of a batch may be cut off for a model.

    A class says so itself by ``ignores_padding``, as ours do; of RecBole's models it is known. What
    is neither said nor known is taken for no, a subclass of a RecBole model too.
    """
    said = getattr(model_class, "ignores_padding", None)
    if said is not None:
        return bool(said)
    sequential = model_class.__module__.startswith("recbole.model.sequential_recommender.")
    return sequential and model_class.__name__ in _IGNORES_PADDING


def layer_name(file: str | Path) -> str:
    """Return the name of one of our own or of RecBole's YAML files for messages."""
    root = folder()
    full = Path(file).resolve()
    if root is not None and full.is_relative_to(root.resolve()):
        return f"RecBole's {full.relative_to(root.resolve())}"
    return yaml_files.short(full)
