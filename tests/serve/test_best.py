"""The best items of a row, against a stable sort of all."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from recbole_mm.serve.best import best_items


def by_sorting(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    order = torch.sort(scores, dim=1, descending=True, stable=True)
    return order.values[:, :count], order.indices[:, :count]


@given(
    seed=st.integers(0, 2**31), width=st.integers(1, 3000), count=st.integers(1, 30),
    levels=st.sampled_from([2, 7, 10**6]),
)  # fmt: skip
def test_equal_to_sorting_all_of_a_row(seed: int, width: int, count: int, levels: int) -> None:
    """Few levels make ties everywhere, at the last place too; the lower column comes first."""
    draw = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (3, width), generator=draw).float()
    scores[1, width // 2 :] = -torch.inf
    values, columns = best_items(scores, count)
    expected = by_sorting(scores, count)
    assert torch.equal(values, expected[0])
    assert torch.equal(columns, expected[1])


def test_by_hand() -> None:
    values, columns = best_items(torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0]]), 2)
    assert values.tolist() == [[3.0, 3.0]]
    assert columns.tolist() == [[1, 2]]
