"""A shop of eleven items with text, image, price and category, and MMSBR models of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recbole_mm import registry
from recbole_mm.data.item_columns import ItemColumns

N_ITEMS = 12
TRAIN = [[1, 2, 3], [4, 2], [5, 6, 7, 8], [9, 1], [10, 3, 5], [2, 9, 4]]  # 11 is new in test
TEST = [[3, 4, 11], [6, 2], [7, 8, 1, 10, 2]]
PRICES = ["5", "9", "12", "", "30", "2", "7", "90", "40", "1", "55"]
SMALL = {
    "embedding_size": 8, "n_heads": 2, "inner_size": 16, "n_tokens": 2, "n_pivots": 2,
    "pca_dim": 4, "contrast_sample": 6, "price_levels": 5,
}  # fmt: skip
DROPOUTS = ("dropout_tokens", "dropout_encoder", "dropout_fusion", "dropout_price")


def write_items(folder: Path, price: bool, category: bool) -> None:
    columns = ["item_id:token"] + ["price:token"] * price + ["category:token"] * category
    lines = [
        [f"i{item}"] + [PRICES[item - 1]] * price + [("a", "b", "")[item % 3]] * category
        for item in range(1, N_ITEMS)
    ]
    text = "\n".join("\t".join(line) for line in [columns, *lines])
    (folder / "Tiny.item").write_text(text + "\n")


@pytest.fixture
def make_data(make_dataset, tmp_path):
    def make(names=("text", "image"), price=True, category=True, missing=(6,), item_file=True):
        torch.manual_seed(11)
        widths = {"text": 7, "image": 5, "pseudo_text": 7, "pseudo_image": 5}
        every = {name: torch.randn(N_ITEMS, width) for name, width in widths.items()}
        features = {name: every[name] for name in names}
        data = make_dataset(TRAIN, N_ITEMS, TEST, features, missing)
        if item_file:
            write_items(tmp_path, price, category)
        tokens = ["[PAD]", *(f"i{item}" for item in range(1, N_ITEMS))]
        data.item_columns = ItemColumns(tmp_path / "Tiny.item", "item_id", tokens)
        return data

    return make


@pytest.fixture
def build(settings, make_data):
    """Return a function that makes a small model; ``still`` leaves its dropouts out."""

    def make(preset="sound", data=None, seed=3, still=False, **changes):
        quiet = dict.fromkeys((*DROPOUTS, "offset_dropout"), 0.0) if still else {}
        torch.manual_seed(seed)
        model = registry.resolve("MMSBR").load(preset)
        return model(settings("MMSBR", preset, **SMALL | quiet | changes), data or make_data())

    return make


@pytest.fixture
def losses():
    def parts(model, rows, seed=0):
        torch.manual_seed(seed)
        return model.train().calculate_loss(rows)

    return parts
