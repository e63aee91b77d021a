"""MISSRec: interests by hand, and an independent NumPy version of scores, parts and losses."""

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

from recbole_mm.data.features import ItemFeatures
from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.peers import interests
from recbole_mm.model.peers.interests import distinct, find_interests, nearest
from recbole_mm.model.peers.missrec import MISSRec
from recbole_mm.model.peers.settings import MISSRecSettings
from recbole_mm.run import run
from recbole_mm.testing.case import SMALL, write_toy

from .conftest import gelu, softmax

N_ITEMS, WIDTH, HEADS = 13, 6, 2
SMALL_KEYS = {"hidden_size": WIDTH, "inner_size": 8, "n_heads": HEADS, "interest_ratio": 0.3}
# Items without a text, without an image, without either, and of no training session.
NO_TEXT, NO_IMAGE, BARE, UNSEEN = 3, 9, 7, 12
Build = Callable[..., MISSRec]
Array = NDArray[np.float64]


@pytest.fixture
def dataset(make_dataset: Any) -> Any:
    lists = [[1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 1, 2], [3, 3, 9, 11], [7, 1]]
    generator = torch.Generator().manual_seed(1)
    tables, masks = {}, {}
    for name, width, missing in (("text", 5, NO_TEXT), ("image", 4, NO_IMAGE)):
        mask = torch.ones(N_ITEMS, dtype=torch.bool)
        mask[[0, missing, BARE]] = False
        masks[name] = mask
        tables[name] = (2 + torch.randn(N_ITEMS, width, generator=generator)) * mask.unsqueeze(1)
    made = make_dataset(lists, N_ITEMS)
    made.item_features = ItemFeatures(tables, masks, dict.fromkeys(tables, "0" * 64))
    return made


@pytest.fixture
def build(settings: Any, dataset: Any) -> Build:
    def make(preset: str = "sound", data: Any = None, epoch: int = 0, **changes: Any) -> MISSRec:
        torch.manual_seed(3)
        made = MISSRec(settings("MISSRec", preset, **{**SMALL_KEYS, **changes}), data or dataset)
        with torch.no_grad():
            # Weights at which every part of the equations matters.
            for name, weight in made.named_parameters():
                weight.add_(0.3 * torch.randn_like(weight))
                if name == "item_embedding.weight":
                    weight[0] = 0.0
                if name == "fusion_factor":
                    weight.fill_(-2.0)
        made.start_epoch(epoch)
        return made

    return make


class Twin:
    """MISSRec as its equations say it, session by session; interests are taken from the model."""

    def __init__(self, model: MISSRec, dataset: Any) -> None:
        self.w = {k: v.double().numpy() for k, v in model.state_dict().items()}
        self.model, self.views, self.present = model, [], []
        for name in model.modalities:
            table = dataset.item_features.table(name).double().numpy()
            present = dataset.item_features.mask(name).numpy()
            seen = present & (dataset.train_counts > 0)
            centred = table - table[seen].mean(axis=0)
            x = centred / np.sqrt(np.square(centred[seen]).sum(axis=1).mean())
            adapted = self.linear(x, f"adaptors.{name}")
            self.views.append(np.where(present[:, None], adapted, 0.0))
            self.present.append(present)

    def linear(self, rows: Array, name: str) -> Array:
        return rows @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, rows: Array, name: str) -> Array:
        mean, var = rows.mean(-1, keepdims=True), rows.var(-1, keepdims=True)
        scale = self.w[f"{name}.weight"] / np.sqrt(var + 1e-12)
        return (rows - mean) * scale + self.w[f"{name}.bias"]

    def attention(self, asking: Array, seen: Array, name: str) -> Array:
        weight, bias = self.w[f"{name}.in_proj_weight"], self.w[f"{name}.in_proj_bias"]
        size, mixed = WIDTH // HEADS, np.zeros_like(asking)
        q, k, v = (
            rows @ weight[part].T + bias[part]
            for rows, part in (
                (asking, slice(0, WIDTH)),
                (seen, slice(WIDTH, 2 * WIDTH)),
                (seen, slice(2 * WIDTH, 3 * WIDTH)),
            )
        )
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            mixed[:, own] = softmax(q[:, own] @ k[:, own].T / math.sqrt(size)) @ v[:, own]
        return self.linear(mixed, f"{name}.out_proj")

    def feed_forward(self, rows: Array, name: str) -> Array:
        return self.linear(gelu(self.linear(rows, f"{name}.linear1")), f"{name}.linear2")

    def memory(self, context: Array) -> Array:
        for number in range(self.model.settings.n_layers):
            name = f"encoder.layers.{number}"
            mixed = context + self.attention(context, context, f"{name}.self_attn")
            context = self.norm(mixed, f"{name}.norm1")
            context = self.norm(context + self.feed_forward(context, name), f"{name}.norm2")
        return self.norm(context, "encoder.norm")

    def decoded(self, states: Array, memory: Array) -> Array:
        for number in range(self.model.settings.n_layers):
            name = f"decoder.layers.{number}"
            mixed = states + self.attention(states, states, f"{name}.self_attn")
            states = self.norm(mixed, f"{name}.norm1")
            mixed = states + self.attention(states, memory, f"{name}.multihead_attn")
            states = self.norm(mixed, f"{name}.norm2")
            states = self.norm(states + self.feed_forward(states, name), f"{name}.norm3")
        return self.norm(states, "decoder.norm")

    def session(self, items: list[int]) -> tuple[Array, float]:
        """Return ``h`` of length 1, and how alike the session's interests are."""
        kinds = sorted(set(self.w["interest_of"][items].flatten().astype(int)) - {0})
        memory = self.memory(self.w["interests"][kinds or [0]])
        inputs = sum(view[items] for view in self.views)
        assert isinstance(inputs, np.ndarray)
        if "item_embedding.weight" in self.w:
            inputs = inputs + self.w["item_embedding.weight"][items]
        inputs = inputs + self.w["position_embedding.weight"][: len(items)]
        last = self.decoded(self.norm(inputs, "norm"), memory)[-1]
        # The mean product of all pairs.
        alike = float(np.mean(memory @ memory.T)) / WIDTH if kinds else 0.0
        return last / np.linalg.norm(last), alike

    def row(self, h: Array) -> dict[str, Array]:
        """Return what each view adds to the scores ``(N,)`` of a session."""
        cosine = []
        for view in self.views:
            length = np.linalg.norm(view, axis=1)
            cosine.append(view @ h / np.where(length > 0, length, 1.0))
        factor = float(self.w.get("fusion_factor", np.zeros(())))
        names = list(self.model.modalities)
        ids = self.w.get("item_embedding.weight")
        parts = {name: np.zeros(N_ITEMS) for name in names + ([] if ids is None else ["id"])}
        for item in range(1, N_ITEMS):
            there = [m for m in range(len(names)) if self.present[m][item]]
            n_views = len(there) + (ids is not None)
            shares = softmax(np.array([factor * cosine[m][item] for m in there] or [0.0]))
            for m, share in zip(there, shares, strict=False):
                parts[names[m]][item] = share * cosine[m][item] * len(there) / n_views
            if ids is not None:
                parts["id"][item] = ids[item] @ h / np.linalg.norm(ids[item]) / n_views
        return {n: part / self.model.settings.temperature for n, part in parts.items()}

    def __call__(self, rows: Interaction) -> tuple[dict[str, Array], Array]:
        """Return the parts of the scores ``(B, N)``, and likeness ``(B,)``."""
        lists = zip(rows["item_id_list"].tolist(), rows["item_length"].tolist(), strict=True)
        sessions = [self.session(one[:n]) for one, n in lists]
        found = [self.row(h) for h, _ in sessions]
        parts = {name: np.stack([one[name] for one in found]) for name in found[0]}
        return parts, np.array([alike for _, alike in sessions])


# ---- Interests ----


def test_distinct_by_hand() -> None:
    ids = torch.tensor([[2, 0, 2, 5, 1], [0, 0, 0, 0, 0], [4, 4, 4, 4, 0]])
    assert distinct(ids).tolist() == [[5, 2, 1], [0, 0, 0], [4, 0, 0]]
    assert distinct(torch.zeros(2, 3, dtype=torch.long)).tolist() == [[0], [0]]


@pytest.mark.parametrize("seed", range(5))
def test_interests_by_hand(seed: int) -> None:
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    assert sorted(find_interests(points, 2, seed).flatten().tolist()) == [0.5, 10.5]
    # Of equal points, all belong to one centre; the other stays.
    same = torch.full((3, 2), 4.0)
    assert torch.equal(find_interests(same, 2, seed), torch.full((2, 2), 4.0))


def test_interests_against_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interests, "CELLS", 40)  # chunks of a few points
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    drawn = torch.randperm(50, generator=torch.Generator().manual_seed(7))[:6].numpy()
    known = points.double().numpy()
    centres = known[drawn]
    for _ in range(interests.ROUNDS):
        apart = np.square(known[:, None] - centres[None]).sum(axis=2)
        labels = apart.argmin(axis=1)
        centres = np.stack([known[labels == k].mean(axis=0) for k in range(6)])
    found = find_interests(points, 6, 7)
    np.testing.assert_allclose(found.numpy(), centres, atol=1e-5)
    apart = np.square(known[:, None] - centres[None]).sum(axis=2)
    assert nearest(points, found).tolist() == apart.argmin(axis=1).tolist()


def test_interests_come_from_training_items_alone(build: Build, dataset: Any) -> None:
    before = build()
    # 12 items are in training, of which two and two have no text and no image: 0.3 * 18 -> 6.
    described = int(sum(before.present[dataset.train_counts > 0].sum(dim=0)))
    assert described == 18 and len(before.interests) == 1 + 6
    for name in ("text", "image"):
        dataset.item_features.tables[name][UNSEEN] += 100.0
    after = build()
    assert torch.equal(before.interests, after.interests)
    others = torch.arange(N_ITEMS) != UNSEEN
    assert torch.equal(before.interest_of[others], after.interest_of[others])
    # All that have a vector have the nearest interest, the unseen one too; others have none.
    views = after._modal_views().detach()
    apart = torch.cdist(views, after.interests[1:].expand(N_ITEMS, -1, -1))
    expected = torch.where(after.present, 1 + apart.argmin(dim=2), 0)
    assert torch.equal(after.interest_of, expected)
    assert after.interest_of[0].tolist() == [0, 0] and after.interest_of[BARE].tolist() == [0, 0]
    # Each epoch starts at other points; the same epoch starts at the same.
    assert not torch.equal(build(epoch=1).interests, after.interests)
    assert torch.equal(build().interests, after.interests)


def test_items_that_came_later_have_the_nearest_interest(build: Build) -> None:
    model = build().eval()
    expected = model.interest_of.clone()
    model.interest_of[[2, 5]] = torch.where(model.present[[2, 5]], -1, 0)
    assert torch.equal(model.item_tables()["interests"], expected)


# ---- Scores and losses ----


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_layers": 2, "modalities": ["image", "text"]},
        {"preset": "inductive"},
        {"fusion": "static"},
        {"modalities": ["text"]},
        {"modalities": ["text"], "preset": "inductive"},
    ],
)
def test_equal_to_numpy(build: Build, dataset: Any, changes: dict[str, Any]) -> None:
    model, rows = build(**changes).eval(), dataset.inter_feat
    expected, alike = Twin(model, dataset)(rows)
    whole = np.sum(list(expected.values()), axis=0)[:, 1:]
    found = model.full_sort_predict(rows).detach()
    assert bool((found[:, 0] == -math.inf).all())
    np.testing.assert_allclose(found[:, 1:].numpy(), whole, rtol=1e-3, atol=2e-4)
    parts = model.score_parts(rows)
    assert list(parts) == (list(expected) if len(expected) > 1 else [])
    for name, part in parts.items():
        np.testing.assert_allclose(part[:, 1:].numpy(), expected[name][:, 1:], rtol=1e-3, atol=2e-4)
    target = rows["item_id"].numpy() - 1
    losses = np.log(np.exp(whole).sum(axis=1)) - whole[np.arange(len(target)), target]
    main, diversity = model.calculate_loss(rows)
    assert main.item() == pytest.approx(losses.mean(), rel=1e-4)
    assert diversity.item() == pytest.approx(0.05 * alike.mean(), rel=1e-4)


def test_own_items_are_struck_out_where_asked_for(build: Build, dataset: Any) -> None:
    model, rows = build(train_own_items="mask").eval(), dataset.inter_feat
    scores = model.full_sort_predict(rows).detach()[:, 1:].double().numpy()
    losses = []
    for row, one, target in zip(scores, rows["item_id_list"], rows["item_id"], strict=True):
        own = {int(item) - 1 for item in one if item} - {int(target) - 1}
        losses.append(np.log(np.exp(np.delete(row, sorted(own))).sum()) - row[int(target) - 1])
    assert model.calculate_loss(rows)[0].item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_the_fusion_by_hand(build: Build) -> None:
    model = build(temperature=0.5)
    with torch.no_grad():
        assert model.fusion_factor is not None
        model.fusion_factor.fill_(math.log(3.0))
    # Cosines 1 and 0 of the modalities weigh 3 to 1; the id is one of three views, of two, of one.
    cosines = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.6, 0.6, 0.6]])
    present = torch.tensor([[True, True, False], [True, False, False]])
    expected = [[0.75 * 2 / 3 / 0.5, 1 / 2 / 0.5, 0.0], [0.0, 0.0, 0.0], [0.4, 0.6, 1.2]]
    torch.testing.assert_close(model.fused(cosines, present), torch.tensor(expected))


def test_a_session_without_any_description(build: Build, dataset: Any) -> None:
    model = build().eval()
    row = dataset.inter_feat[-1:]
    assert row["item_id_list"][0].tolist() == [BARE, 0, 0, 0, 0, 0]
    before = model.full_sort_predict(row)
    model.interests[1:] += 5.0
    model.drop_caches()
    assert torch.equal(model.full_sort_predict(row), before)
    assert model.calculate_loss(row)[1].item() == 0.0


# ---- Runs ----


def test_an_interrupted_run_goes_on_with_equal_bits(tmp_path: Path) -> None:
    write_toy(tmp_path / "data", SMALL, ["text", "image"])
    keys = {"data_path": str(tmp_path / "data"), "use_gpu": False, "floor": False, **SMALL_KEYS,
            "train_batch_size": 128, "MAX_ITEM_LIST_LENGTH": 8}  # fmt: skip
    whole = run("MISSRec", SMALL.name, (), {**keys, "epochs": 3, "run_folder": str(tmp_path / "a")})
    run("MISSRec", SMALL.name, (), {**keys, "epochs": 1, "run_folder": str(tmp_path / "b")})
    resumed = run("", "", (), {"epochs": 3}, resume=tmp_path / "b")
    assert resumed.test == whole.test and resumed.valid == whole.valid


def test_what_is_refused(build: Build, make_dataset: Any) -> None:
    with pytest.raises(ConfigError, match="leaves MISSRec no interests"):
        MISSRecSettings(modalities=())
    with pytest.raises(ConfigError, match="n_heads=3 does not divide hidden_size=64"):
        MISSRecSettings(n_heads=3)
    with pytest.raises(FeatureError, match="MISSRec needs text features of Tiny, and found none"):
        build(data=make_dataset([[1, 2]], 3))


def test_modalities_are_those_that_are_there() -> None:
    settings = MISSRecSettings()
    assert settings.feature_files(["image", "text", "price"]) == ("text", "image")
    assert settings.feature_files(["image"]) == ("image",)
    assert settings.feature_files([]) == ("text",)
    assert settings.knock_outs(["text", "image"]) == {
        "text": {"modalities": ["image"]}, "image": {"modalities": ["text"]},
    }  # fmt: skip
    assert settings.knock_outs(["text"]) == {}
