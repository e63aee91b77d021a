"""Negatives of AlterRec: windows by hand, laws by counting, losses by hand."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_mm.errors import ConfigError
from recbole_mm.model.alterrec.negatives import (
    Drawn,
    NegativeSampler,
    borrowed_loss,
    negative_mass,
    positive_loss,
    rank_window,
    top_items,
    window_items,
)

# Scores of padding, which must not count, and items 1 to 10; the order is 6, 2, 10, 4, 7, 1, 9, 5,
# 3, 8.
TEACHER = torch.tensor([[99.0, 0.9, 2.5, -0.3, 1.7, 0.0, 3.1, 1.2, -1.0, 0.4, 2.0]])


def sampler(n_items: int, first: int, last: int | float, **changes: object) -> NegativeSampler:
    config: dict[str, object] = {
        "hard_negative_start_rank": first,
        "hard_negative_end_rank": last,
        "hard_negative_ratio": 0.5,
        "hard_negative_sampling": "subset",
        "share_negative_ranks": True,
    }
    return NegativeSampler({**config, **changes}, n_items)


# The window


def test_best_items_in_order() -> None:
    assert top_items(TEACHER, 2)[0].tolist() == [6, 2]
    assert top_items(TEACHER, 10)[0].tolist() == [6, 2, 10, 4, 7, 1, 9, 5, 3, 8]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(3, 6, {10, 4, 7, 1}), (4, 6, {4, 7, 1}), (1, 1, {6}), (3, 10, {10, 4, 7, 1, 9, 5, 3, 8})],
)
def test_the_window_includes_both_ranks(first: int, last: int, expected: set[int]) -> None:
    found = window_items(TEACHER, first, last)[0].tolist()
    assert set(found) == expected
    assert len(found) == len(expected)


def test_a_window_behind_the_catalogue_is_cut_with_a_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "recbole_mm")
    assert rank_window(3, 50, 10) == (3, 10)
    assert "hard_negative_end_rank=50 is cut to the 10 items" in caplog.text
    caplog.clear()
    assert rank_window(3, 10, 10) == (3, 10)
    assert not caplog.records


def test_the_last_rank_as_a_share_of_the_catalogue() -> None:
    assert rank_window(20, 0.5, 40_258) == (20, 20_129)
    assert rank_window(1, 1.0, 7) == (1, 7)
    assert rank_window(1, 1, 7) == (1, 1)


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (11, 50, "start_rank=11 lies behind hard_negative_end_rank=50, which is rank 10 of 10"),
        (7, 6, "lies behind"),
        (20, 0.5, "which is rank 5 of 10"),
        (3, 6.0, "neither a rank nor a share"),
    ],
)
def test_an_empty_window_is_refused(first: int, last: int | float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rank_window(first, last, 10)


# How many, and from where


@pytest.mark.parametrize(
    ("ratio", "kind", "n_hard", "n_uniform"),
    [
        (0.5, "subset", 9_990, 9_990),
        (1.0, "subset", 19_980, 0),
        (0.0, "subset", 0, 19_980),
        (0.1, "subset", 1_998, 17_982),
        (1.0, "window", 19_980, 0),
        (0.5, "window", 19_980, 19_980),
    ],
)
def test_counts_at_the_released_codes_ranks(
    ratio: float, kind: str, n_hard: int, n_uniform: int
) -> None:
    made = sampler(40_258, 21, 20_000, hard_negative_ratio=ratio, hard_negative_sampling=kind)
    assert (made.size, made.n_hard, made.n_uniform) == (19_980, n_hard, n_uniform)


def test_an_odd_window_is_halved_downwards() -> None:
    made = sampler(100, 3, 13)
    assert (made.size, made.n_hard, made.n_uniform) == (11, 5, 5)


def test_the_whole_window_cannot_be_no_part() -> None:
    with pytest.raises(ConfigError, match="hard_negative_sampling=window takes the whole window"):
        sampler(10, 3, 6, hard_negative_ratio=0.0, hard_negative_sampling="window")


@pytest.mark.parametrize("shared", [True, False])
def test_a_subset_has_no_repetition_and_stays_in_each_rows_window(shared: bool) -> None:
    torch.manual_seed(1)
    teacher = torch.randn(8, 41)
    made = sampler(40, 5, 24, share_negative_ranks=shared)
    items = made.hard(teacher).items
    assert items is not None
    assert items.shape == (8, 20)
    order = 1 + teacher[:, 1:].argsort(dim=1, descending=True)
    for row in range(8):
        window = set(order[row, 4:24].tolist())
        drawn = items[row, :10].tolist()
        assert set(drawn) <= window
        assert len(set(drawn)) == 10


def frequencies(made: NegativeSampler, teacher: Tensor, draws: int) -> np.ndarray:
    """Return how often each item is drawn per row on average, ``(B, V)``."""
    total = np.zeros(teacher.shape)
    for _ in range(draws):
        drawn = made.hard(teacher)
        if drawn.items is None:
            assert drawn.log_weight is not None
            return drawn.log_weight.exp().numpy()[:, 1:]
        for row, items in enumerate(drawn.items.numpy()):
            total[row] += np.bincount(items, minlength=teacher.shape[1])
    assert bool((total[:, 0] == 0).all())
    return total[:, 1:] / draws


def padded(n_rows: int, n_items: int) -> Tensor:
    """Return random scores with a column of padding that would rank first."""
    return torch.cat([torch.full((n_rows, 1), 99.0), torch.randn(n_rows, n_items)], dim=1)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["shared", "independent", "expected"])
def test_all_samplers_have_the_same_law_in_every_row(kind: str, ratio: float) -> None:
    torch.manual_seed(2)
    n_items, first, last, draws = 24, 4, 13, 3_000
    teacher = padded(3, n_items)
    made = sampler(
        n_items,
        first,
        last,
        hard_negative_ratio=ratio,
        hard_negative_sampling="expected" if kind == "expected" else "subset",
        share_negative_ranks=kind == "shared",
    )
    found = frequencies(made, teacher, draws)
    ranks = teacher[:, 1:].argsort(dim=1, descending=True).argsort(dim=1).numpy() + 1
    inside = (ranks >= first) & (ranks <= last)
    # 10 ranks: 10 ratio from the window, 10 (1 - ratio) from all 24 items.
    expected = np.where(inside, ratio, 0.0) + 10 * (1 - ratio) / n_items
    # Four standard errors of a mean of 3,000 draws, each with a variance below 0.7.
    tolerance = 1e-6 if kind == "expected" else 4 * math.sqrt(0.7 / draws)
    assert np.abs(found - expected).max() < tolerance


def test_multiplicities_at_the_released_codes_size() -> None:
    torch.manual_seed(3)
    teacher = padded(4, 40_258)
    ranks = teacher[:, 1:].argsort(dim=1, descending=True).argsort(dim=1).numpy() + 1
    inside = (ranks >= 21) & (ranks <= 20_000)
    found = frequencies(sampler(40_258, 21, 20_000), teacher, 1)
    assert found[inside].mean() == pytest.approx(0.748, abs=0.01)
    assert found[~inside].mean() == pytest.approx(0.248, abs=0.01)
    weights = frequencies(
        sampler(40_258, 21, 20_000, hard_negative_sampling="expected"), teacher, 1
    )
    assert weights[inside] == pytest.approx(0.748149, abs=1e-5)
    assert weights[~inside] == pytest.approx(0.248149, abs=1e-5)
    assert weights[inside][0] / weights[~inside][0] == pytest.approx(3.015, abs=1e-3)
    uniform = sampler(40_258, 21, 20_000).uniform(teacher).items
    assert uniform is not None
    assert uniform.shape[1] / 40_258 == pytest.approx(0.496, abs=1e-3)


def test_uniform_draws_reach_every_item_equally() -> None:
    torch.manual_seed(4)
    items = sampler(10, 3, 6).uniform(torch.zeros(5_000, 11)).items
    assert items is not None
    assert items.shape == (5_000, 4)
    counts = torch.bincount(items.flatten(), minlength=11)
    assert (len(counts), int(counts[0])) == (11, 0)
    assert (counts[1:] - 2_000).abs().max() < 4 * math.sqrt(2_000)


def test_rows_share_their_places_or_not() -> None:
    torch.manual_seed(5)
    # One teacher for all rows, so that equal places are equal items.
    teacher = torch.randn(1, 61).expand(6, -1).contiguous()
    for shared in (True, False):
        made = sampler(60, 5, 44, share_negative_ranks=shared, hard_negative_ratio=0.9)
        items = made.hard(teacher).items
        assert items is not None
        different = {tuple(sorted(row)) for row in items[:, : made.n_hard].tolist()}
        assert len(different) == (1 if shared else 6)


# Losses

# Padding first; the target is item 1.
SCORES = torch.tensor([[99.0, 2.0, 1.0, 0.0, 3.0, 0.5]])
TARGET = torch.tensor([[1]])


def mass(items: list[int] | None = None, weights: list[float] | None = None) -> Tensor:
    drawn = Drawn(
        None if items is None else torch.tensor([items]),
        None if weights is None else torch.tensor([weights]).log(),
    )
    return negative_mass(SCORES, drawn, TARGET)


def test_the_loss_of_a_target_and_two_negatives() -> None:
    total = mass([2, 3])
    assert total.item() == pytest.approx(1.3132616, abs=1e-6)
    assert positive_loss(total, SCORES, TARGET).item() == pytest.approx(0.4076059, abs=1e-6)
    # Two negatives and the target in one softmax.
    expected = -torch.log_softmax(SCORES[0, 1:4], dim=0)[0]
    assert positive_loss(total, SCORES, TARGET).item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_negative_that_is_the_target_does_not_count() -> None:
    total = mass([2, 1])
    assert positive_loss(total, SCORES, TARGET).item() == pytest.approx(0.3132617, abs=1e-6)


def test_a_negative_drawn_twice_counts_twice() -> None:
    twice, weighted = mass([2, 2, 3]), mass(weights=[7.0, 5.0, 2.0, 1.0, 0.0, 0.0])
    assert twice.item() == pytest.approx(1.8619947, abs=1e-6)
    assert weighted.item() == pytest.approx(1.8619947, abs=1e-6)
    assert positive_loss(twice, SCORES, TARGET).item() == pytest.approx(0.6265233, abs=1e-6)


def test_without_a_list_every_other_item_is_a_negative() -> None:
    found = positive_loss(mass(), SCORES, TARGET)
    assert found.item() == pytest.approx(
        -torch.log_softmax(SCORES[0, 1:], dim=0)[0].item(), abs=1e-6
    )


@pytest.mark.parametrize("items", [[1], [1, 1, 1]])
def test_no_negative_at_all_is_no_loss_and_no_nan(items: list[int]) -> None:
    scores = SCORES.clone().requires_grad_()
    total = negative_mass(scores, Drawn(torch.tensor([items])), TARGET)
    loss = positive_loss(total, scores, TARGET).sum()
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.abs().sum() == 0.0


@pytest.mark.parametrize("form", ["list", "weights", "all"])
def test_the_sessions_items_can_be_struck_out(form: str) -> None:
    scores = SCORES.clone().requires_grad_()
    drawn = {
        "list": Drawn(items=torch.tensor([[1, 2, 4, 2]])),
        "weights": Drawn(log_weight=torch.tensor([[9.0, 9.0, 2.0, 0.0, 1.0, 0.0]]).log()),
        "all": Drawn(),
    }[form]
    # Padding of a session is item 0 and strikes nothing else.
    history = torch.tensor([[4, 0, 0]] if form != "all" else [[4, 3, 5]])
    total = negative_mass(scores, drawn, TARGET, history)
    assert total.item() == pytest.approx(1.0 + (0 if form == "all" else math.log(2)), abs=1e-6)
    total.sum().backward()
    assert scores.grad is not None
    assert scores.grad[0].tolist() == [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]


def test_borrowed_positives_have_a_softmax_of_their_own() -> None:
    total = mass([2, 3])
    terms = positive_loss(total, SCORES, torch.tensor([[4, 5]]))
    assert terms[0].tolist() == pytest.approx([0.1698460, 1.1802697], abs=1e-6)
    counted = torch.ones(1, 2, dtype=torch.bool)
    main = positive_loss(total, SCORES, TARGET).mean()
    added = {how: main + 0.5 * borrowed_loss(terms, counted, how) for how in ("sum", "mean")}
    assert added["sum"].item() == pytest.approx(1.0826638, abs=1e-6)
    assert added["mean"].item() == pytest.approx(0.7451349, abs=1e-6)


def test_borrowed_positives_of_several_rows() -> None:
    terms = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    some = torch.tensor([[True, False], [True, True]])
    none = torch.zeros(2, 2, dtype=torch.bool)
    assert borrowed_loss(terms, some, "mean").item() == pytest.approx(13 / 3)
    assert borrowed_loss(terms, some, "sum").item() == pytest.approx(13 / 2)
    assert borrowed_loss(terms, none, "mean").item() == 0.0
    assert borrowed_loss(terms, none, "sum").item() == 0.0
