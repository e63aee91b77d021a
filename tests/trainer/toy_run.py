"""Builds and trains real models on a small real file; also run as a second process by the tests.

python toy_run.py DATA_FOLDER MODEL,RUN_FOLDER,EPOCHS[,resume] ...
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np

SMALL = {
    "SASRec": {"n_layers": 1, "hidden_size": 8, "inner_size": 8, "hidden_dropout_prob": 0.3},
    "SASRecF": {
        "n_layers": 1,
        "hidden_size": 8,
        "inner_size": 8,
        "selected_features": ["colour"],
    },
    "BERT4Rec": {"n_layers": 1, "hidden_size": 8, "inner_size": 8, "mask_ratio": 0.4},
    # Batches by length: their order is drawn from the loader's generator, too. And a sample.
    "GRU4Rec": {
        "embedding_size": 8,
        "hidden_size": 8,
        "dropout_prob": 0.3,
        "length_buckets": 3,
        "sampled_softmax": 6,
    },
}


def write_data(folder: Path, sessions: int = 120, items: int = 20, name: str = "i") -> None:
    """Write walks over a ring of items, with an item file."""
    rng = np.random.default_rng(3)
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for session in range(sessions):
        item = session % items
        for step in range(rng.integers(2, 7)):
            lines.append(f"s{session}\t{name}{item}\t{1_600_000_000 + session * 1000 + step * 60}")
            item = (item + 1 + rng.integers(4)) % items
    (folder / "toy").mkdir(parents=True)
    (folder / "toy" / "toy.inter").write_text("\n".join(lines) + "\n")
    colours = [f"{name}{item}\tc{item % 3}" for item in range(items)]
    (folder / "toy" / "toy.item").write_text(
        "\n".join(["item_id:token\tcolour:token", *colours]) + "\n"
    )


def build(model, folder, run_folder, model_class=None, trainer=None, **overrides):
    """Return (trainer, train loader, valid loader, test loader)."""
    from recbole.utils import init_seed

    from recbole_mm.config import MMConfig
    from recbole_mm.data.batches import loaders
    from recbole_mm.data.session_dataset import SessionDataset
    from recbole_mm.registry import resolve
    from recbole_mm.trainer.base import trainer_class

    plain = {"data_path": str(folder), "run_folder": str(run_folder), "seed": 5, "epochs": 2}
    if model != "Pop":
        plain["train_batch_size"] = 64
    config = MMConfig(model, "toy", (), {**plain, **SMALL.get(model, {}), **overrides})
    init_seed(config["seed"], True)
    made = loaders(config, SessionDataset(config))
    init_seed(config["seed"], True)
    model_class = model_class or config.model_class
    network = model_class(config, made[0].dataset).to(config["device"])
    run_class = trainer or trainer_class(resolve(model), model_class)
    return run_class(config, network), *made


def main(folder, *jobs):
    """Do jobs one after the other: MODEL,RUN_FOLDER,EPOCHS with ``,resume`` to go on."""
    warnings.simplefilter("ignore")
    for job in jobs:
        model, run_folder, epochs, *resume = job.split(",")
        trainer, train, valid, test = build(
            model, folder, run_folder, epochs=int(epochs), stopping_step=99
        )
        if resume:
            trainer.resume(run_folder)
        trainer.fit(train, valid)
        trainer.evaluate(test)
        np.save(Path(run_folder) / "ranks.npy", trainer.ranks)


if __name__ == "__main__":
    main(*sys.argv[1:])
