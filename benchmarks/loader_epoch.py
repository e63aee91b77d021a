"""Data set, loader and one epoch: this package against stock RecBole on the same rows.

About 100,000 interactions, leave-one-out, every prefix a row, SASRec with RecBole's sizes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common

N_ITEMS, N_SESSIONS, MEAN_LENGTH = 5_000, 20_000, 5.0
NAME = "epoch"
QUICK = {"N_ITEMS": 200, "N_SESSIONS": 400}
SHARED = {"MAX_ITEM_LIST_LENGTH": 20, "train_batch_size": 2048, "epochs": 1}


def write(folder: str) -> dict[str, Any]:
    """Write the data set, with text vectors for SRIM."""
    sessions = common.zipf_sessions(N_ITEMS, N_SESSIONS, MEAN_LENGTH, shortest=3)
    common.write_dataset(Path(folder), NAME, *sessions, width=384)
    return {"interactions": len(sessions[0])}


def ours(folder: str, model: str) -> dict[str, Any]:
    """Time this package's data set, loader and trainer."""
    from recbole_mm.trainer.base import trainer_class

    made: list[Any] = []
    build = common.seconds(
        lambda: made.append(
            common.prepare(Path(folder), model, NAME, split_by="leave_one_out", **SHARED)
        )
    )
    prepared = made[0]
    trainer = trainer_class(prepared.spec, type(prepared.model))(prepared.config, prepared.model)
    return _epoch(prepared.train, trainer, build)


def stock(folder: str, anomaly: bool) -> dict[str, Any]:
    """Time RecBole's own data set, loader and trainer, as ``recbole.quick_start`` uses them."""
    config, build = common.stock_sasrec(folder, NAME, folder, anomaly, **SHARED)
    from recbole.trainer import Trainer

    made: list[tuple[Any, Any]] = []
    time = common.seconds(lambda: made.append(build()))
    train, model = made[0]
    return _epoch(train, Trainer(config, model), time)


def _epoch(train: Any, trainer: Any, build: float) -> dict[str, Any]:
    """Time one pass over the loader alone and one epoch of training."""
    loader = common.seconds(lambda: [None for _ in train])
    epoch = common.seconds(lambda: trainer._train_epoch(train, 0, show_progress=False))
    return {"rows": len(train.dataset), "build": build, "loader": loader, "epoch": epoch}


def report() -> None:
    """Print the table."""
    print(__doc__)
    with common.temporary_folder() as folder:
        print(f"{common.run_part('write', folder=str(folder))['interactions']:,} interactions\n")
        made = {
            "stock SASRec": common.run_part("stock", folder=str(folder), anomaly=True),
            "the same, no anomaly detection": common.run_part(
                "stock", folder=str(folder), anomaly=False
            ),
            "our SASRec": common.run_part("ours", folder=str(folder), model="SASRec"),
            "our SRIM": common.run_part("ours", folder=str(folder), model="SRIM"),
        }
    names = ("build", "loader", "epoch", "peak_mb")
    header = ("", "rows", "build s", "loader alone s", "epoch s", "peak MiB")
    base = made["stock SASRec"]
    common.table(header, [(k, x["rows"], *(x[n] for n in names)) for k, x in made.items()])
    rows = [(k, "", *(base[n] / x[n] for n in names)) for k, x in made.items()]
    common.table(header, rows, "stock SASRec divided by it (above 1 = faster or smaller)")


if __name__ == "__main__":
    common.main({"write": write, "ours": ours, "stock": stock}, report)
