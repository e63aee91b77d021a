"""CoHHN: its graph by hand, and an independent NumPy version of scores, parts and loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction

from recbole_mm.data.item_columns import ItemColumns
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.model.peers.cohhn import CoHHN
from recbole_mm.model.peers.hypergraph import Aggregation, Gate, edges, hyperedge_counts
from recbole_mm.model.peers.settings import CoHHNSettings
from recbole_mm.run import run
from recbole_mm.testing.case import SMALL, write_toy

from ..conftest import make_sessions
from .conftest import softmax

N_ITEMS, SIZE, HEADS = 12, 8, 2
TRAIN = [[1, 2, 3], [4, 2], [5, 6, 7, 8], [9, 1], [10, 3, 5], [2, 9, 4, 2]]  # 11 is in none
PRICES = ["5", "9", "12", "", "30", "2", "7", "90", "40", "1", "55"]
SMALL_KEYS = {"embedding_size": SIZE, "n_heads": HEADS, "price_levels": 3}
Build = Callable[..., CoHHN]
Array = NDArray[np.float64]


@pytest.fixture
def make_data(make_dataset: Any, tmp_path: Path) -> Callable[..., Any]:
    def make(prices: list[str] | None = None, category: bool = True) -> Any:
        rows = [["item_id:token", "price:token", "category:token"]]
        cells = PRICES if prices is None else prices
        rows += [[f"i{k}", cells[k - 1], ("a", "b", "")[k % 3]] for k in range(1, N_ITEMS)]
        text = "".join("\t".join(row if category else row[:2]) + "\n" for row in rows)
        (tmp_path / "Tiny.item").write_text(text)
        data = make_dataset(TRAIN, N_ITEMS)
        tokens = ["[PAD]", *(f"i{k}" for k in range(1, N_ITEMS))]
        data.item_columns = ItemColumns(tmp_path / "Tiny.item", "item_id", tokens)
        return data

    return make


@pytest.fixture
def build(settings: Any, make_data: Callable[..., Any]) -> Build:
    def make(data: Any = None, **changes: Any) -> CoHHN:
        torch.manual_seed(3)
        return CoHHN(settings("CoHHN", **{**SMALL_KEYS, **changes}), data or make_data())

    return make


def sigmoid(rows: Array) -> Array:
    return 1 / (1 + np.exp(-rows))


class Twin:
    """CoHHN as its equations say it: node by node, session by session."""

    def __init__(self, model: CoHHN) -> None:
        self.model = model
        self.w = {k: v.double().numpy() for k, v in model.state_dict().items()}
        self.level = model.graph.levels.numpy()
        self.kind = model.graph.categories.numpy()

    def linear(self, rows: Array, name: str) -> Array:
        return rows @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", np.zeros(()))

    def heard(self, name: str, neighbours: list[set[int]], sources: Array) -> Array:
        found = np.zeros((len(neighbours), SIZE))
        for node, around in enumerate(neighbours):
            for there in around:
                weights = [np.exp(self.w[name][node] * sources[s].sum()) for s in around]
                own = np.exp(self.w[name][node] * sources[there].sum())
                found[node] += own / sum(weights) * sources[there]
        return found

    def gated(self, name: str, own: Array, first: Array, second: Array) -> Array:
        logits = self.linear(np.concatenate([own, first, second], axis=1), f"{name}.whole")
        logits += self.linear(first, f"{name}.first") + self.linear(second, f"{name}.second")
        return own + sigmoid(logits) * first + (1 - sigmoid(logits)) * second

    def nodes(self) -> tuple[Array, Array]:
        """Return items ``(N, d)`` and price levels ``(L, d)`` behind the last layer."""
        tables = ("item", "price", "category")
        items, prices, kinds = (self.w[f"{name}_embedding.weight"] for name in tables)
        trained = sorted({item for one in TRAIN for item in one})
        of_price = [{i for i in trained if self.level[i] == p} for p in range(len(prices))]
        of_kind = [{i for i in trained if self.kind[i] == c} for c in range(len(kinds))]
        price_kinds = [{int(self.kind[i]) for i in around} for around in of_price]
        kind_prices = [{int(self.level[i]) for i in around} for around in of_kind]
        for _ in range(self.model.settings.n_layers):
            around = np.zeros_like(items)
            for item in trained:
                homes = [set(one) for one in TRAIN if item in one]
                means = [np.mean([items[j] for j in sorted(home)], axis=0) for home in homes]
                around[item] = np.mean(means, axis=0)
            at = "graph.{}.weight".format
            items, prices, kinds = (
                self.gated("graph.item_gate", items, prices[self.level], kinds[self.kind]) + around,
                self.gated(
                    "graph.price_gate",
                    prices,
                    self.heard(at("price_items"), of_price, items),
                    self.heard(at("price_categories"), price_kinds, kinds),
                ),
                self.gated(
                    "graph.category_gate",
                    kinds,
                    self.heard(at("category_prices"), kind_prices, prices),
                    self.heard(at("category_items"), of_kind, items),
                ),
            )
        return items, prices

    def price(self, prices: Array) -> Array:
        size, found = SIZE // HEADS, np.zeros(SIZE)
        q, k, v = (self.linear(prices, f"price_preference.{n}") for n in ("query", "key", "value"))
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            found[own] = softmax(k[:, own] @ q[-1, own] / math.sqrt(size)) @ v[:, own]
        return found

    def interest(self, items: Array) -> Array:
        found, mean = np.zeros(SIZE), items.mean(axis=0)
        ages = self.w["interest_preference.age_embedding.weight"]
        for age, item in enumerate(items[::-1]):
            joint = np.tanh(
                self.linear(np.concatenate([ages[age], item]), "interest_preference.joint")
            )
            inner = self.linear(joint, "interest_preference.item_map")
            inner = sigmoid(inner + self.linear(mean, "interest_preference.mean_map"))
            found += float(self.linear(inner, "interest_preference.weight")[0]) * item
        return found

    def guided(self, s: Array, q: Array) -> tuple[Array, Array]:
        together = np.tanh(self.linear(q * s, "guidance.product"))
        either = np.tanh(self.linear(q + s, "guidance.sum"))
        told = {}
        for name, own, other in (("interest", s, q), ("price", q, s)):
            gate = sigmoid(
                self.linear(together, f"guidance.{name}_product_gate")
                + self.linear(either, f"guidance.{name}_sum_gate")
            )
            told[name] = np.tanh(
                self.linear(own * gate, f"guidance.{name}_own")
                + self.linear(other * (1 - gate), f"guidance.{name}_other")
            )
        return (s + told["price"]) * told["interest"], (q + told["interest"]) * told["price"]

    def __call__(self, rows: Interaction) -> dict[str, Array]:
        """Return the parts of the scores, ``(B, N)`` each."""
        items, prices = self.nodes()
        own = prices[self.level]
        parts: dict[str, list[Array]] = {"interest": [], "price": []}
        lists = zip(rows["item_id_list"].tolist(), rows["item_length"].tolist(), strict=True)
        for session in (one[:n] for one, n in lists):
            s, q = self.guided(self.interest(items[session]), self.price(own[session]))
            parts["interest"].append(items @ s)
            parts["price"].append(own @ q)
        return {name: np.stack(found) for name, found in parts.items()}


# ---- The graph ----


def test_hyperedges_by_hand() -> None:
    counts = hyperedge_counts(make_sessions([[1, 2, 2], [2, 3, 4], [4]]), 6)
    # Sessions of 2, 3 and 1 distinct items: 1/2 per pair in the first, 1/3 in the second.
    h, t = 1 / 2, 1 / 3
    expected = [
        [0, 0, 0, 0, 0, 0],
        [0, h, h, 0, 0, 0],
        [0, h, h + t, t, t, 0],
        [0, 0, t, t, t, 0],
        [0, 0, t, t, t + 1, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(counts.toarray(), expected, atol=1e-6)
    assert counts.sum(axis=1).ravel().tolist()[0] == pytest.approx([0, 1, 2, 1, 2, 0])
    assert (counts != counts.T).nnz == 0


def test_edges_by_hand() -> None:
    found = edges(torch.tensor([2, 1, 2, 1]), torch.tensor([5, 7, 5, 3]))
    assert found.tolist() == [[1, 1, 2], [3, 7, 5]]


def test_aggregation_by_hand() -> None:
    layer = Aggregation(torch.tensor([[1, 1, 2], [0, 2, 1]]), 4, 0.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([9.0, math.log(3.0), -5.0, 1.0]))
    sources = torch.tensor([[2.0, 1.0], [10.0, 20.0], [1.0, 1.0]])
    # Node 1 hears sources 0 and 2, whose sums 3 and 2 weigh 27 to 9; nodes 0 and 3 hear nothing.
    expected = [[0, 0], [0.75 * 2 + 0.25, 1.0], [10, 20], [0, 0]]
    torch.testing.assert_close(layer(sources), torch.tensor(expected))
    # Large sums do not overflow.
    assert layer(1e4 * sources).isfinite().all()


def test_gate_by_hand() -> None:
    gate = Gate(1, 0.0)
    with torch.no_grad():
        for weight in gate.parameters():
            weight.zero_()
        gate.whole.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
        gate.first.weight.fill_(0.5)
        gate.second.weight.fill_(-1.0)
        gate.whole.bias.fill_(math.log(3.0))
    own, first, second = (torch.tensor([[one]]) for one in (2.0, 4.0, 4.0))
    # The logit is 2 + 2 - 4 + ln 3: the gate is 3/4, and both others are 4.
    assert gate(own, first, second).item() == pytest.approx(6.0)
    second += 0.5 * math.log(3.0) - 4.0  # the logit is 4 + ln 3 / 2
    share = 1 / (1 + math.exp(-4 - 0.5 * math.log(3.0)))
    expected = 2 + 4 * share + float(second) * (1 - share)
    assert gate(own, first, second).item() == pytest.approx(expected)


def test_prices_and_categories_hear_training_items_alone(build: Build) -> None:
    graph = build().graph
    for name in ("price_items", "category_items"):
        assert sorted(graph.get_submodule(name).pairs[1].tolist()) == list(range(1, 11))
    # Item 11 is in no training session: it hears its price and category, and is not heard.
    assert not graph.crow[11:].diff().any()


# ---- Scores and loss ----


@pytest.mark.parametrize(
    ("changes", "category"), [({}, True), ({"n_layers": 3}, True), ({"n_layers": 1}, False)]
)
def test_equal_to_numpy(
    build: Build, make_data: Callable[..., Any], changes: dict[str, Any], category: bool
) -> None:
    data = make_data(category=category)
    model, rows = build(data, **changes).eval(), data.inter_feat
    expected = Twin(model)(rows)
    whole = (expected["interest"] + expected["price"])[:, 1:]
    found = model.full_sort_predict(rows).detach()
    assert bool((found[:, 0] == -math.inf).all())
    np.testing.assert_allclose(found[:, 1:].numpy(), whole, rtol=1e-4, atol=1e-5)
    parts = model.score_parts(rows)
    assert list(parts) == ["interest", "price"]
    for name, part in parts.items():
        np.testing.assert_allclose(part[:, 1:].numpy(), expected[name][:, 1:], rtol=1e-4, atol=1e-5)
    target = rows["item_id"].numpy() - 1
    losses = np.log(np.exp(whole).sum(axis=1)) - whole[np.arange(len(target)), target]
    loss = model.calculate_loss(rows)
    assert isinstance(loss, torch.Tensor)
    assert loss.item() == pytest.approx(losses.mean(), rel=1e-5)


def test_own_items_are_struck_out_where_asked_for(
    build: Build, make_data: Callable[..., Any]
) -> None:
    data = make_data()
    model, rows = build(data, train_own_items="mask").eval(), data.inter_feat
    scores = model.full_sort_predict(rows).detach()[:, 1:].double().numpy()
    losses = []
    for row, one, target in zip(scores, rows["item_id_list"], rows["item_id"], strict=True):
        own = {int(item) - 1 for item in one if item} - {int(target) - 1}
        losses.append(np.log(np.exp(np.delete(row, sorted(own))).sum()) - row[int(target) - 1])
    loss = model.calculate_loss(rows)
    assert isinstance(loss, torch.Tensor)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)


# ---- Runs ----


def test_an_interrupted_run_goes_on_with_equal_bits(tmp_path: Path) -> None:
    write_toy(tmp_path / "data", SMALL, [])
    keys = {"data_path": str(tmp_path / "data"), "use_gpu": False, "floor": False, **SMALL_KEYS,
            "category_field": "class", "train_batch_size": 128,
            "MAX_ITEM_LIST_LENGTH": 8}  # fmt: skip
    whole = run("CoHHN", SMALL.name, (), {**keys, "epochs": 3, "run_folder": str(tmp_path / "a")})
    run("CoHHN", SMALL.name, (), {**keys, "epochs": 1, "run_folder": str(tmp_path / "b")})
    resumed = run("", "", (), {"epochs": 3}, resume=tmp_path / "b")
    assert resumed.test == whole.test and resumed.valid == whole.valid


def test_what_is_refused(build: Build, make_data: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="n_heads=3 does not divide embedding_size=64"):
        CoHHNSettings(n_heads=3)
    with pytest.raises(DataError, match="no item of the training sessions has a price"):
        build(make_data([""] * 10 + ["5"]))
    with pytest.raises(DataError, match="no item column 'cost'"):
        build(price_field="cost")
