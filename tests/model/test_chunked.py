"""Losses by chunks of rows: values and gradients of the plain ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor

from recbole_mm.evaluation.hooks import HasStartEpoch
from recbole_mm.model import chunked
from recbole_mm.model.losses import softmax_ce, without_own_items
from recbole_mm.model.sampled import ItemSampler, sampling
from recbole_mm.testing.case import SMALL, Case, backward, total, write_toy
from recbole_mm.testing.training import LargestTensor

SIZES = [(1, 2, 1), (1, 9, 3), (7, 2, 3), (13, 10, 5), (64, 33, 4), (130, 7, 3)]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows at a time, so that the last chunk is a smaller one."""
    monkeypatch.setattr(chunked, "rows_per_chunk", lambda n_items: 5)
    monkeypatch.setattr(chunked, "PLAIN", 0)


def drawn(
    n_rows: int, n_items: int, width: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return queries, items, targets and items to be struck out, the target among them at times."""
    generator = torch.Generator().manual_seed(n_rows)
    query = torch.randn(n_rows, width, generator=generator, dtype=torch.float64)
    items = torch.randn(n_items, width, generator=generator, dtype=torch.float64)
    target = torch.randint(1, n_items, (n_rows,), generator=generator)
    struck = torch.randint(0, n_items, (n_rows, 3), generator=generator)
    tables = (one.to(dtype).requires_grad_() for one in (query, items))
    return (*tables, target, struck)


def plain(query: Tensor, items: Tensor, target: Tensor, struck: Tensor | None) -> Tensor:
    scores = query @ items.T
    if struck is not None:
        scores = without_own_items(scores, struck, target)
    return softmax_ce(scores[:, 1:], target - 1).mean()


def gradients(loss: Tensor, query: Tensor, items: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(3.0 * loss, [query, items])


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_softmax_is_the_plain_one(size: tuple[int, int, int], masked: bool) -> None:
    query, items, target, struck = drawn(*size)
    own = struck if masked else None
    expected, found = (
        softmax(query, items, target, own) for softmax in (plain, chunked.mean_softmax_ce)
    )
    torch.testing.assert_close(found, expected)
    for left, right in zip(
        gradients(found, query, items), gradients(expected, query, items), strict=True
    ):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 1e-3)]
)
def test_softmax_in_fewer_bits(dtype: torch.dtype, tolerance: float) -> None:
    query, items, target, _ = drawn(33, 50, 8, dtype)
    exact = [one.detach().double().requires_grad_() for one in (query, items)]
    expected = plain(*exact, target, None)
    found = chunked.mean_softmax_ce(query, items, target)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for left, right in zip(
        gradients(found, query, items), gradients(expected, *exact), strict=True
    ):
        assert left.dtype == dtype
        torch.testing.assert_close(left.double(), right, atol=tolerance * 0.1, rtol=tolerance)


@pytest.mark.usefixtures("small_chunks")
def test_softmax_passes_gradcheck() -> None:
    query, items, target, struck = drawn(13, 10, 4)
    for own in (None, struck):
        assert torch.autograd.gradcheck(
            lambda q, e, own=own: chunked.mean_softmax_ce(q, e, target, own), (query, items)
        )


def test_softmax_by_hand_and_far_from_zero() -> None:
    # Scores 1000 and 1000 + ln 3 of two items: p = 1/4 and 3/4.
    items = torch.tensor([[9e9], [1000.0], [1000.0 + 1.0986123]], dtype=torch.float64)
    loss = chunked.mean_softmax_ce(torch.ones(2, 1).double(), items, torch.tensor([1, 2]))
    assert float(loss) == pytest.approx((1.3862944 + 0.2876821) / 2, abs=1e-6)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("masked", [False, True])
def test_a_bonus_of_the_items_of_a_row(masked: bool) -> None:
    query, items, target, _ = drawn(13, 10, 4)
    held = torch.randint(0, 10, (13, 4), generator=torch.Generator().manual_seed(5))
    held[0], held[1, :2] = 3, target[1]  # the same item again, the target itself
    more = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    own = held if masked else None

    def by_definition(query: Tensor, items: Tensor, more: Tensor) -> Tensor:
        among = torch.zeros(13, 10, dtype=torch.float64).scatter_(1, held, 1.0)
        scores = query @ items.T + more * among
        if masked:
            scores = without_own_items(scores, held, target)
        return softmax_ce(scores[:, 1:], target - 1).mean()

    def found(query: Tensor, items: Tensor, more: Tensor) -> Tensor:
        return chunked.mean_softmax_ce(query, items, target, own, bonus=(held, more))

    given = query, items, more
    torch.testing.assert_close(found(*given), by_definition(*given))
    for left, right in zip(
        torch.autograd.grad(found(*given), given),
        torch.autograd.grad(by_definition(*given), given),
        strict=True,
    ):
        torch.testing.assert_close(left, right)
    assert torch.autograd.gradcheck(found, given)
    # And of a sample that is all items.
    with sampling(ItemSampler(np.ones(10, dtype=np.int64), 9, 0.0)):
        torch.testing.assert_close(found(*given), by_definition(*given))


def test_without_gradients_nothing_is_kept_and_parts_may_be_frozen() -> None:
    query, items, target, _ = drawn(9, 12, 4)
    with torch.no_grad():
        bare = chunked.mean_softmax_ce(query, items, target)
    assert not bare.requires_grad
    frozen = chunked.mean_softmax_ce(query, items.detach(), target)
    torch.testing.assert_close(bare, frozen.detach())
    (found,) = torch.autograd.grad(frozen, [query])
    torch.testing.assert_close(
        found, torch.autograd.grad(plain(query, items, target, None), query)[0]
    )


def test_no_table_of_rows_by_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "CHUNK", 64 * 3000)
    query, items, target, _ = drawn(640, 3000, 4, torch.float32)
    with LargestTensor() as largest:
        chunked.mean_softmax_ce(query, items, target).backward()
    assert largest.numel == 64 * 3000
    with LargestTensor() as whole:
        plain(query, items, target, None).backward()
    assert whole.numel >= 640 * 3000


# ---- Losses of any form ----


def two_losses(query: Tensor, target: Tensor, items: Tensor, scale: Tensor) -> Tensor:
    scores = scale * (query @ items.T)
    first = softmax_ce(scores[:, 1:], target - 1)
    return torch.stack([first, scores.square().mean(dim=1)], dim=1)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", SIZES)
def test_any_losses_are_the_mean_of_their_rows(size: tuple[int, int, int]) -> None:
    query, items, target, _ = drawn(*size)
    scale = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    unread = torch.nn.Parameter(torch.ones(2))

    def captured(query: Tensor, target: Tensor, items: Tensor) -> Tensor:
        return two_losses(query, target, items, scale)

    expected = two_losses(query, target, items, scale).mean(dim=0)
    found = chunked.mean_in_chunks(captured, (query, target), (items,), (scale, unread))
    torch.testing.assert_close(found, expected)
    weights = torch.tensor([2.0, -3.0], dtype=torch.float64)
    for left, right in zip(
        torch.autograd.grad(found @ weights, [query, items, scale]),
        torch.autograd.grad(expected @ weights, [query, items, scale]),
        strict=True,
    ):
        torch.testing.assert_close(left, right)
    with torch.no_grad():
        torch.testing.assert_close(
            chunked.mean_in_chunks(captured, (query, target), (items,)), expected.detach()
        )


@pytest.mark.usefixtures("small_chunks")
def test_any_losses_pass_gradcheck() -> None:
    query, items, target, _ = drawn(13, 10, 4)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def losses(query: Tensor, items: Tensor, scale: Tensor) -> Tensor:
        return chunked.mean_in_chunks(two_losses, (query, target), (items, scale))

    assert torch.autograd.gradcheck(losses, (query, items, scale))


# ---- In the models ----


ROWWISE = {
    "SRIM": {"preset": "paper", "main_loss": "bce_softmax", "train_own_items": "mask"},
    "SRIM apart": {"main_loss": "ce_apart"},
    "NFRec": {"train_own_items": "mask"},
    "AlterRec full": {"preset": "full"},
    # All of the window and its two parts, so that nothing is drawn per chunk.
    "AlterRec aug": {"preset": "aug", "hard_negative_ratio": 1.0, "hard_negative_start_rank": 2},
    "MDSRec": {"modalities": ["text"]},
    "MMSBR price": {"category_field": "class", "use_price": True, "repeat_bias": True},
    "MMSBR cosine": {"category_field": "class", "use_price": True, "score": "cosine"},
    "MMSBR": {"use_price": False, "train_own_items": "mask"},
    "MMSBR official": {"preset": "official", "n_rounds": 1},
    "CoHHN": {"category_field": "class"},
    "MISSRec": {"train_own_items": "mask"},
    "UniSRec": {"preset": "text", "train_own_items": "mask"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("toy")
    write_toy(made, SMALL, ["text", "image"])
    return made


@pytest.mark.parametrize("name", ROWWISE)
def test_a_model_has_the_same_loss_and_gradients_in_chunks(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = Case(name.split()[0], ROWWISE[name], folder).prepare()
    model, batch = prepared.model.eval(), next(iter(prepared.train))
    if isinstance(model, HasStartEpoch):
        model.start_epoch(500)
    expected = graded(model, batch)
    monkeypatch.setattr(chunked, "rows_per_chunk", lambda n_items: 5)
    monkeypatch.setattr(chunked, "PLAIN", 0)
    found = graded(model, batch)
    assert expected.keys() == found.keys()
    largest = max(float(grad.abs().max()) for grad in expected.values())
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5 * largest, msg=key)


def graded(model: AbstractRecommender, batch: Interaction) -> dict[str, Tensor]:
    """Return the loss, and its gradient by parameter."""
    torch.manual_seed(1)
    model.zero_grad(set_to_none=True)
    loss = total(model.calculate_loss(batch))
    backward(loss)
    weights = model.named_parameters()
    grads = {name: weight.grad.clone() for name, weight in weights if weight.grad is not None}
    return {"loss": loss.detach(), **grads}


def test_few_scores_are_left_to_autograd() -> None:
    query, items, target, _ = drawn(13, 10, 4)
    scale = torch.ones((), dtype=torch.float64)
    found = chunked.mean_in_chunks(two_losses, (query, target), (items, scale))
    assert found.grad_fn.name() == "MeanBackward1"


def test_a_chunk_grows_with_the_memory_it_may_take() -> None:
    assert chunked.rows_per_chunk(1000) == chunked.CHUNK // 1000
    assert chunked.rows_per_chunk(10**7) == chunked.LEAST_ROWS
