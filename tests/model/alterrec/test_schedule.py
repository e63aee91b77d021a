"""Whose turn it is in AlterRec, epoch by epoch."""

from __future__ import annotations

import pytest

from recbole_mm.model.alterrec.schedule import Plan, Schedule


def turns(n_epochs: int, **settings: object) -> str:
    """Return the epochs as in 'Ir Ir Tr Th': branch (I, T) and negatives (r, h, f)."""
    schedule = Schedule(**settings)  # type: ignore[arg-type]
    letters = {"id": "I", "text": "T", "uniform": "r", "hard": "h", "full": "f"}
    plans = [schedule.plan(epoch) for epoch in range(n_epochs)]
    return " ".join(letters[plan.branch] + letters[plan.negatives] for plan in plans)


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [
        (0, "Ir Ir Th Th Ih Ih Th Th Ih Ih Th Th Ih Ih"),
        (1, "Ir Ir Th Th Ih Ih Th Th Ih Ih Th Th Ih Ih"),
        (2, "Ir Ir Th Th Ih Ih Th Th Ih Ih Th Th Ih Ih"),
        (3, "Ir Ir Tr Tr Ih Ih Th Th Ih Ih Th Th Ih Ih"),
        (4, "Ir Ir Tr Tr Ih Ih Th Th Ih Ih Th Th Ih Ih"),
        (5, "Ir Ir Tr Tr Ir Ir Th Th Ih Ih Th Th Ih Ih"),
        (6, "Ir Ir Tr Tr Ir Ir Th Th Ih Ih Th Th Ih Ih"),
        (8, "Ir Ir Tr Tr Ir Ir Tr Tr Ih Ih Th Th Ih Ih"),
    ],
)
def test_parity_in_blocks_of_two(warmup: int, expected: str) -> None:
    assert turns(14, policy="parity", warmup=warmup, block=2) == expected


@pytest.mark.parametrize(
    ("per_branch", "block", "expected"),
    [
        (2, 2, "Ir Ir Tr Tr Ih Ih Th Th Ih Ih Th Th Ih"),
        (1, 2, "Ir Tr Ih Ih Th Th Ih Ih Th Th Ih"),
        (3, 2, "Ir Ir Ir Tr Tr Tr Ih Ih Th Th Ih Ih Th"),
        (2, 1, "Ir Ir Tr Tr Ih Th Ih Th Ih"),
        (2, 3, "Ir Ir Tr Tr Ih Ih Ih Th Th Th Ih Ih Ih Th Th"),
    ],
)
def test_algorithm_1(per_branch: int, block: int, expected: str) -> None:
    n_epochs = len(expected.split())
    assert turns(n_epochs, policy="algorithm1", warmup=2 * per_branch, block=block) == expected


def test_both_policies_agree_on_the_papers_numbers() -> None:
    both = [turns(30, policy=policy, warmup=4, block=2) for policy in ("parity", "algorithm1")]
    assert both[0] == both[1]
    assert (both[0].count("I"), both[0].count("T")) == (16, 14)


def test_other_negatives_leave_the_turns_as_they_are() -> None:
    assert turns(6, negatives="uniform") == "Ir Ir Tr Tr Ir Ir"
    assert turns(6, negatives="full") == "If If Tf Tf If If"


@pytest.mark.parametrize("branch", ["id", "text"])
@pytest.mark.parametrize("negatives", ["uniform", "full"])
def test_a_single_branch_gets_all_epochs(branch: str, negatives: str) -> None:
    schedule = Schedule(branches=(branch,), negatives=negatives)
    assert {schedule.plan(epoch) for epoch in range(9)} == {Plan(branch, negatives)}
