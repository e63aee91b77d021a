"""Item vectors, 100,000 x 384 numbers: write, first read, second read, and stock RecBole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import common

N_ITEMS, WIDTH, NAME = 100_000, 384, "features"
QUICK = {"N_ITEMS": 200}


def write(folder: str) -> dict[str, Any]:
    """Write interactions and vectors; the vectors are timed."""
    import numpy as np

    from recbole_mm.data.itememb import itememb_path, write_itememb

    session, item = common.zipf_sessions(N_ITEMS, N_ITEMS, 3.0)
    common.write_dataset(Path(folder), NAME, session, item)
    tokens = [str(number) for number in range(N_ITEMS)]
    vectors = np.random.default_rng(2).standard_normal((N_ITEMS, WIDTH), np.float32)
    path = itememb_path(Path(folder) / NAME, NAME, "text")
    time = common.seconds(lambda: write_itememb(path, "text", tokens, vectors))
    return {"seconds": time, "megabytes": path.stat().st_size / 1e6}


def read(folder: str) -> dict[str, Any]:
    """Read the vectors; the first call leaves a binary copy that later ones load."""
    from recbole_mm.data.itememb import itememb_path, read_itememb

    path = itememb_path(Path(folder) / NAME, NAME, "text")
    time = common.seconds(lambda: read_itememb(path, "text"))
    # A mapped file is read when its numbers are used.
    used = common.seconds(lambda: read_itememb(path, "text").vectors.sum())
    return {"seconds": time, "used": used}


def stock(folder: str, vectors: bool) -> dict[str, Any]:
    """Build RecBole's data set with the vectors as a preloaded weight, or without them."""
    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line
    from recbole.config import Config
    from recbole.data.dataset import SequentialDataset

    from recbole_mm import compat

    compat.restore_numpy_names()
    columns: dict[str, Any] = {"inter": ["session_id", "item_id", "timestamp"]}
    settings: dict[str, Any] = {
        "data_path": folder, "USER_ID_FIELD": "session_id", "ITEM_ID_FIELD": "item_id",
        "load_col": columns, "train_neg_sample_args": None, "use_gpu": False,
    }  # fmt: skip
    if vectors:
        columns["text.itememb"] = ["text_id", "text_emb"]
        settings["additional_feat_suffix"] = ["text.itememb"]
        settings["alias_of_item_id"] = ["text_id"]
        settings["preload_weight"] = {"text_id": "text_emb"}
    config = Config(model="SASRec", dataset=NAME, config_dict=settings)
    with compat.lengths_of_cells():
        return {"seconds": common.seconds(lambda: SequentialDataset(config))}


def report() -> None:
    """Print the table."""
    print(__doc__)
    with common.temporary_folder() as folder:
        where = str(folder)
        written = common.run_part("write", folder=where)
        first, second = (common.run_part("read", folder=where) for _ in range(2))
        bare = common.run_part("stock", folder=where, vectors=False)
        full = common.run_part("stock", folder=where, vectors=True)
    stock_seconds = full["seconds"] - bare["seconds"]
    rows = [
        ("write", written["seconds"], "", written["peak_mb"]),
        ("first read", first["seconds"], stock_seconds / first["seconds"], first["peak_mb"]),
        ("second read", second["seconds"], stock_seconds / second["seconds"], second["peak_mb"]),
        ("second read and a sum of it", second["used"], stock_seconds / second["used"], ""),
        ("stock route (with - without)", stock_seconds, 1.0, full["peak_mb"]),
    ]
    print(f"{N_ITEMS:,} x {WIDTH}, {written['megabytes']:.0f} MB of text\n")
    common.table(("", "seconds", "stock / this", "peak MiB"), rows)


if __name__ == "__main__":
    common.main({"write": write, "read": read, "stock": stock}, report)
