"""Losses of SRIM against numbers worked out by hand (values, signs and gradients)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_mm.model.srim import losses


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


# Main loss


def test_bce_softmax_by_hand_with_and_without_a_masked_padding_column():
    plain, padded = column(2, 0, 0).unsqueeze(0), column(-math.inf, 2, 0, 0).unsqueeze(0)
    assert losses.bce_softmax(plain, torch.tensor([0])).item() == pytest.approx(0.464778, abs=1e-6)
    assert losses.bce_softmax(padded, torch.tensor([1])).item() == pytest.approx(0.464778, abs=1e-6)


def test_bce_softmax_equals_its_definition_and_survives_certainty():
    rng = np.random.default_rng(0)
    scores, target = rng.normal(size=(4, 6)), np.array([0, 5, 2, 2])
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    hit = np.eye(6)[target]
    expected = -(hit * np.log(p) + (1 - hit) * np.log(1 - p)).sum(axis=1)
    ours = losses.bce_softmax(torch.from_numpy(scores), torch.from_numpy(target))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-10)

    sure = torch.tensor([[0.0, 200.0]], requires_grad=True)
    loss = losses.bce_softmax(sure, torch.tensor([0])).sum()
    loss.backward()
    assert bool(loss.isfinite()) and bool(sure.grad.isfinite().all())


# Alignment


@pytest.mark.parametrize(
    ("b", "c", "a", "total"),
    [
        (0, 0, 0, 1.504077),
        (1, 1, 0, 1.789628),
        (0, 0, 1, 2.147002),
        (0.5, -0.5, 0.25, 1.669461),
        (-1, -1, -1, 0.906773),
        (-1, -1, 1, 2.369239),
    ],
)
def test_align_paper_by_hand(b, c, a, total):
    loss = losses.align_paper(column(b), column(c), column(a))
    assert loss.item() == pytest.approx(total, abs=1e-6)


def test_align_paper_pushes_all_similarities_down_at_zero():
    b, c, a = (column(0).requires_grad_() for _ in range(3))
    losses.align_paper(b, c, a).sum().backward()
    assert [x.grad.item() for x in (b, c, a)] == pytest.approx([1 / 12, 1 / 12, 5 / 12])


def slow_infonce(left, right, target, temperature):
    left = left / np.linalg.norm(left, axis=1, keepdims=True)
    right = right / np.linalg.norm(right, axis=1, keepdims=True)
    result = []
    for row in range(len(left)):
        rivals = [k for k in range(len(left)) if k == row or target[k] != target[row]]
        forth = [math.exp(left[row] @ right[k] / temperature) for k in rivals]
        back = [math.exp(right[row] @ left[k] / temperature) for k in rivals]
        own = math.exp(left[row] @ right[row] / temperature)
        result.append(-0.5 * (math.log(own / sum(forth)) + math.log(own / sum(back))))
    return result


def test_align_infonce_equals_its_definition():
    rng = np.random.default_rng(1)
    left, right = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    target = np.array([4, 7, 4, 9, 4])
    ours = losses.align_infonce(
        torch.from_numpy(left), torch.from_numpy(right), torch.from_numpy(target), 0.3
    )
    np.testing.assert_allclose(ours.numpy(), slow_infonce(left, right, target, 0.3), rtol=1e-10)


def test_align_infonce_is_zero_when_all_rows_share_a_target():
    left, right = torch.randn(3, 4), torch.randn(3, 4)
    loss = losses.align_infonce(left, right, torch.tensor([2, 2, 2]))
    assert loss.tolist() == [0.0, 0.0, 0.0]


# Joint inference


@pytest.mark.parametrize(
    ("u", "v", "flagged", "otherwise"),
    [
        (0.8, 0.2, 0.956232, 1.256232),
        (0.2, 0.8, 1.256232, 0.956232),
        (0, 0, 1.039721, 1.039721),
        (1, -1, 1.190392, 2.190392),
    ],
)
def test_joint_by_hand(u, v, flagged, otherwise):
    flag = torch.tensor([True, False])
    loss = losses.joint(column(u, u), column(v, v), flag)
    assert loss.tolist() == pytest.approx([flagged, otherwise], abs=1e-6)


def test_joint_gradient_and_minimum():
    u, v = column(0.3).requires_grad_(), column(0.3).requires_grad_()
    losses.joint(u, v, torch.tensor([True])).sum().backward()
    assert (u.grad.item(), v.grad.item()) == pytest.approx((-0.25, 0.25))
    gap = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    zero = torch.zeros_like(gap)
    for flag, best in ((True, math.log(2)), (False, -math.log(2))):
        loss = losses.joint(gap, zero, torch.full_like(gap, flag, dtype=torch.bool))
        assert gap[loss.argmin()].item() == pytest.approx(best, abs=1e-3)
        assert loss.min().item() == pytest.approx(0.954771, abs=1e-6)


# Co-occurrence

NEAR = math.sqrt(0.5)
ALL = torch.ones(1, 2, dtype=torch.bool)


def test_co_losses_by_hand():
    near, far = column(NEAR), column(0, NEAR).unsqueeze(0)
    assert losses.co_infonce(near, far, ALL).item() == pytest.approx(0.913514, abs=1e-6)
    assert losses.co_ratio(near, far, ALL).item() == pytest.approx(-1.0)
    weighted = column(0.9486833)
    assert losses.co_infonce(weighted, far, ALL).item() == pytest.approx(0.775943, abs=1e-6)


def test_the_printed_ratio_is_ill_posed():
    near = column(NEAR)
    turned = column(0, -NEAR).unsqueeze(0)
    pole = column(0.001, -0.0005).unsqueeze(0)
    assert losses.co_ratio(near, turned, ALL).item() == pytest.approx(1.0)
    assert losses.co_ratio(near, pole, ALL).item() == pytest.approx(-1414.2, abs=0.1)
    assert losses.co_infonce(near, pole, ALL).item() == pytest.approx(0.686316, abs=1e-6)


@pytest.mark.parametrize("form", [losses.co_infonce, losses.co_ratio])
def test_co_losses_leave_invalid_strangers_out(form):
    near, far = column(0.2, 0.2), torch.tensor([[0.4, 0.9], [0.4, -0.7]], dtype=torch.float64)
    valid = torch.tensor([[True, False], [True, False]])
    one = form(near[:1], far[:1, :1], ALL[:, :1])
    assert form(near, far, valid).tolist() == pytest.approx([one.item()] * 2)


def test_co_infonce_without_any_stranger_is_zero_and_differentiable():
    near = column(0.3).requires_grad_()
    far = column(0.1, 0.2).unsqueeze(0).requires_grad_()
    loss = losses.co_infonce(near, far, ~ALL).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert bool(near.grad.isfinite().all()) and bool(far.grad.isfinite().all())


def test_co_infonce_draws_partners_near_and_strangers_away():
    near, far = column(0.1).requires_grad_(), column(0.3, -0.2).unsqueeze(0).requires_grad_()
    losses.co_infonce(near, far, ALL).sum().backward()
    assert near.grad.item() < 0 < far.grad.min().item()
