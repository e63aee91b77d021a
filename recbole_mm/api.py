"""The jobs of the command line as functions: ``recbole_mm.run``, ``compare``, ``tune``, ``encode``.

With `recbole_mm.Recommender` they are the public interface; docs/api.md shows them in use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_mm import registry
from recbole_mm.compare.execute import compare as compare_rows
from recbole_mm.encode.price import MODALITY as PRICE
from recbole_mm.encode.price import encode_price
from recbole_mm.prepare import ensure_dataset
from recbole_mm.run.execute import run as run_once
from recbole_mm.run.record import RunResult
from recbole_mm.tune.search import TRIALS
from recbole_mm.tune.search import tune as tune_rows
from recbole_mm.yaml_files import default_data_path, default_feature_path

_PICTURES = ("images", "image_col")


def run(
    model: str = "",
    dataset: str = "",
    *,
    config_files: Sequence[str | Path] = (),
    resume: str | Path | None = None,
    plugins: Sequence[str] = (),
    **keys: object,
) -> RunResult:
    """Train a model, select the epoch on validation, test once, and write a run folder.

    Parameters
    ----------
    model, dataset
        Names, such as ``"SRIM"`` and ``"Cellphones"``. With ``resume`` they may be left out.
    config_files
        YAML files, later ones win.
    resume
        A run folder to go on with.
    plugins
        Python modules that register models.
    **keys
        Any key of properties/keys.yaml or of the model's YAML, above all files.

    Returns
    -------
    RunResult
        ``folder``, ``record`` (the content of ``result.json``), ``valid`` and ``test`` metrics.

    Raises
    ------
    recbole_mm.MMError
        Wrong configuration, data, features or checkpoint, or a loss that is not finite.
    """
    registry.load_plugins(list(plugins))
    return run_once(model, dataset, config_files, keys, resume)


def compare(
    models: str | Sequence[str],
    dataset: str,
    *,
    seeds: Sequence[int] = (2020,),
    seeds_for: Mapping[str, int] | None = None,
    output: str | Path | None = None,
    jobs: int = 1,
    baseline: str | None = None,
    tuned: str | Path | None = None,
    knock_out: str | None = None,
    config_files: Sequence[str | Path] = (),
    plugins: Sequence[str] = (),
    **keys: object,
) -> Path:
    """Run several models over several seeds, one process each, and write one table.

    Parameters
    ----------
    models
        ``"SRIM SASRec"`` or a list; a variant is written ``SRIM:preset=official,n_layers=1``.
    dataset
        Name of the data set.
    seeds, seeds_for
        Seeds of every row; fewer for some of them: ``{"SRIM": 1}``.
    output
        Folder of runs and tables; ``saved/compare/<dataset>`` if left out. Runs that are there
        already are not made again.
    jobs
        Runs side by side.
    baseline
        The row that the others are tested against.
    tuned
        Output folder of `tune`: rows take their best settings from there.
    knock_out
        ``"modalities"`` adds rows with each modality left out, shuffled and random.
    config_files, plugins, **keys
        Given to every run, as in `run`.

    Returns
    -------
    Path
        The table, Markdown; ``table.csv`` is beside it.

    Raises
    ------
    recbole_mm.MMError
        A row, seed or key is wrong; found before anything is run.
    """
    rows = models.split() if isinstance(models, str) else list(models)
    registry.load_plugins(list(plugins))
    return compare_rows(
        dataset, rows, list(seeds), seeds_for=seeds_for, output=output, config_files=config_files,
        plugins=plugins, overrides=keys, jobs=jobs, baseline=baseline, tuned=tuned,
        knock_out=knock_out,
    )  # fmt: skip


def tune(
    models: str | Sequence[str],
    dataset: str,
    *,
    trials: int = TRIALS,
    seconds: float | None = None,
    output: str | Path | None = None,
    space: str | Path | None = None,
    config_files: Sequence[str | Path] = (),
    plugins: Sequence[str] = (),
    **keys: Any,
) -> Path:
    """Search the best settings of several models under one budget, on validation alone.

    Parameters
    ----------
    models
        ``"SRIM SASRec"`` or a list; a variant is written ``SRIM:preset=hybrid``.
    dataset
        Name of the data set.
    trials, seconds
        What each model gets: trials, and seconds over all of them.
    output
        Folder of studies and tables; ``saved/tune/<dataset>`` if left out. Trials that are there
        already are not made again.
    space
        Folder of search spaces of your own, ``<Model>.yaml``.
    config_files, plugins, **keys
        Given to every trial, as in `run`; keys that are given are not searched.

    Returns
    -------
    Path
        The table, Markdown; all trials and the best settings of each model are beside it.

    Raises
    ------
    recbole_mm.MMError
        A row, space, budget or key is wrong, or there is no such data set.
    """
    rows = models.split() if isinstance(models, str) else list(models)
    registry.load_plugins(list(plugins))
    return tune_rows(
        dataset, rows, trials=trials, seconds=seconds, output=output, space=space,
        config_files=config_files, overrides=keys,
    )  # fmt: skip


def encode(
    dataset: str,
    modality: str = "text",
    *,
    data_path: str | Path | None = None,
    feature_path: str | Path | None = None,
    **options: Any,
) -> Path:
    """Turn texts, pictures or prices of the items into a feature file.

    Parameters
    ----------
    dataset
        Name of the data set.
    modality
        ``"text"``, ``"image"``, ``"price"``, or another name for the file.
    data_path
        Folder that holds one folder per data set.
    feature_path
        Folder of the feature file; where runs look for it if left out.
    **options
        Those of `recbole_mm.encode.encode_text` (``encoder``, ``fields``, ``pooling``, ...) or,
        with ``images``, ``image_col`` or modality ``image``, of `recbole_mm.encode.encode_image`;
        with modality ``price``, of `recbole_mm.encode.price.encode_price`.

    Returns
    -------
    Path
        The feature file; its manifest is beside it.

    Raises
    ------
    recbole_mm.MMError
        The data set, its texts or pictures, or the encoder are missing.
    """
    folder = Path(data_path or default_data_path()) / dataset
    ensure_dataset(dataset, folder)
    out = feature_path or default_feature_path(folder, dataset)
    if modality == PRICE:
        return encode_price(folder, dataset, Path(out), **options)
    # Imported here: what pictures need is an extra.
    if modality == "image" or any(name in options for name in _PICTURES):
        from recbole_mm.encode import encode_image

        return encode_image(folder, dataset, out, modality=modality, **options)
    from recbole_mm.encode import encode_text

    return encode_text(folder, dataset, out, modality=modality, **options)
