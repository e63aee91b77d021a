"""Data set, loader and one epoch: this package against stock RecBole on the same rows.

About 100,000 interactions, leave-one-out, every prefix a row, SASRec with RecBole's sizes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import common

N_ITEMS, N_SESSIONS, MEAN_LENGTH = 5_000, 20_000, 5.0
NAME = "epoch"
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
    """Time RecBole's own data set, loader and trainer, as ``recbole.quick_start`` uses them.

    RecBole 1.2.1 turns torch's anomaly detection on for every model as soon as its sequential
    models are imported (in ``sine.py``); ``anomaly=False`` turns it off again.
    """
    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line
    import torch
    from recbole.config import Config
    from recbole.data import data_preparation
    from recbole.data.dataset import SequentialDataset
    from recbole.model.sequential_recommender import SASRec
    from recbole.trainer import Trainer
    from recbole.utils import init_seed

    torch.autograd.set_detect_anomaly(anomaly)
    columns = {"USER_ID_FIELD": "session_id", "ITEM_ID_FIELD": "item_id"}
    settings = {
        **SHARED, **columns, "TIME_FIELD": "timestamp", "data_path": folder, "use_gpu": False,
        "load_col": {"inter": ["session_id", "item_id", "timestamp"]}, "benchmark_filename": None,
        "train_neg_sample_args": None, "checkpoint_dir": f"{folder}/saved",
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        "user_inter_num_interval": None, "item_inter_num_interval": None,
    }  # fmt: skip
    config = Config(model="SASRec", dataset=NAME, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    made: list[Any] = []

    def build() -> None:
        dataset = SequentialDataset(config)
        made.append(data_preparation(config, dataset)[0])
        made.append(SASRec(config, made[0].dataset).to(config["device"]))

    time = common.seconds(build)
    return _epoch(made[0], Trainer(config, made[1]), time)


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
    print("stock SASRec divided by it (above 1 = faster or smaller)")
    common.table(header, [(k, "", *(base[n] / x[n] for n in names)) for k, x in made.items()])


if __name__ == "__main__":
    common.main({"write": write, "ours": ours, "stock": stock}, report)
