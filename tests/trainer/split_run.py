"""Runs of a small data set, to be started by torchrun; also the models that only its tests need.

split_run.py DATA_FOLDER JOBS, where JOBS is JSON: a list of [model, keys, folder to resume].
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch
from recbole.model.sequential_recommender import SASRec

from recbole_mm import register_model


@register_model("Numbered", defaults="split_run.yaml")
class Numbered(SASRec):
    """SASRec; the number of each process stands in a file."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        Path(config["run_folder"], f"pid-{os.environ.get('RANK')}").write_text(str(os.getpid()))


@register_model("OneBreaks", defaults="split_run.yaml")
class OneBreaks(SASRec):
    """SASRec; in the second process its loss is NaN while it is trained."""

    def calculate_loss(self, interaction):
        """Return SASRec's loss, or NaN."""
        breaks = os.environ.get("RANK") == "1" and self.training
        return super().calculate_loss(interaction) * (float("nan") if breaks else 1.0)


@register_model("Normed", defaults="split_run.yaml")
class Normed(SASRec):
    """SASRec with batch normalisation."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.norm = torch.nn.BatchNorm1d(config["hidden_size"])


@register_model("RowsTogether", defaults="split_run.yaml")
class RowsTogether(SASRec):
    """Its loss is a maximum over the rows of a batch."""

    def calculate_loss(self, interaction):
        """Return the largest score."""
        return self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]).max()


def main(data: str, jobs: str) -> None:
    """Do runs one after the other."""
    from recbole_mm.run import run

    warnings.simplefilter("ignore")
    for model, keys, resume in json.loads(jobs):
        keys = keys if resume and len(keys) == 1 else {"data_path": data, **keys}
        run(model, "toy", (), keys, resume=resume)


if __name__ == "__main__":
    from recbole_mm import exits

    sys.exit(exits.guarded(lambda: main(*sys.argv[1:]) or 0))
