"""DIMO: scores and each loss a second time in NumPy, and by hand; what its released code does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction

from recbole_mm import registry
from recbole_mm.errors import ConfigError
from recbole_mm.model.peers.dimo import DIMO, Proxy, signed
from recbole_mm.model.peers.dimo_official import OfficialDIMO
from recbole_mm.model.peers.settings import DIMOSettings
from recbole_mm.model.srim.attention import Session
from recbole_mm.model.srim.terms import Step

N_ITEMS, WIDTH, LAYERS, HEADS = 9, 4, 2, 2
TRAIN = [[1, 2, 3], [1, 2], [2, 2, 4], [5, 3, 6, 1], [7, 5]]
TEST = [[3, 4, 8], [6, 2]]
SMALL = {"embedding_size": WIDTH, "n_heads": HEADS, "n_layers": LAYERS, "n_neighbors": 2}
Build = Callable[..., DIMO]
Array = NDArray[np.float64]


@pytest.fixture
def dataset(make_dataset: Any) -> Any:
    generator = torch.Generator().manual_seed(11)
    features = {
        name: torch.randn(N_ITEMS, width, generator=generator)
        for name, width in (("text", 5), ("image", 3))
    }
    # Item 8 occurs in no training session; item 6 has no vector.
    return make_dataset(TRAIN, N_ITEMS, TEST, features, missing=[6])


@pytest.fixture
def build(settings: Any, dataset: Any) -> Build:
    def make(preset: str = "sound", **changes: Any) -> DIMO:
        torch.manual_seed(3)
        model_class = registry.resolve("DIMO").load(preset)
        made: DIMO = model_class(settings("DIMO", preset, **{**SMALL, **changes}), dataset)
        with torch.no_grad():
            for weight in made.parameters():
                weight.mul_(3.0)  # Weights at which every part of the equations matters.
        return made.eval()

    return make


def softplus(value: Array) -> Array:
    return np.log1p(np.exp(value))


def cos(x: Array, y: Array) -> Array:
    """Return the cosines of two lists of vectors, 0 where one is 0."""
    size = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return (x * y).sum(axis=-1) / np.where(size > 0, size, 1.0)


def counted(lists: list[list[int]], positions: bool) -> Array:
    """Count the sessions that hold both items, or the pairs of their positions."""
    counts = np.zeros((N_ITEMS, N_ITEMS))
    for one in lists:
        held = one if positions else sorted(set(one))
        for a in held:
            for b in held:
                counts[a, b] += a != b
    return counts


class Twin:
    """DIMO as its equations say it, session by session."""

    def __init__(self, model: DIMO, dataset: Any) -> None:
        self.w = {k: v.detach().double().numpy() for k, v in model.state_dict().items()}
        self.rows, self.dataset = dataset.inter_feat, dataset
        self.official = isinstance(model, OfficialDIMO)
        self.counts = counted(dataset.train, self.official)
        self.share = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        self.tables = {"id": self.spread(self.w["tables.id.weight"])}
        self.tables["content"] = self.spread(self.content(model))
        self.p: dict[str, Array] = {}
        self.q: dict[str, Array] = {}
        for branch, table in self.tables.items():
            self.p[branch] = np.stack([table[one].mean(axis=0) for one in self.inputs()])
            self.q[branch] = np.stack([self.last(branch, table[one]) for one in self.inputs()])

    def inputs(self) -> list[list[int]]:
        return [[item for item in one if item] for one in self.rows["item_id_list"].tolist()]

    def content(self, model: DIMO) -> Array:
        if self.official:
            return self.w["tables.content.weight"]
        parts, gaps = [], []
        for name in model.settings.modalities or ():
            features = self.dataset.item_features
            table = features.table(name).double().numpy()
            present = features.mask(name).numpy()
            seen = present & (self.dataset.train_counts > 0)
            centred = (table - table[seen].mean(axis=0)) * present[:, None]
            size = np.linalg.norm(centred, axis=1, keepdims=True)
            parts.append(centred / np.where(size > 0, size, 1.0))
            gaps.append(~present & (np.arange(N_ITEMS) > 0))
        mapped: Array = np.concatenate(parts, axis=1) @ self.w["tables.content.project.weight"].T
        return mapped + np.stack(gaps, axis=1) @ self.w["tables.content.missing"]

    def spread(self, table: Array) -> Array:
        for _ in range(LAYERS):
            table = table + self.share @ table
        return table

    def linear(self, rows: Array, name: str) -> Array:
        return rows @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def last(self, branch: str, vectors: Array) -> Array:
        """Return attention's output at the last position."""
        name, size = f"encoders.{branch}.attention.maps", WIDTH // HEADS
        q, k, v = (self.linear(vectors, f"{name}.{one}") for one in ("query", "key", "value"))
        found = np.zeros(WIDTH)
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            weight = np.exp(k[:, own] @ q[-1, own] / math.sqrt(size))
            found[own] = weight / weight.sum() @ v[:, own]
        return found

    def scores(self) -> dict[str, Array]:
        return {branch: self.q[branch] @ table.T for branch, table in self.tables.items()}

    def proxy(self, s1: Array, s2: Array, s3: Array, s4: Array) -> Array:
        """Two softmax cross-entropies of two cosines each."""

        def like(left: str, x: Array, right: str, y: Array) -> Array:
            mapped = (self.linear(v, f"terms.proxy.maps.{n}") for n, v in ((left, x), (right, y)))
            return np.exp(cos(*mapped))

        own, other = like("1", s1, "2", s2), like("3", s1, "4", s3)
        first = -np.log(own / (own + other))
        own, other = like("4", s3, "5", s4), like("7", s3, "8", s1)
        return first - np.log(own / (own + other))

    def counterfactual(self, items: Array, flags: list[bool]) -> Array:
        u, v = (cos(self.q[b], self.tables[b][items]) for b in ("id", "content"))
        return np.where(flags, 1, -1) * -np.log(np.exp(u) / (np.exp(u) + np.exp(v)))

    def partners(self, item: int, length: int = 2) -> list[int]:
        met = [k for k in range(N_ITEMS) if self.counts[item, k]]
        return sorted(met, key=lambda k: (-self.counts[item, k], k))[:length]

    def contrast(self, item: int, strangers: list[int]) -> float:
        """Natural logarithm of one over the share of an item's partners among its strangers."""
        table, near = self.tables["id"], self.partners(item)
        mean = sum((self.counts[item, k] * table[k] for k in near), np.zeros(WIDTH))
        own = math.exp(cos(table[item], mean))
        return math.log((own + sum(math.exp(cos(table[item], table[k])) for k in strangers)) / own)


def losses(model: DIMO, rows: Interaction) -> dict[str, float]:
    """Return the parts of the loss by name, without dropout."""
    torch.manual_seed(0)
    found = model.calculate_loss(rows)
    return {name: part.item() for name, part in zip(model.loss_names, found, strict=True)}


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("sound", {}), ("sound", {"modalities": ["text", "image"]}), ("official", {})],
)
def test_scores_parts_and_main_loss_equal_numpy(
    build: Build, dataset: Any, preset: str, changes: dict[str, Any]
) -> None:
    model = build(preset, **changes)
    twin, rows = Twin(model, dataset), dataset.inter_feat
    expected = twin.scores()
    parts = model.score_parts(rows)
    assert list(parts) == list(expected) == ["id", "content"]
    for name, part in parts.items():
        np.testing.assert_allclose(part[:, 1:].numpy(), expected[name][:, 1:], rtol=1e-3, atol=1e-4)
    whole = sum(expected.values(), np.zeros((len(rows), N_ITEMS)))[:, 1:]
    found = model.full_sort_predict(rows).detach()
    assert bool((found[:, 0] == -math.inf).all())
    np.testing.assert_allclose(found[:, 1:].numpy(), whole, rtol=1e-3, atol=1e-4)
    own = whole[np.arange(len(whole)), rows["item_id"].numpy() - 1]
    main = np.mean(np.log(np.exp(whole).sum(axis=1)) - own)
    assert losses(model, rows)["main"] == pytest.approx(main, rel=1e-4)


# Graph


@pytest.mark.parametrize("preset", ["sound", "official"])
def test_only_training_sessions_are_counted(build: Build, dataset: Any, preset: str) -> None:
    graph = build(preset).graph.counts.toarray()
    np.testing.assert_array_equal(graph, counted(dataset.train, positions=preset == "official"))
    assert graph[2, 4] == (2 if preset == "official" else 1)
    # The test sessions hold 3 with 4, 4 with 8 and 6 with 2.
    assert graph[3, 4] == graph[4, 8] == graph[6, 2] == 0


# Proxy


def test_the_proxy_loss_by_hand() -> None:
    proxy = Proxy(2)
    with torch.no_grad():
        for maps in proxy.maps.values():
            maps.weight.copy_(torch.eye(2))
            maps.bias.zero_()
        proxy.maps["7"].weight.mul_(-1.0)
    q_id, p_id = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    q_content, p_content = torch.tensor([[-2.0, 0.0]]), torch.tensor([[-3.0, 0.0]])
    # Cosines 0 and -1, then 1 and, its map turned round, 1: log(1 + e^-1) + log 2.
    found = proxy.told_apart(q_id, p_id, q_content, p_content)
    assert found.item() == pytest.approx(0.3132617 + 0.6931472, abs=1e-6)
    assert "6" not in proxy.maps


def test_the_proxy_loss_equals_numpy(build: Build, dataset: Any) -> None:
    model = build(w_proxy=0.5)
    twin = Twin(model, dataset)
    expected = twin.proxy(twin.q["id"], twin.p["id"], twin.q["content"], twin.p["content"])
    assert losses(model, dataset.inter_feat)["proxy"] == pytest.approx(
        0.5 * expected.mean(), rel=1e-4
    )


# Counterfactual


def test_the_counterfactual_loss_by_hand() -> None:
    # Cosines of session and item 1: 1 and 0 in the first row, -1 and 0 in the second.
    after = {"id": [[2.0, 0.0], [-1.0, 0.0]], "content": [[0.0, 1.0], [0.0, 3.0]]}
    encoded = {b: Session(torch.zeros(2, 2), torch.tensor(v)) for b, v in after.items()}
    tables = {b: torch.tensor([[0.0, 0.0], [1.0, 0.0]]) for b in after}
    item = torch.tensor([1, 1])
    step = Step(item.unsqueeze(1), item, torch.zeros(2).long(), encoded, tables)
    found = signed(step, item, torch.tensor([True, False]))
    # log(1 + e^-1), and -log(1 + e^1)
    assert found.tolist() == pytest.approx([0.3132617, -1.3132617], abs=1e-6)


def test_the_counterfactual_loss_equals_numpy(build: Build, dataset: Any) -> None:
    model, rows = build(w_counterfactual=0.5), dataset.inter_feat
    twin, flags = Twin(model, dataset), []
    for items, target, session in zip(
        twin.inputs(), rows["item_id"].tolist(), rows["session_id"].tolist(), strict=True
    ):
        others = dataset.train[: session - 1] + dataset.train[session:]
        flags.append(
            any({target, item} <= set(o) for o in others for item in items if item != target)
        )
    assert True in flags and False in flags
    expected = twin.counterfactual(rows["item_id"].numpy(), flags).mean()
    assert losses(model, rows)["counterfactual"] == pytest.approx(0.5 * expected, rel=1e-4)


# Co-occurrence


def test_the_cooccurrence_loss_equals_numpy(build: Build, dataset: Any) -> None:
    model = build(w_co=2.0, co_samples=0)
    twin = Twin(model, dataset)
    far = {
        item: [k for k in range(1, N_ITEMS) if not twin.counts[item, k] and k != item][:2]
        for item in range(1, 8)
    }

    def strangers(anchors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.tensor([far[item] for item in anchors.tolist()])
        return ids, torch.ones_like(ids, dtype=torch.bool)

    model.terms["co"].strangers = strangers  # type: ignore[assignment]
    expected = np.mean([twin.contrast(item, far[item]) for item in range(1, 8)])
    assert losses(model, dataset.inter_feat)["co"] == pytest.approx(2 * expected, rel=1e-4)


# Released code


def test_the_released_losses_by_definition(build: Build, dataset: Any) -> None:
    model = build("official", w_proxy=0.5, w_counterfactual=0.25, w_co=2.0)
    twin, rows = Twin(model, dataset), dataset.inter_feat
    found, ten = losses(model, rows), math.log(10.0)
    # The call hands over sessions first, then proxies.
    mixed = twin.proxy(twin.q["id"], twin.q["content"], twin.p["id"], twin.p["content"])
    assert found["proxy"] == pytest.approx(0.5 * mixed.sum() / ten, rel=1e-4)
    targets = rows["item_id"].numpy()
    flags = [
        any(target in twin.partners(item) for item in items)
        for items, target in zip(twin.inputs(), targets.tolist(), strict=True)
    ]
    assert True in flags and False in flags and 1 in targets
    for table in twin.tables.values():
        table[0] = 0.0
    before = twin.counterfactual(targets - 1, flags)
    assert found["counterfactual"] == pytest.approx(0.25 * before.sum() / ten, rel=1e-4)
    total = 0.0
    for item in range(1, N_ITEMS):
        unmet = [k for k in range(1, N_ITEMS) if not twin.counts[item, k] and k != item]
        total += twin.contrast(item, unmet[:2]) / ten
    assert found["co"] == pytest.approx(2 * total, rel=1e-4)


def test_the_released_tables_are_free_and_dropout_ends_after_an_epoch(build: Build) -> None:
    model = build("official")
    assert isinstance(model, OfficialDIMO)
    assert model.tables["id"].weight.shape == model.tables["content"].weight.shape == (9, 4)
    for epoch, expected in ((0, [0.3, 0.2, 0.2]), (1, [0.0] * 3)):
        model.start_epoch(epoch)
        assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == expected


# Settings


def test_one_branch_alone_and_losses_switched_off(build: Build, dataset: Any) -> None:
    assert build().loss_names == ("main", "co", "proxy", "counterfactual")
    assert build(branches="id").loss_names == ("main", "co")
    assert build(branches="content").loss_names == ("main",)
    assert build(w_co=0, w_proxy=0, w_counterfactual=0).loss_names == ("main",)
    for branch in ("id", "content"):
        alone = build(branches=branch)
        scores = alone.full_sort_predict(dataset.inter_feat)[:, 1:]
        assert scores.isfinite().all() and alone.score_parts(dataset.inter_feat) == {}


def test_what_is_refused_and_left_out() -> None:
    with pytest.raises(ConfigError, match="n_heads=3 does not divide embedding_size=100"):
        DIMOSettings(n_heads=3)
    assert not {"attention", "align", "w_joint", "session_map"} & set(DIMOSettings.keys())
    assert DIMOSettings().knock_outs(["text"]) == {"text": {"branches": "id"}}
