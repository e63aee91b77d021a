"""Contrast of real and pseudo vectors, by hand."""

from __future__ import annotations

import pytest
import torch

from recbole_mm.model.mmsbr import contrast as module
from recbole_mm.model.mmsbr.contrast import PseudoContrast

EYE = torch.eye(2)


def contrast(real, pseudo, tau=1.0):
    return PseudoContrast({"text": torch.arange(len(real))}, tau, 0)(real, pseudo)


def test_rows_by_hand():
    pseudo = torch.diag(torch.tensor([1.0, 2.0]))
    rows = PseudoContrast({}, 1.0, 0).rows(EYE, pseudo, torch.arange(2))
    torch.testing.assert_close(rows, torch.tensor([0.313262, 0.126928]))


@pytest.mark.parametrize(("tau", "expected"), [(0.5, 0.126928), (0.1, 4.54e-5)])
def test_contrast_of_unit_vectors(tau, expected):
    assert contrast(7 * EYE, 0.1 * EYE, tau).item() == pytest.approx(expected, abs=1e-6)


def test_low_temperatures_stay_finite():
    left = (20 * EYE).requires_grad_()
    loss = contrast(left, 20 * EYE, 0.001)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert bool(left.grad.isfinite().all())


def test_rows_at_a_time_give_the_whole(monkeypatch):
    torch.manual_seed(0)
    real, pseudo = torch.randn(7, 2, requires_grad=True), torch.randn(7, 2)
    whole = contrast(real, pseudo)
    (slope,) = torch.autograd.grad(whole, real)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    parts = contrast(real, pseudo)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, real)[0], slope)


def test_sample_takes_the_batch_first():
    pairs = torch.arange(0, 100, 2)
    model = PseudoContrast({"text": pairs}, 1.0, 10)
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
    model = PseudoContrast({"text": pairs}, 1.0, size)
    assert torch.equal(model.sample("text", torch.tensor([3])), pairs)
