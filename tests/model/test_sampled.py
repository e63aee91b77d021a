"""The softmax over a sample: by hand, equal to the whole one of all items, right on average."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_mm.errors import ConfigError
from recbole_mm.model.chunked import mean_softmax_ce
from recbole_mm.model.sampled import ItemSampler, sampled_softmax_ce, sampling


def test_a_loss_by_hand() -> None:
    # Scores of items 1 to 4 are 0, ln 2, ln 3, ln 4; drawn are 3, 3 and 1, expected 1/2, 1/2 and 2.
    items = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).log().clamp_min(-9.0).unsqueeze(1).double()
    query, drawn = torch.ones(3, 1).double(), torch.tensor([3, 3, 1])
    expected = torch.tensor([0.5, 0.5, 2.0]).log()
    target = torch.tensor([4, 3, 2])
    # 4 against 3/.5 twice and 1/2; 3, whose draws are left out, against 1/2; 2 without item 1.
    struck = torch.tensor([[0, 0], [0, 0], [1, 0]])
    by_hand = -(math.log(4 / (4 + 6 + 6 + 0.5)) + math.log(3 / 3.5) + math.log(2 / (2 + 6 + 6))) / 3
    found = sampled_softmax_ce(query, items, target, drawn, expected, struck)
    assert float(found) == pytest.approx(by_hand, abs=1e-7)


def drawn_tables() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    query = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    items = torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    return query, items, torch.randint(1, 30, (9,))


@pytest.mark.parametrize("masked", [False, True])
def test_all_items_drawn_uniformly_are_the_whole_loss(masked: bool) -> None:
    query, items, target = drawn_tables()
    struck = torch.randint(0, 30, (9, 3)) if masked else None
    whole = mean_softmax_ce(query, items, target, struck)
    sampler = ItemSampler(np.arange(30), 29, alpha=0.0)
    with sampling(sampler):
        found = mean_softmax_ce(query, items, target, struck)
    assert sampler.used and sorted(sampler.draw(query.device)[0].tolist()) == [*range(1, 30)]
    torch.testing.assert_close(found, whole)
    for left, right in zip(
        torch.autograd.grad(found, [query, items]),
        torch.autograd.grad(whole, [query, items]),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


def test_each_item_comes_as_often_as_expected() -> None:
    clicks = np.array([99, 0, 1, 3, 7, 15])
    sampler = ItemSampler(clicks, 3, alpha=1.0)
    # (clicks + 1) = 1, 2, 4, 8, 16 of 31; the last comes more than once in every sample.
    expected = 3 * np.array([1, 2, 4, 8, 16]) / 31
    torch.manual_seed(0)
    samples = [sampler.draw(torch.device("cpu")) for _ in range(4000)]
    counted = np.bincount(np.concatenate([ids.numpy() for ids, _ in samples]), minlength=6)
    assert counted[0] == 0
    np.testing.assert_allclose(counted[1:] / 4000, expected, atol=0.03)
    ids, logs = samples[0]
    torch.testing.assert_close(logs.exp(), torch.tensor(expected)[ids - 1].float())
    uniform = ItemSampler(clicks, 3, alpha=0.0).draw(torch.device("cpu"))[1]
    torch.testing.assert_close(uniform.exp(), torch.full((3,), 0.6))


@pytest.mark.parametrize("alpha", [0.0, 0.75])
def test_the_sum_is_right_on_average(alpha: float) -> None:
    query, items, target = drawn_tables()
    sampler = ItemSampler(np.arange(30) ** 2, 6, alpha)
    torch.manual_seed(1)
    right = (query * items[target]).sum(dim=1)

    sums = torch.zeros(9, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(1500):
            rows = (sampler.loss(query[[r]], items, target[[r]]) for r in range(9))
            # The sum under the fraction of one row.
            sums += (torch.stack([*rows]) + right).exp() / 1500
    whole = (query @ items.T)[:, 1:].exp().sum(dim=1)
    torch.testing.assert_close(sums, whole, rtol=0.12, atol=0.0)


def test_draws_follow_the_seed_and_other_tables_are_left_alone() -> None:
    query, items, target = drawn_tables()
    sampler = ItemSampler(np.arange(30), 5, 0.75)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        with sampling(sampler):
            losses.append(float(mean_softmax_ce(query, items, target).detach()))
    assert losses[0] == losses[1] != losses[2]
    other = ItemSampler(np.arange(31), 5, 0.75)
    with sampling(other):
        assert torch.equal(mean_softmax_ce(query, items, target).detach(),
                           mean_softmax_ce(query, items, target).detach())  # fmt: skip
    assert not other.used


def test_more_draws_than_items_are_refused() -> None:
    with pytest.raises(ConfigError, match="sampled_softmax = 30 .* at most 29"):
        ItemSampler(np.arange(30), 30, 0.0)
