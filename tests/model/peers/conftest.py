"""A small UniSRec, and its scores derived a second time: position by position, in NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction

from recbole_mm.model.peers.contrastive import ContrastiveUniSRec
from recbole_mm.model.peers.unisrec import UniSRec

N_ITEMS, WIDTH, LAYERS, HEADS = 13, 6, 2, 2
SMALL = {"hidden_size": WIDTH, "inner_size": 8, "n_layers": LAYERS, "n_heads": HEADS,
         "n_experts": 3}  # fmt: skip
Build = Callable[..., UniSRec]
Array = NDArray[np.float64]


@pytest.fixture
def dataset(make_dataset: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    features = {
        "text": 3 + torch.randn(N_ITEMS, 5, generator=generator),
        "image": torch.randn(N_ITEMS, 4, generator=generator),
    }
    lists = [[1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 1, 2], [3, 3, 9, 11]]
    return make_dataset(lists, N_ITEMS, features=features, missing=[7])


@pytest.fixture
def build(settings: Any, dataset: Any) -> Build:
    def make(preset: str = "sound", data: Any = None, **changes: Any) -> UniSRec:
        torch.manual_seed(3)
        model_class = ContrastiveUniSRec if preset == "pretrain" else UniSRec
        made = model_class(settings("UniSRec", preset, **{**SMALL, **changes}), data or dataset)
        with torch.no_grad():
            # Weights at which every part of the equations matters.
            for name, weight in made.named_parameters():
                weight.add_(0.3 * torch.randn_like(weight))
                if name == "item_embedding.weight":
                    weight[0] = 0.0
        return made

    return make


def softmax(rows: Array) -> Array:
    raised = np.exp(rows - rows.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def gelu(rows: Array) -> Array:
    return rows * 0.5 * (1 + np.vectorize(math.erf)(rows / math.sqrt(2)))


class Twin:
    """UniSRec as its equations say it, position by position."""

    def __init__(self, model: UniSRec, dataset: Any) -> None:
        self.w = {k: v.double().numpy() for k, v in model.state_dict().items()}
        parts = []
        for name in model.settings.modalities:
            features = dataset.item_features
            table = features.table(name).double().numpy()
            present = features.mask(name).numpy()
            seen = present & (dataset.train_counts > 0)
            centred = table - table[seen].mean(axis=0)
            size = np.sqrt(np.square(centred[seen]).sum(axis=1).mean())
            parts.append(centred / size * present[:, None])
        self.x = np.concatenate(parts, axis=1)
        self.temperature = model.settings.temperature

    def adapted(self) -> Array:
        gates = softmax(self.x @ self.w["adaptor.gate"])
        found = np.zeros((len(self.x), WIDTH))
        for k in range(gates.shape[1]):
            shift, map_ = (self.w[f"adaptor.experts.{k}.{n}"] for n in ("shift", "map.weight"))
            found += gates[:, k : k + 1] * ((self.x - shift) @ map_.T)
        return found

    def norm(self, rows: Array, name: str) -> Array:
        mean, var = rows.mean(-1, keepdims=True), rows.var(-1, keepdims=True)
        return (rows - mean) / np.sqrt(var + 1e-12) * self.w[f"{name}.weight"] + self.w[
            f"{name}.bias"
        ]

    def linear(self, rows: Array, name: str) -> Array:
        return rows @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def session(self, vectors: Array) -> Array:
        states = self.norm(vectors + self.w["position_embedding.weight"][: len(vectors)], "norm")
        size = WIDTH // HEADS
        for number in range(LAYERS):
            name = f"encoder.layer.{number}.multi_head_attention"
            q, k, v = (self.linear(states, f"{name}.{one}") for one in ("query", "key", "value"))
            mixed = np.zeros_like(states)
            for place in range(len(states)):
                for head in range(HEADS):
                    own = slice(head * size, (head + 1) * size)
                    share = softmax(k[: place + 1, own] @ q[place, own] / math.sqrt(size))
                    mixed[place, own] = share @ v[: place + 1, own]
            states = self.norm(states + self.linear(mixed, f"{name}.dense"), f"{name}.LayerNorm")
            name = f"encoder.layer.{number}.feed_forward"
            inner = self.linear(gelu(self.linear(states, f"{name}.dense_1")), f"{name}.dense_2")
            states = self.norm(states + inner, f"{name}.LayerNorm")
        return states[-1]

    def sessions(self, items: Array, rows: Interaction) -> Array:
        """Return session vectors ``(B, d)`` of length 1."""
        lists = zip(rows["item_id_list"].tolist(), rows["item_length"].tolist(), strict=True)
        h = np.stack([self.session(items[one[:n]]) for one, n in lists])
        return h / np.linalg.norm(h, axis=1, keepdims=True)

    def scores(self, rows: Interaction) -> dict[str, Array]:
        """Return the scores ``(B, N)`` by part, and their sum as "whole"."""
        parts = {"content": self.adapted()}
        if "item_embedding.weight" in self.w:
            parts["id"] = self.w["item_embedding.weight"]
        items = sum(parts.values())
        assert isinstance(items, np.ndarray)
        h = self.sessions(items, rows) / self.temperature
        size = np.linalg.norm(items, axis=1, keepdims=True)
        return {n: h @ (v / size).T for n, v in {**parts, "whole": items}.items()}


@pytest.fixture
def twin() -> type[Twin]:
    return Twin
