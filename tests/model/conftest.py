"""A data set of a few sessions, held in memory, and the models' default settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from recbole.data.interaction import Interaction

from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.fits import Fits
from recbole_mm.data.sessions import Sessions

PROPERTIES = Path(__file__).parents[2] / "properties" / "model"
FIELDS = {
    "USER_ID_FIELD": "session_id",
    "ITEM_ID_FIELD": "item_id",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "item_length",
    "NEG_PREFIX": "neg_",
    "MAX_ITEM_LIST_LENGTH": 6,
    "device": torch.device("cpu"),
    "dataset": "Tiny",
    "history": "keep",
}


def make_sessions(lists: Sequence[Sequence[int]], first_id: int = 1) -> Sessions:
    lengths = [len(one) for one in lists]
    items = np.array([item for one in lists for item in one], dtype=np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    ids = np.arange(first_id, first_id + len(lists), dtype=np.int64)
    return Sessions(ids, offsets, items, np.arange(len(items), dtype=np.float64))


def make_rows(lists: Sequence[Sequence[int]], first_id: int = 1, width: int = 6) -> Interaction:
    """Every prefix of every session as a row with its target."""
    rows = [
        (first_id + k, one[max(0, cut - width) : cut], one[cut])
        for k, one in enumerate(lists)
        for cut in range(1, len(one))
    ]
    item_seq = torch.zeros(len(rows), width, dtype=torch.long)
    for row, (_, inputs, _) in zip(item_seq, rows, strict=True):
        row[: len(inputs)] = torch.tensor(inputs)
    return Interaction(
        {
            "session_id": torch.tensor([row[0] for row in rows]),
            "item_id_list": item_seq,
            "item_length": torch.tensor([len(row[1]) for row in rows]),
            "item_id": torch.tensor([row[2] for row in rows]),
        }
    )


class TinyDataset(Fits):
    """What a model reads of a data set, with training and test sessions given as lists."""

    def __init__(
        self,
        train: Sequence[Sequence[int]],
        n_items: int,
        test: Sequence[Sequence[int]] = (),
        features: dict[str, torch.Tensor] | None = None,
        missing: Sequence[int] = (),
    ) -> None:
        self.dataset_name = "Tiny"
        self.item_num = n_items
        self.train, self.test = list(train), list(test)
        self.train_sessions = make_sessions(train)
        self.train_counts = np.bincount(self.train_sessions.items, minlength=n_items)
        self.inter_feat = make_rows(train)
        self.item_features = None
        if features is not None:
            present = torch.ones(n_items, dtype=torch.bool)
            present[[0, *missing]] = False
            tables = {name: table * present.unsqueeze(1) for name, table in features.items()}
            masks = dict.fromkeys(features, present)
            self.item_features = ItemFeatures(tables, masks, dict.fromkeys(features, "0" * 64))

    def num(self, field: str) -> int:
        return self.item_num

    def held_out_rows(self) -> Interaction:
        return make_rows(self.test, first_id=len(self.train) + 1)

    def leaky_sessions(self, targets: bool) -> Sessions:
        return make_sessions([*self.train, *(one if targets else one[:-1] for one in self.test)])


@pytest.fixture
def make_dataset() -> type[TinyDataset]:
    return TinyDataset


@pytest.fixture
def settings() -> Callable[..., dict[str, Any]]:
    """Return a model's settings: its YAML, a preset's on top, and whatever is given by name."""

    def load(model: str = "SRIM", preset: str = "sound", **changes: Any) -> dict[str, Any]:
        names = [f"{model}.yaml"] + ([f"{model}.{preset}.yaml"] if preset != "sound" else [])
        values: dict[str, Any] = dict(FIELDS)
        for name in names:
            values |= yaml.safe_load((PROPERTIES / name).read_text("utf-8"))
        unknown = set(changes) - set(values)
        if unknown:
            raise KeyError(f"no such settings: {sorted(unknown)}")
        return values | changes

    return load


@pytest.fixture
def evaluate() -> Callable[[Any, Interaction], torch.Tensor]:
    """Return what scores all items for some rows, ``(rows, n_items)``."""

    def scores(model: Any, rows: Interaction) -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            return model.full_sort_predict(rows)

    return scores
