"""A blend before its weights are fitted; runs of it stand in tests/run/test_score_parts.py."""

from __future__ import annotations

import math

import torch

from recbole_mm.model.counting.scores import z_scores
from recbole_mm.model.parts.blend import Blend

N_ITEMS = 6


def test_it_teaches_nothing_and_all_networks_weigh_the_same(data, settings, rows, make):
    torch.manual_seed(2)
    tables = {name: torch.randn(N_ITEMS, N_ITEMS) for name in ("one", "other")}
    networks = {name: make("transitions", given=table) for name, table in tables.items()}
    blend = Blend({**settings("SRIM"), "score_parts": [], "runs": []}, data, networks)
    batch = rows([1, 2], [3], target=[4, 2])
    loss = blend.calculate_loss(batch)
    loss.backward()
    assert loss.item() == 0.0
    trained = {name: weight for name, weight in blend.named_parameters() if weight.requires_grad}
    assert [weight.grad.tolist() for weight in trained.values()] == [[0.0]]
    expected = sum(z_scores(table[torch.tensor([2, 3])]) for table in tables.values())
    found = blend.full_sort_predict(batch)
    torch.testing.assert_close(found[:, 1:], expected[:, 1:])
    assert blend.score_parts(batch) == {}
    blend.late = {
        "networks": {"one": 1.0, "other": 0.5}, "parts": {}, "variants": {}, "own_last": False,
    }  # fmt: skip
    assert bool((blend.full_sort_predict(batch)[:, 0] == -math.inf).all())
