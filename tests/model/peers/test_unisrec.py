"""UniSRec: the adaptor by hand, and an independent NumPy version of scores, parts and loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction

from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.peers.adaptor import Adaptor
from recbole_mm.model.peers.settings import UniSRecSettings
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
        made = UniSRec(settings("UniSRec", preset, **{**SMALL, **changes}), data or dataset)
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
            parts.append(centred / np.sqrt(np.square(centred[seen]).mean()) * present[:, None])
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

    def scores(self, rows: Interaction) -> dict[str, Array]:
        """Return the scores ``(B, N)`` by part, and their sum as "whole"."""
        parts = {"content": self.adapted()}
        if "item_embedding.weight" in self.w:
            parts["id"] = self.w["item_embedding.weight"]
        items = sum(parts.values())
        assert isinstance(items, np.ndarray)
        lists = zip(rows["item_id_list"].tolist(), rows["item_length"].tolist(), strict=True)
        h = np.stack([self.session(items[one[:n]]) for one, n in lists])
        h /= np.linalg.norm(h, axis=1, keepdims=True) * self.temperature
        size = np.linalg.norm(items, axis=1, keepdims=True)
        return {n: h @ (v / size).T for n, v in {**parts, "whole": items}.items()}


@pytest.mark.parametrize(
    ("preset", "modalities"),
    [("sound", ["text"]), ("text", ["text"]), ("sound", ["image", "text"])],
)
def test_equal_to_numpy(build: Build, dataset: Any, preset: str, modalities: list[str]) -> None:
    model = build(preset, modalities=modalities).eval()
    expected = Twin(model, dataset).scores(dataset.inter_feat)
    whole = expected.pop("whole")[:, 1:]
    found = model.full_sort_predict(dataset.inter_feat).detach()
    assert bool((found[:, 0] == -math.inf).all())
    np.testing.assert_allclose(found[:, 1:].numpy(), whole, rtol=1e-3, atol=1e-4)
    parts = model.score_parts(dataset.inter_feat)
    assert list(parts) == (["content", "id"] if preset == "sound" else [])
    for name, part in parts.items():
        np.testing.assert_allclose(part[:, 1:].numpy(), expected[name][:, 1:], rtol=1e-3, atol=1e-4)
    target = dataset.inter_feat["item_id"].numpy() - 1
    losses = np.log(np.exp(whole).sum(axis=1)) - whole[np.arange(len(target)), target]
    assert model.calculate_loss(dataset.inter_feat).item() == pytest.approx(losses.mean(), rel=1e-4)


def test_the_adaptor_by_hand() -> None:
    adaptor = Adaptor(2, 1, 2, 0.0).eval()
    with torch.no_grad():
        adaptor.gate.copy_(torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]))
        for expert, (shift, weight) in zip(
            adaptor.experts,
            (([0.0, 0.0], [[1.0, 0.0]]), ([1.0, 2.0], [[10.0, 100.0]])),
            strict=True,
        ):
            expert.shift.copy_(torch.tensor(shift))
            expert.map.weight.copy_(torch.tensor(weight))
    rows = torch.tensor([[0.0, 0.0], [1.0, 4.0]])
    torch.testing.assert_close(adaptor.gates(rows), torch.tensor([[0.5, 0.5], [0.25, 0.75]]))
    # 0.5 * 0 + 0.5 * (-10 - 200); 0.25 * 1 + 0.75 * (0 + 200)
    torch.testing.assert_close(adaptor(rows), torch.tensor([[-105.0], [150.25]]))


def test_gates_are_noisy_in_training_only_and_weigh_the_same_at_first() -> None:
    torch.manual_seed(0)
    adaptor, rows = Adaptor(3, 2, 4, 0.0), torch.randn(5000, 3)
    torch.testing.assert_close(adaptor.eval().gates(rows), torch.full((5000, 4), 0.25))
    with torch.no_grad():
        adaptor.noise[0] = 1.0
    logits = torch.log(adaptor.train().gates(rows)).detach()
    # Softmax takes the rows' means out: what is left of E equal deviations is s sqrt((E - 1) / E).
    noise = logits - logits.mean(dim=1, keepdim=True)
    low = rows[:, 0] < -1.5
    for part in (low, rows[:, 0] > 1.5):
        deviation = torch.log1p(torch.exp(rows[part, 0])) + 0.01
        expected = deviation.square().mean().sqrt() * math.sqrt(3 / 4)
        assert float(noise[part].square().mean().sqrt()) == pytest.approx(float(expected), rel=0.1)


def test_own_items_are_struck_out_where_asked_for(build: Build, dataset: Any) -> None:
    model = build(train_own_items="mask").eval()
    rows = dataset.inter_feat
    scores = model.full_sort_predict(rows).detach()[:, 1:].double().numpy()
    losses = []
    for row, one, target in zip(scores, rows["item_id_list"], rows["item_id"], strict=True):
        own = {int(item) - 1 for item in one if item} - {int(target) - 1}
        left = np.delete(row, sorted(own))
        losses.append(np.log(np.exp(left).sum()) - row[int(target) - 1])
    assert model.calculate_loss(rows).item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_items_without_ids_are_told_apart_by_content_alone(build: Build, dataset: Any) -> None:
    model = build("text").eval()
    assert not [name for name, w in model.named_parameters() if len(w) == N_ITEMS]
    scores = model.full_sort_predict(dataset.inter_feat)
    assert scores[:, [7]].isfinite().all()


def test_what_is_refused(build: Build, make_dataset: Any) -> None:
    with pytest.raises(ConfigError, match="leaves UniSRec nothing to adapt"):
        UniSRecSettings(modalities=())
    with pytest.raises(ConfigError, match="n_heads=3 does not divide hidden_size=64"):
        UniSRecSettings(n_heads=3)
    with pytest.raises(FeatureError, match="UniSRec needs text features of Tiny, and found none"):
        build(data=make_dataset([[1, 2]], 3))
