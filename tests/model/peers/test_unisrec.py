"""UniSRec: the adaptor by hand, and an independent NumPy version of scores, parts and loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.peers.adaptor import Adaptor
from recbole_mm.model.peers.settings import UniSRecSettings
from recbole_mm.model.peers.unisrec import UniSRec

N_ITEMS = 13
Build = Callable[..., UniSRec]


@pytest.mark.parametrize(
    ("preset", "modalities"),
    [("sound", ["text"]), ("text", ["text"]), ("sound", ["image", "text"])],
)
def test_equal_to_numpy(
    build: Build, twin: Any, dataset: Any, preset: str, modalities: list[str]
) -> None:
    model = build(preset, modalities=modalities).eval()
    expected = twin(model, dataset).scores(dataset.inter_feat)
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
    known = (([0.0, 0.0], [[1.0, 0.0]]), ([1.0, 2.0], [[10.0, 100.0]]))
    with torch.no_grad():
        adaptor.gate.copy_(torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]]))
        for expert, (shift, weight) in zip(adaptor.experts, known, strict=True):
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


def test_gates_keep_a_little_noise_whatever_is_learned() -> None:
    """``softplus`` of -50 is nothing: what is left deviates by 0.01."""
    torch.manual_seed(0)
    adaptor, rows = Adaptor(1, 2, 4, 0.0).train(), torch.ones(5000, 1)
    with torch.no_grad():
        adaptor.noise.fill_(-50.0)
    logits = torch.log(adaptor.gates(rows)).detach()
    noise = logits - logits.mean(dim=1, keepdim=True)
    expected = pytest.approx(0.01 * math.sqrt(3 / 4), rel=0.05)
    assert float(noise.square().mean().sqrt()) == expected


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
