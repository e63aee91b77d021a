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
    NegativeSampler,
    negative_mass,
    own_masses,
    positive_loss,
    rank_window,
    top_items,
    window_items,
)
from recbole_mm.model.alterrec.official import RowwiseSampler

# Scores of padding, which must not count, and items 1 to 10; the order is 6, 2, 10, 4, 7, 1, 9, 5,
# 3, 8.
TEACHER = torch.tensor([[99.0, 0.9, 2.5, -0.3, 1.7, 0.0, 3.1, 1.2, -1.0, 0.4, 2.0]])


BOTH = (NegativeSampler, RowwiseSampler)


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
    ],
)
def test_an_empty_window_is_refused(first: int, last: int | float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rank_window(first, last, 10)


# How many, and from where


@pytest.mark.parametrize(
    ("ratio", "n_hard", "n_uniform"),
    [(0.5, 9_990, 9_990), (1.0, 19_980, 0), (0.0, 0, 19_980), (0.1, 1_998, 17_982)],
)
def test_counts_at_the_released_codes_ranks(ratio: float, n_hard: int, n_uniform: int) -> None:
    made = NegativeSampler((21, 20_000), ratio, 40_258)
    assert (made.size, made.n_hard, made.n_uniform) == (19_980, n_hard, n_uniform)


def test_an_odd_window_is_halved_downwards() -> None:
    made = NegativeSampler((3, 13), 0.5, 100)
    assert (made.size, made.n_hard, made.n_uniform) == (11, 5, 5)


@pytest.mark.parametrize("kind", BOTH)
def test_the_whole_window_is_taken_as_it_is(kind: type[NegativeSampler]) -> None:
    teacher = TEACHER.expand(2, -1)
    found = kind((3, 6), 1.0, 10).hard(teacher)
    assert [sorted(row) for row in found.tolist()] == [[1, 4, 7, 10]] * 2


@pytest.mark.parametrize("kind", BOTH)
def test_a_subset_has_no_repetition_and_stays_in_each_rows_window(
    kind: type[NegativeSampler],
) -> None:
    torch.manual_seed(1)
    teacher = torch.randn(8, 41)
    items = kind((5, 24), 0.5, 40).hard(teacher)
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
        for row, items in enumerate(made.hard(teacher).numpy()):
            total[row] += np.bincount(items, minlength=teacher.shape[1])
    assert bool((total[:, 0] == 0).all())
    return total[:, 1:] / draws


def padded(n_rows: int, n_items: int) -> Tensor:
    """Return random scores with a column of padding that would rank first."""
    return torch.cat([torch.full((n_rows, 1), 99.0), torch.randn(n_rows, n_items)], dim=1)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", BOTH)
def test_all_samplers_have_the_same_law_in_every_row(
    kind: type[NegativeSampler], ratio: float
) -> None:
    torch.manual_seed(2)
    n_items, first, last, draws = 24, 4, 13, 3_000
    teacher = padded(3, n_items)
    found = frequencies(kind((first, last), ratio, n_items), teacher, draws)
    ranks = teacher[:, 1:].argsort(dim=1, descending=True).argsort(dim=1).numpy() + 1
    inside = (ranks >= first) & (ranks <= last)
    # 10 ranks: 10 ratio from the window, 10 (1 - ratio) from all 24 items.
    expected = np.where(inside, ratio, 0.0) + 10 * (1 - ratio) / n_items
    # Four standard errors of a mean of 3,000 draws, each with a variance below 0.7.
    assert np.abs(found - expected).max() < 4 * math.sqrt(0.7 / draws)


def test_multiplicities_at_the_released_codes_size() -> None:
    torch.manual_seed(3)
    teacher = padded(4, 40_258)
    ranks = teacher[:, 1:].argsort(dim=1, descending=True).argsort(dim=1).numpy() + 1
    inside = (ranks >= 21) & (ranks <= 20_000)
    made = NegativeSampler((21, 20_000), 0.5, 40_258)
    found = frequencies(made, teacher, 1)
    assert found[inside].mean() == pytest.approx(0.748, abs=0.01)
    assert found[~inside].mean() == pytest.approx(0.248, abs=0.01)
    assert made.uniform(teacher).shape[1] / 40_258 == pytest.approx(0.496, abs=1e-3)


def test_uniform_draws_reach_every_item_equally() -> None:
    torch.manual_seed(4)
    items = NegativeSampler((3, 6), 0.5, 10).uniform(torch.zeros(5_000, 11))
    assert items.shape == (5_000, 4)
    counts = torch.bincount(items.flatten(), minlength=11)
    assert (len(counts), int(counts[0])) == (11, 0)
    assert (counts[1:] - 2_000).abs().max() < 4 * math.sqrt(2_000)


def test_rows_share_their_places_or_not() -> None:
    torch.manual_seed(5)
    # One teacher for all rows, so that equal places are equal items.
    teacher = torch.randn(1, 61).expand(6, -1).contiguous()
    for kind in BOTH:
        made = kind((5, 44), 0.9, 60)
        hard = made.hard(teacher)[:, : made.n_hard]
        different = {tuple(sorted(row)) for row in hard.tolist()}
        assert len(different) == (6 if kind is RowwiseSampler else 1)


# Losses

# Padding first; the target is item 1.
SCORES = torch.tensor([[99.0, 2.0, 1.0, 0.0, 3.0, 0.5]])
TARGET = torch.tensor([[1]])


def mass(items: list[int] | None = None) -> Tensor:
    return negative_mass(SCORES, None if items is None else torch.tensor([items]), TARGET)


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
    twice = mass([2, 2, 3])
    assert twice.item() == pytest.approx(1.8619947, abs=1e-6)
    assert positive_loss(twice, SCORES, TARGET).item() == pytest.approx(0.6265233, abs=1e-6)


def test_without_a_list_every_other_item_is_a_negative() -> None:
    found = positive_loss(mass(), SCORES, TARGET)
    assert found.item() == pytest.approx(
        -torch.log_softmax(SCORES[0, 1:], dim=0)[0].item(), abs=1e-6
    )


@pytest.mark.parametrize("items", [[1], [1, 1, 1]])
def test_no_negative_at_all_is_no_loss_and_no_nan(items: list[int]) -> None:
    scores = SCORES.clone().requires_grad_()
    total = negative_mass(scores, torch.tensor([items]), TARGET)
    loss = positive_loss(total, scores, TARGET).sum()
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.abs().sum() == 0.0


def test_everything_struck_out_is_no_negative() -> None:
    struck = torch.tensor([[1, 4]])
    listed = negative_mass(SCORES, torch.tensor([[1, 2, 4, 2]]), struck)
    assert listed.item() == pytest.approx(1.0 + math.log(2), abs=1e-6)
    # Items 2, 3 and 5 are left of all: ln(e + 1 + e^0.5).
    assert negative_mass(SCORES, None, struck).item() == pytest.approx(1.6802697, abs=1e-6)


# Borrowed positives


def test_borrowed_positives_have_a_softmax_of_their_own() -> None:
    borrowed = torch.tensor([[4, 5]])
    total = own_masses(SCORES, torch.tensor([[2, 3]]), TARGET, borrowed)
    # Neither stands among the negatives 2 and 3, so both have the target's: ln(e + 1).
    assert total[0].tolist() == pytest.approx([1.3132616] * 2, abs=1e-6)
    terms = positive_loss(total, SCORES, borrowed)
    assert terms[0].tolist() == pytest.approx([0.1698460, 1.1802697], abs=1e-6)


def test_a_borrowed_positive_is_no_negative_of_its_own() -> None:
    borrowed = torch.tensor([[4, 5, 1, 2]])
    total = own_masses(SCORES, torch.tensor([[2, 4, 4, 3, 1]]), TARGET, borrowed)
    expected = [
        1.3132616,  # 4: what is left is 2, 3. ln(e + 1)
        3.7816718,  # 5: 2, 4, 4, 3. ln(e + 2 e^3 + 1)
        3.7816718,  # 1, the target: the same.
        3.7177359,  # 2: 4, 4, 3. ln(2 e^3 + 1)
    ]
    assert total[0].tolist() == pytest.approx(expected, abs=1e-6)
    terms = positive_loss(total, SCORES, borrowed)
    assert terms[0, 0].item() == pytest.approx(0.1698460, abs=1e-6)


def test_own_masses_are_those_of_the_list_without_the_positive() -> None:
    torch.manual_seed(6)
    scores, drawn = 4 * torch.randn(7, 13), torch.randint(1, 13, (7, 9))
    target = torch.randint(1, 13, (7, 1))
    borrowed = top_items(torch.randn(7, 13), 5)
    found = own_masses(scores, drawn, target, borrowed)
    for row in range(7):
        for place, item in enumerate(borrowed[row].tolist()):
            left = [k for k in drawn[row].tolist() if k not in (item, int(target[row]))]
            expected = torch.logsumexp(scores[row, left], dim=0)
            assert found[row, place].item() == pytest.approx(expected.item(), abs=1e-5)


def test_a_borrowed_positive_can_win() -> None:
    """Among its own negatives a positive could not come below ``ln 2``, however high it scores."""
    scores = torch.tensor([[99.0, 0.0, 1.0, 0.0, 50.0]])
    drawn, borrowed = torch.tensor([[4, 2, 4]]), torch.tensor([[4]])
    total = own_masses(scores, drawn, TARGET, borrowed)
    # Nothing is left of 1 where e^50 is taken off a float32 sum.
    assert total.item() == pytest.approx(1.0, abs=1e-6)
    assert positive_loss(total, scores, borrowed).item() < 1e-6


@pytest.mark.parametrize("items", [[4], [4, 1, 4], [1]])
def test_a_borrowed_positive_without_negatives_is_no_loss_and_no_nan(items: list[int]) -> None:
    scores = SCORES.clone().requires_grad_()
    borrowed = torch.tensor([[4]])
    total = own_masses(scores, torch.tensor([items]), TARGET, borrowed)
    loss = positive_loss(total, scores, borrowed).sum()
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert scores.grad.abs().sum() == 0.0
