"""Export a split as RecBole benchmark files, so that anyone can rerun it in stock RecBole."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from recbole_mm.data.atomic import write_atomic
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.errors import DataError
from recbole_mm.files import atomic_write

logger = logging.getLogger(__name__)

PARTS = ("train", "valid", "test")


def export_benchmark(dataset: SessionDataset, folder: str | Path) -> Path:
    """Write the rows of a built data set for stock RecBole.

    ``<name>.{train,valid,test}.inter`` hold one row per prediction. ``<name>.item`` lists every
    item, so that candidates which occur in no row stay candidates. ``<name>.yaml`` is the
    configuration to give to stock RecBole.

    Returns
    -------
    pathlib.Path
        The folder ``<folder>/<name>`` that was written.

    Raises
    ------
    DataError
        If an item token holds a blank, which stock RecBole would split.
    """
    name = dataset.dataset_name
    tokens = dataset.field2id_token[dataset.iid_field]
    spaced = [token for token in tokens[1:] if len(token.split()) != 1]
    if spaced:
        raise DataError(
            f"{name}: item {spaced[0]!r} holds white space, and stock RecBole would take it for "
            "several items. Rename such items in the .inter file."
        )
    if dataset.config["history"] == "mask":
        logger.warning(
            "history: mask cannot be exported: stock RecBole ranks the items of a sequential "
            "model's history like all others, so its metrics will differ."
        )
    if dataset.held_out.any():
        logger.warning(
            "cold_items: the %d items held out stand in no training row of the export. Stock "
            "RecBole ranks them by weights as they were drawn and reports no metrics of them "
            "apart; here new_item_ids fills them.", int(dataset.held_out.sum())
        )  # fmt: skip
    target = Path(folder) / name
    for part in PARTS:
        frame, types = _rows_frame(dataset, part)
        write_atomic(target / f"{name}.{part}.inter", frame, types)
    items = pd.DataFrame({dataset.iid_field: tokens[1:]})
    write_atomic(target / f"{name}.item", items, {dataset.iid_field: "token"})
    with atomic_write(target / f"{name}.yaml") as stream:
        yaml.safe_dump(_stock_config(dataset), stream, sort_keys=False)
    return target


def _rows_frame(dataset: SessionDataset, part: str) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return one part's rows as text cells, and the types of the columns."""
    rows = dataset.rows(part)
    tokens = dataset.field2id_token[dataset.iid_field]
    histories = [
        " ".join(tokens[history[:length]])
        for history, length in zip(rows.history, rows.length, strict=True)
    ]
    columns = {
        dataset.uid_field: (dataset.session_tokens(rows.session), "token"),
        dataset.item_id_list_field: (histories, "token_seq"),
        dataset.iid_field: (dataset.tokens(rows.target), "token"),
    }
    frame = pd.DataFrame({name: cells for name, (cells, _) in columns.items()})
    return frame, {name: kind for name, (_, kind) in columns.items()}


def _stock_config(dataset: SessionDataset) -> dict[str, Any]:
    """Return the keys that make stock RecBole read the files as they are meant."""
    uid, iid, seq = dataset.uid_field, dataset.iid_field, dataset.item_id_list_field
    config = dataset.config
    return {
        "benchmark_filename": list(PARTS),
        "USER_ID_FIELD": uid,
        "ITEM_ID_FIELD": iid,
        "alias_of_item_id": [seq],
        "load_col": {"inter": [uid, seq, iid], "item": [iid]},
        "MAX_ITEM_LIST_LENGTH": config["MAX_ITEM_LIST_LENGTH"],
        "train_neg_sample_args": None,
        "metrics": list(config["metrics"]),
        "topk": list(config["topk"]),
        "valid_metric": config["valid_metric"],
    }
