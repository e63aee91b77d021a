"""SASRecF, GRU4RecF and FDSA with item vectors: one-hot vectors are the stock model's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_mm.config import MMConfig
from recbole_mm.data.atomic import write_atomic
from recbole_mm.data.card import DatasetCard
from recbole_mm.data.itememb import itememb_path, write_itememb
from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.peers.vectors import MappedVectors, mean_length
from recbole_mm.run.prepared import Prepared, prepare

N_ITEMS = 30
COLUMNS = {"kind": 4, "brand": 6}
SIZES: dict[str, dict[str, Any]] = {
    "SASRecF": {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "attn_dropout_prob": 0.0,
                "hidden_dropout_prob": 0.0},
    "GRU4RecF": {"hidden_size": 8, "embedding_size": 6, "dropout_prob": 0.0},
    "FDSA": {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "attn_dropout_prob": 0.0,
             "hidden_dropout_prob": 0.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sessions of items with two token columns and the same as one-hot vectors, with gaps."""
    root, random = tmp_path_factory.mktemp("data"), np.random.default_rng(3)
    rows = [
        (f"s{session:03d}", f"i{int(random.integers(N_ITEMS)):02d}", 1e9 + 100.0 * session + place)
        for session in range(80)
        for place in range(int(random.integers(2, 6)))
    ]
    inter = pd.DataFrame(rows, columns=["session_id", "item_id", "timestamp"])
    types = {"session_id": "token", "item_id": "token", "timestamp": "float"}
    write_atomic(root / "shop" / "shop.inter", inter, types)
    tokens = [f"i{item:02d}" for item in range(N_ITEMS)]
    items: dict[str, list[str]] = {"item_id": tokens}
    for name, count in COLUMNS.items():
        values = [(n * 5) % 11 % count if n % 7 else -1 for n in range(N_ITEMS)]
        items[name] = [f"{name}{value}" if value >= 0 else "" for value in values]
        there = [n for n, value in enumerate(values) if value >= 0]
        one_hot = np.eye(count, dtype=np.float32)[[values[n] for n in there]]
        path = itememb_path(root / "shop", "shop", name)
        write_itememb(path, name, [tokens[n] for n in there], one_hot)
    write_atomic(root / "shop" / "shop.item", pd.DataFrame(items), dict.fromkeys(items, "token"))
    DatasetCard("shop", timestamps="real", synthetic=True).save(root / "shop")
    return root


def build(shop: Path, model: str, columns: list[str], modalities: list[str]) -> Prepared:
    keys = {
        "data_path": str(shop), "use_gpu": False, "MAX_ITEM_LIST_LENGTH": 6, **SIZES[model],
        "selected_features": columns, "modalities": modalities, "run_folder": str(shop / "run"),
        "train_batch_size": 64,
    }  # fmt: skip
    return prepare(MMConfig(model, "shop", (), keys))


def take_weights(made: Prepared, stock: Prepared, columns: list[str]) -> None:
    """Give a model with one-hot vectors the weights of the stock model with all token columns."""
    source, target = stock.model.state_dict(), made.model.state_dict()
    embeddings = source["feature_embed_layer.token_embedding_table.item.embedding.weight"]
    ids, start, kept = stock.dataset.field2id_token, 0, []
    for name, count in COLUMNS.items():
        own = embeddings[start : start + len(ids[name])]
        start += len(ids[name])
        if name in columns:
            kept.append(own)
            continue
        place = {token: row for row, token in enumerate(ids[name])}
        order = [place[f"{name}{value}"] for value in range(count)]
        target[f"feature_embed_layer.vectors.{name}.map.weight"] = own[order].T
        target[f"feature_embed_layer.vectors.{name}.missing.weight"] = own[:1]
    if kept:
        key = "feature_embed_layer.columns.token_embedding_table.item.embedding.weight"
        target[key] = torch.cat(kept)
    same = {key: value for key, value in source.items() if "feature_embed_layer" not in key}
    assert not {key for key in target if "feature_embed_layer" not in key} - set(same)
    made.model.load_state_dict({**target, **same})


def losses(prepared: Prepared, steps: int = 6) -> list[float]:
    """Train a few steps and return the losses."""
    model, found = prepared.model.train(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    torch.manual_seed(5)
    batch = prepared.train.dataset[torch.arange(64)]
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.calculate_loss(batch)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("model", SIZES)
@pytest.mark.parametrize("columns", [[], ["kind"]], ids=["vectors", "column and vectors"])
def test_one_hot_vectors_equal_the_stock_model_with_tokens(
    shop: Path, model: str, columns: list[str]
) -> None:
    stock = build(shop, model, list(COLUMNS), [])
    vectors = [name for name in COLUMNS if name not in columns]
    made = build(shop, model, columns, vectors)
    take_weights(made, stock, columns)
    rows = made.valid.dataset[torch.arange(len(made.valid.dataset))]
    for trained in (False, True):
        if trained:
            first, second = losses(stock), losses(made)
            assert first == pytest.approx(second, rel=1e-4)
            assert first[-1] < first[0] - 0.2
        with torch.no_grad():
            expected = stock.model.eval().full_sort_predict(rows)
            found = made.model.eval().full_sort_predict(rows)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", SIZES)
def test_without_vectors_it_is_the_stock_model(shop: Path, model: str) -> None:
    made = build(shop, model, ["kind"], [])
    stock_class = next(c for c in type(made.model).__mro__ if c.__module__.startswith("recbole."))
    from recbole.utils import init_seed

    init_seed(made.config["seed"], True)
    stock = stock_class(made.config, made.train.dataset)
    assert stock_class.__name__ == type(made.model).__name__ == model
    ours, theirs = made.model.state_dict(), stock.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_mapped_vectors_by_hand() -> None:
    table = torch.tensor([[0.0, 0.0], [3.0, 0.0], [9.0, 9.0], [0.0, 4.0]])
    made = MappedVectors(table, torch.tensor([False, True, False, True]), 2.0, 3)
    with torch.no_grad():
        made.map.weight.copy_(torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]))
        made.missing.weight.copy_(torch.tensor([[7.0, 8.0, 9.0]]))
    found = made(torch.tensor([[1, 3, 1], [2, 0, 0]]))
    one, three, none = [1.5, 3.0, 4.5], [20.0, 40.0, 60.0], [7.0, 8.0, 9.0]
    assert found.tolist() == [[one, three, one], [none, none, none]]


def test_the_mean_length() -> None:
    assert mean_length(torch.tensor([[3.0, 4.0], [0.0, 1.0]])) == pytest.approx(13**0.5)
    assert mean_length(torch.eye(5)) == 1.0
    assert mean_length(torch.zeros(3, 2)) == mean_length(torch.zeros(0, 2)) == 1.0


def test_what_is_refused(shop: Path) -> None:
    with pytest.raises(ConfigError, match="no item feature. Expected columns in --selected_feat"):
        build(shop, "SASRecF", [], [])
    with pytest.raises(FeatureError, match=r"shop\.image\.itememb: no such file"):
        build(shop, "FDSA", ["kind"], ["image"])
