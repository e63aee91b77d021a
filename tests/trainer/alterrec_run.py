"""Trains small AlterRec models on the Cellphones files; run as a second process by the tests.

python alterrec_run.py RUN_FOLDER,EPOCHS[,resume] ...
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Six sessions out of a hundred train: 12 epochs take about a second.
TINY = {
    "data_path": str(ROOT / "atomic_data"),
    "feature_path": str(ROOT / "atomic_data" / "Cellphones"),
    "use_gpu": False,
    "split_ratio": [6, 4, 90],
    "train_batch_size": 100,
    "hidden_size": 8,
    "inner_size": 8,
    "n_layers": 1,
    "lr_gamma": 0.5,
    "stopping_step": 99,
    "positive_augmentation": True,
    "clip_grad_norm": {"max_norm": 0.5},
    "length_buckets": 2,
}


def build(run_folder, **overrides):
    """Return (trainer, train loader, valid loader)."""
    from recbole_mm.config import MMConfig
    from recbole_mm.run import prepare
    from recbole_mm.trainer.base import trainer_class

    keys = {**TINY, "run_folder": str(run_folder), "seed": 5, **overrides}
    prepared = prepare(MMConfig("AlterRec", "Cellphones", (), keys))
    run_class = trainer_class(prepared.spec, type(prepared.model))
    return run_class(prepared.config, prepared.model), prepared.train, prepared.valid


def main(*jobs):
    """Do jobs one after the other: RUN_FOLDER,EPOCHS with ``,resume`` to go on."""
    warnings.simplefilter("ignore")
    for job in jobs:
        folder, epochs, *resume = job.split(",")
        trainer, train, valid = build(folder, epochs=int(epochs))
        if resume:
            trainer.resume(folder)
        trainer.fit(train, valid)


if __name__ == "__main__":
    main(*sys.argv[1:])
