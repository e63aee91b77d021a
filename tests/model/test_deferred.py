"""Losses of RecBole's models in chunks: equal to the plain ones, gradients included."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor, nn

from recbole_mm import compat, stock
from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError, TrainingError
from recbole_mm.model import chunked
from recbole_mm.model.deferred import REACHED, Product, deferring, loss_over_items
from recbole_mm.model.sampled import ItemSampler
from recbole_mm.testing.case import SMALL, Case, backward, total, write_toy
from recbole_mm.testing.training import LargestTensor

# The toy catalogue has fewer items than the two of CPR ask for in any case.
MODELS = [
    name
    for name in stock.class_names("sequential")
    if name not in stock.UNSUPPORTED and not name.endswith("CPR")
]
KEYS = {
    "FEARec": {"n_layers": 2},
    **{name: {"selected_features": ["class"]} for name in ("SASRecF", "GRU4RecF", "FDSA")},
}
SIZES = {"hidden_size": 16, "inner_size": 16, "embedding_size": 16, "n_heads": 2, "n_layers": 1}
LossOf = Callable[[Interaction], Tensor | tuple[Tensor, ...]]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every product of two matrices is put off, and five rows are a chunk."""
    monkeypatch.setattr(chunked, "PLAIN", 0)
    monkeypatch.setattr(chunked, "rows_per_chunk", lambda n_items: 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("toy")
    write_toy(made, SMALL, ["text"])
    return made


def made(folder: Path, name: str) -> tuple[AbstractRecommender, Interaction, LossOf]:
    known = MMConfig(name, SMALL.name).final_config_dict
    sizes = {key: value for key, value in SIZES.items() if key in known}
    prepared = Case(name, {**sizes, **KEYS.get(name, OURS.get(name, {}))}, folder).prepare()
    model = prepared.model.train()
    loss = compat.loss_function(model) or model.calculate_loss
    return model, next(iter(prepared.train)), loss


def graded(
    model: AbstractRecommender, loss: LossOf, batch: Interaction
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a loss, and its gradient by parameter; dropout and draws are always the same."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    model.zero_grad(set_to_none=True)
    found = total(loss(batch))
    backward(found)
    weights = model.named_parameters()
    return found.detach(), {n: w.grad.to_dense().clone() for n, w in weights if w.grad is not None}


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_of_a_model_are_the_same(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch, loss = made(folder, name)
    expected, gradients = graded(model, loss, batch)
    calls, softmax = [], chunked.mean_softmax_ce

    def counted(*args: object, **options: object) -> Tensor:
        calls.append(name)
        return softmax(*args, **options)

    monkeypatch.setattr(chunked, "mean_softmax_ce", counted)
    found, others = graded(model, loss_over_items(model, loss, SMALL.n_items + 1, None), batch)
    # A model that is reached, or is no more, belongs into the list, or out of it.
    assert (name in REACHED) == bool(calls)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert others.keys() == gradients.keys()
    largest = max(float(one.abs().max()) for one in gradients.values())
    for key, gradient in gradients.items():
        torch.testing.assert_close(
            others[key], gradient, rtol=1e-4, atol=1e-5 * largest, msg=f"{name} {key}"
        )


def test_the_list_names_models_that_are_there() -> None:
    assert set(MODELS) >= REACHED


def test_a_step_holds_no_table_of_rows_by_items(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch, loss = made(folder, "SASRec")
    table = len(batch) * model.n_items
    monkeypatch.setattr(chunked, "PLAIN", table - 1)
    monkeypatch.setattr(chunked, "rows_per_chunk", lambda n_items: 5)
    # So wide a layer that it would hide the table is none of a model of 16 numbers on 8 positions.
    chunks = loss_over_items(model, loss, model.n_items, None)
    for one, holds in ((loss, True), (chunks, False)):
        with LargestScores(model.n_items) as seen:
            backward(total(one(batch)))
        assert (seen.rows == len(batch)) == holds
    monkeypatch.setattr(chunked, "PLAIN", table)
    with LargestScores(model.n_items) as seen:
        chunks(batch)
    assert seen.rows == len(batch)


class LargestScores(LargestTensor):
    """Watches the rows of tensors that are as wide as there are items."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = super().__torch_dispatch__(func, types, args, kwargs)
        if isinstance(made, Tensor) and made.dim() == 2 and made.shape[1] == self.width:
            self.rows = max(self.rows, len(made))
        return made


# ---- What is not that loss ----


def tables() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    query = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    items = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    return query, items, torch.randint(1, 12, (7,))


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "loss": lambda q, e, t: nn.CrossEntropyLoss()(torch.matmul(q, e.transpose(0, 1)), t),
    "temperature": lambda q, e, t: F.cross_entropy(q @ e.T / 0.2, t),
    "bias": lambda q, e, t: F.cross_entropy(q @ e.T + e[:, 0], t),
    "in place": lambda q, e, t: F.cross_entropy((q @ e.T).add_(1.0).mul_(e[:, 0]), t),
    "rows": lambda q, e, t: F.cross_entropy(q @ e.T, t, reduction="none").sum(),
    "smoothed": lambda q, e, t: F.cross_entropy(q @ e.T, t, label_smoothing=0.1),
    "ignored": lambda q, e, t: F.cross_entropy(q @ e.T, t.masked_fill(t == t[0], -100)),
    "weights": lambda q, e, t: F.cross_entropy(q @ e.T, t, e[:, 0].detach().exp()),
    "shares": lambda q, e, t: F.cross_entropy(q @ e.T, (q @ e.T).detach().softmax(dim=1)),
    "joined": lambda q, e, t: torch.cat([q @ e.T, q], dim=1).logsumexp(dim=1).mean(),
    "seen first": lambda q, e, t: _seen_first(q, e, t),
    "twice": lambda q, e, t: F.cross_entropy(s := q @ e.T, t) + s.square().mean() + s.shape[1],
}


def _seen_first(query: Tensor, items: Tensor, target: Tensor) -> Tensor:
    """Look at scores without gradients before they are used with them."""
    scores = query @ items.T
    with torch.no_grad():
        top = scores.max()
    return (scores - top).exp().sum() + F.nll_loss(scores.log_softmax(dim=1), target)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("form", FORMS)
def test_any_use_of_a_product_is_what_torch_makes_of_it(form: str) -> None:
    query, items, target = tables()
    expected = FORMS[form](query, items, target)
    with deferring(len(items)):
        found = FORMS[form](query, items, target)
    assert not isinstance(found, Product)
    torch.testing.assert_close(found, expected)
    for left, right in zip(
        torch.autograd.grad(found, [query, items]),
        torch.autograd.grad(expected, [query, items]),
        strict=True,
    ):
        torch.testing.assert_close(left, right)


def test_what_goes_around_torch_functions_is_refused() -> None:
    query, items, _ = tables()
    product = Product(query, items.T)
    with torch._C.DisableTorchFunctionSubclass(), pytest.raises(TrainingError) as caught:
        product.exp()
    assert "aten.exp" in str(caught.value) and "train_batch_size" in str(caught.value)


@pytest.mark.usefixtures("small_chunks")
def test_mixed_precision_has_products_of_its_bits() -> None:
    query, items, target = (one.float() if one.is_floating_point() else one for one in tables())
    for form, exact in (("loss", False), ("bias", True)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected = FORMS[form](query, items, target)
            with deferring(len(items)):
                found = FORMS[form](query, items, target)
        full = FORMS[form](query, items, target)
        assert found.dtype == torch.float32 and abs(float((found - full).detach())) > 1e-5
        for left, right in zip(
            (found, *torch.autograd.grad(found, [query, items])),
            (expected, *torch.autograd.grad(expected, [query, items])),
            strict=True,
        ):
            assert left.dtype == right.dtype
            near = {} if exact else {"rtol": 0.02, "atol": 0.002}
            torch.testing.assert_close(left, right, **near)


# ---- A sample of the items ----

OURS = {"SRIM": {"w_co": 0}, "UniSRec": {}, "MDSRec": {"modalities": ["text"]}}


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec", "NARM", "CORE", *OURS])
def test_all_items_drawn_uniformly_are_the_loss_of_a_model(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch, loss = made(folder, name)
    model.eval()  # Noise is drawn before the sample, or after it.
    softmax = chunked.mean_softmax_ce

    def without_padding(*given: Tensor, padding_counts: bool = False) -> Tensor:
        return softmax(*given)

    sampler = ItemSampler(np.ones(model.n_items, dtype=np.int64), model.n_items - 1, 0.0)
    found, others = graded(model, loss_over_items(model, loss, model.n_items, sampler), batch)
    assert sampler.used
    # RecBole's softmax has padding as a class, and a sample never does.
    monkeypatch.setattr(chunked, "mean_softmax_ce", without_padding)
    monkeypatch.setattr(chunked, "PLAIN", 0)
    expected, gradients = graded(model, loss_over_items(model, loss, model.n_items, None), batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    largest = max(float(one.abs().max()) for one in gradients.values())
    for key, gradient in gradients.items():
        torch.testing.assert_close(others[key], gradient, rtol=1e-4, atol=1e-5 * largest, msg=key)


@pytest.mark.parametrize("name", ["BERT4Rec", "AlterRec", "FPMC"])
def test_a_loss_that_is_no_softmax_over_items_is_refused(folder: Path, name: str) -> None:
    model, batch, loss = made(folder, name)
    sampler = ItemSampler(np.ones(model.n_items, dtype=np.int64), 5, 0.0)
    with pytest.raises(ConfigError, match=f"sampled_softmax = 5 does not reach {name}"):
        loss_over_items(model, loss, model.n_items, sampler)(batch)
