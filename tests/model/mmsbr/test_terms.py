"""Interest of a session and contrast of real and pseudo vectors, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_mm.model.mmsbr import terms as mmsbr_terms
from recbole_mm.model.mmsbr.terms import Interest, PseudoContrast, contrast_rows

GATE = {
    "embedding_size": 2,
    "interest": "gate",
    "interest_position": "none",
    "session_residual": False,
    "session_map": "none",
    "MAX_ITEM_LIST_LENGTH": 4,
}
CONTRAST = {
    "embedding_size": 2,
    "contrast_on": "tables",
    "contrast_sim": "dot",
    "contrast_tau": 1.0,
    "contrast_topk": 0,
    "contrast_reduction": "mean",
    "contrast_sample": 0,
}
SESSION = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
EYE = torch.eye(2)
TWO, BOTH = torch.tensor([2]), torch.ones(1, 2, dtype=torch.bool)


def interest(**changes):
    model = Interest(GATE | changes)
    if model.form == "gate":
        with torch.no_grad():
            model.item.weight.copy_(EYE), model.mean.weight.copy_(EYE)
            model.item.bias.zero_(), model.gate.weight.fill_(1.0), model.gate.bias.zero_()
    return model


def test_gate_by_hand():
    model, seen = interest(), {}
    model.gate.register_forward_hook(lambda m, i, out: seen.update(gate=out))
    result = model(SESSION, TWO, BOTH)
    torch.testing.assert_close(seen["gate"].flatten(), torch.tensor([1.548633, 1.575033]))
    torch.testing.assert_close(result, torch.tensor([[1.548633, 3.150067]]))


def test_padding_and_order_do_not_count():
    result = interest()(SESSION, TWO, BOTH)
    padded = torch.cat([SESSION, torch.full((1, 1, 2), 9.0)], dim=1)
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(interest()(padded, TWO, mask), result)
    torch.testing.assert_close(interest()(SESSION.flip(1), TWO, BOTH), result)


def test_positions_count_from_the_end():
    torch.manual_seed(0)
    model = interest(interest_position="reversed")
    one = model(SESSION, TWO, BOTH)
    assert not torch.allclose(model(SESSION.flip(1), TWO, BOTH), one)
    with torch.no_grad():  # positions that the session does not have
        model.position.weight[2:] += 5.0
    torch.testing.assert_close(model(SESSION, TWO, BOTH), one)
    padded = torch.cat([SESSION, torch.full((1, 1, 2), 9.0)], dim=1)
    torch.testing.assert_close(model(padded, TWO, torch.tensor([[True, True, False]])), one)
    with torch.no_grad():  # the last item has position 0
        model.position.weight[0] += 5.0
    assert not torch.allclose(model(SESSION, TWO, BOTH), one)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"interest": "mean"}, [0.5, 1.0]),
        ({"interest": "last"}, [0.0, 2.0]),
        ({"interest": "mean", "session_residual": True}, [0.5, 3.0]),
        ({"interest": "last", "session_residual": True}, [0.0, 2.0]),
        ({"session_residual": True}, [1.548633, 5.150067]),
    ],
)
def test_other_session_vectors(changes, expected):
    torch.testing.assert_close(interest(**changes)(SESSION, TWO, BOTH), torch.tensor([expected]))


def test_the_map_comes_last():
    model = interest(interest="last", session_map="linear")
    with torch.no_grad():
        model.map.weight.copy_(torch.tensor([[0.0, 1.0], [3.0, 0.0]]))
        model.map.bias.copy_(torch.tensor([1.0, 10.0]))
    torch.testing.assert_close(model(SESSION, TWO, BOTH), torch.tensor([[3.0, 10.0]]))


def contrast(real, pseudo, **changes):
    pairs = {"text": torch.arange(1, len(real) + 1)}
    return PseudoContrast(CONTRAST | changes, {"text": 2}, pairs)("text", real, pseudo)


def test_contrast_by_hand():
    pseudo = torch.diag(torch.tensor([1.0, 2.0]))
    rows = contrast_rows(EYE, pseudo, torch.arange(2), 2)
    torch.testing.assert_close(rows, torch.tensor([0.313262, 0.126928]))
    torch.testing.assert_close(
        rows / math.log(10), torch.tensor([0.136048, 0.055124]), atol=1e-6, rtol=0
    )
    summed = contrast(EYE, pseudo, contrast_reduction="sum_log10", contrast_topk=2)
    assert summed.item() == pytest.approx(0.191172, abs=1e-6)
    assert contrast(EYE, pseudo).item() == pytest.approx(0.220095, abs=1e-6)
    assert contrast(EYE, pseudo, contrast_topk=1).item() == pytest.approx(0.0, abs=1e-7)


def test_the_own_pair_may_miss_the_denominator():
    pseudo = EYE.flip(0)
    keys = {"contrast_reduction": "sum_log10"}
    assert contrast(EYE, pseudo, contrast_topk=1, **keys).item() == pytest.approx(0.868589)
    assert contrast(EYE, pseudo, contrast_topk=2, **keys).item() == pytest.approx(1.140685)
    # More than there are is all there are.
    assert contrast(EYE, pseudo, contrast_topk=100, **keys).item() == pytest.approx(1.140685)


@pytest.mark.parametrize(("tau", "expected"), [(0.5, 0.126928), (0.1, 4.54e-5)])
def test_contrast_of_unit_vectors(tau, expected):
    found = contrast(7 * EYE, 0.1 * EYE, contrast_sim="cosine", contrast_tau=tau)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_large_products_stay_finite():
    left = (20 * EYE).requires_grad_()
    loss = contrast(left, 20 * EYE)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert bool(left.grad.isfinite().all())


def test_rows_at_a_time_give_the_whole(monkeypatch):
    torch.manual_seed(0)
    real, pseudo = torch.randn(7, 2, requires_grad=True), torch.randn(7, 2)
    whole = contrast(real, pseudo, contrast_topk=3)
    (slope,) = torch.autograd.grad(whole, real)
    monkeypatch.setattr(mmsbr_terms, "ROWS_AT_ONCE", 3)
    parts = contrast(real, pseudo, contrast_topk=3)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, real)[0], slope)


def test_projections_are_learned_only_where_wanted():
    pairs = {"text": torch.arange(3)}
    projected = PseudoContrast(CONTRAST | {"contrast_on": "projected"}, {"text": 5}, pairs)
    assert projected.maps["text"].weight.shape == (2, 5)
    assert not list(PseudoContrast(CONTRAST, {"text": 5}, pairs).parameters())


def test_sample_takes_the_batch_first():
    pairs = torch.arange(0, 100, 2)
    model = PseudoContrast(CONTRAST | {"contrast_sample": 10}, {"text": 2}, {"text": pairs})
    batch = torch.tensor([4, 8, 8, 7, 0, 60])  # 7 has no pair
    torch.manual_seed(0)
    found = model.sample("text", batch)
    assert {0, 4, 8, 60} <= set(found.tolist()) <= set(pairs.tolist())
    assert len(found.unique()) == len(found) <= 10
    many = model.sample("text", torch.arange(100))
    assert len(many) == 10 and set(many.tolist()) <= set(pairs.tolist())
    torch.manual_seed(0)
    assert torch.equal(model.sample("text", batch), found)


@pytest.mark.parametrize("size", [0, 50, 60])
def test_few_pairs_are_all_taken(size):
    pairs = torch.arange(1, 51)
    model = PseudoContrast(CONTRAST | {"contrast_sample": size}, {"text": 2}, {"text": pairs})
    assert torch.equal(model.sample("text", torch.tensor([3])), pairs)
