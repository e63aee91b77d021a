"""From files to ranks: a model that copies what it reads shows whether rows and ids meet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType

from recbole_mm.data.atomic import write_atomic
from recbole_mm.data.card import DatasetCard
from recbole_mm.data.itememb import itememb_path, write_itememb
from recbole_mm.run import run

N_ITEMS = 40


class CopiesText(SequentialRecommender):
    """Scores an item by the product of its vector with that of the last item."""

    input_type = InputType.POINTWISE

    @classmethod
    def modalities(cls, config) -> tuple[str, ...]:
        return ("text",)

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        table = dataset.item_features.table("text")
        self.register_buffer("vectors", torch.as_tensor(table), persistent=False)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def calculate_loss(self, interaction):
        return self.weight.sum() ** 2

    def full_sort_predict(self, interaction):
        lengths = interaction[self.ITEM_SEQ_LEN]
        last = interaction[self.ITEM_SEQ].gather(1, (lengths - 1).view(-1, 1)).squeeze(1)
        return self.vectors[last] @ self.vectors.T


def write(folder: Path, sessions: list[list[int]], vectors: np.ndarray) -> dict[str, object]:
    """Write sessions of item numbers, and the vectors in another order than the items'."""
    names = [f"n{(7 * k) % 97:02d}-{k}" for k in range(N_ITEMS)]
    rows = [
        (f"s{number:04d}", names[item], 1.6e9 + 100 * number + place)
        for number, session in enumerate(sessions)
        for place, item in enumerate(session)
    ]
    place = folder / "toy"
    types = {"session_id": "token", "item_id": "token", "timestamp": "float"}
    write_atomic(place / "toy.inter", pd.DataFrame(rows, columns=list(types)), types)
    order = np.random.default_rng(5).permutation(N_ITEMS)
    path = itememb_path(place, "toy", "text")
    write_itememb(path, "text", [names[k] for k in order], vectors[order])
    DatasetCard("toy", timestamps="real", synthetic=True).save(place)
    return {"data_path": str(folder), "run_folder": str(folder / "run"), "epochs": 1,
            "floor": False, "use_gpu": False, "topk": [1, 20],
            "valid_metric": "NDCG@20"}  # fmt: skip


def test_the_vector_of_every_item_is_its_own(tmp_path: Path) -> None:
    """Each session is one item twice, its vector is one-hot: the right item comes first, always."""
    sessions = [[k % N_ITEMS] * 2 for k in range(10 * N_ITEMS)]
    settings = write(tmp_path, sessions, np.eye(N_ITEMS, dtype=np.float32))
    record = run(CopiesText, "toy", (), settings).record
    assert record["test"]["hit@1"] == record["valid"]["hit@1"] == 1.0
    assert record["tied"] == 0 and set(record["ranks"]["rank"]) == {1}


def test_where_nothing_can_be_learned_nothing_is(tmp_path: Path) -> None:
    """Items drawn at random: 20 of 40 hit half of the time, whatever was trained."""
    draw = np.random.default_rng(2)
    sessions = draw.integers(0, N_ITEMS, (1500, 3)).tolist()
    settings = write(tmp_path, sessions, draw.standard_normal((N_ITEMS, 8)).astype(np.float32))
    record = run("SRIM", "toy", (), {**settings, "epochs": 2}).record
    # 150 rows: a standard deviation of 0.041; four of them.
    assert abs(record["test"]["hit@20"] - 0.5) < 0.165
