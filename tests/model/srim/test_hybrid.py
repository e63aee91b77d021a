"""What the preset hybrid trains by: branches apart, cosines, positions, own items left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

PLAIN = {"emb_dropout": 0.0, "att_dropout": 0.0}


def own_losses(scores, rows, struck):
    """Return -log softmax of each row's target, worked out row by row in NumPy."""
    losses = []
    for row, target, items in zip(
        scores.double().numpy(),
        rows["item_id"].tolist(),
        rows["item_id_list"].tolist(),
        strict=True,
    ):
        left_out = set(items) - {target} if struck else set()
        kept = [j for j in range(1, len(row)) if j not in left_out]
        top = max(row[j] for j in kept)
        losses.append(math.log(sum(math.exp(row[j] - top) for j in kept)) + top - row[target])
    return np.mean(losses)


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_the_branches_add_up_to_the_score(build, dataset, score):
    model = build("hybrid", score=score, **PLAIN).eval()
    with torch.no_grad():
        whole = model.full_sort_predict(dataset.inter_feat)[:, 1:]
        parts = model.score_parts(dataset.inter_feat)
    assert list(parts) == ["id", "content"]
    torch.testing.assert_close(sum(part[:, 1:] for part in parts.values()), whole)
    if score == "cosine":
        assert float(whole.abs().max()) <= 2 / 0.1 + 1e-4


@pytest.mark.parametrize("struck", [True, False])
@pytest.mark.parametrize("loss", ["ce", "ce_apart"])
def test_the_main_loss_by_an_independent_derivation(build, dataset, loss, struck):
    own = "mask" if struck else "keep"
    model = build("hybrid", main_loss=loss, train_own_items=own, **PLAIN)
    rows = dataset.inter_feat
    with torch.no_grad():
        found = float(model.train().calculate_loss(rows)[0])
        parts = model.eval().score_parts(rows)
    if loss == "ce":
        expected = own_losses(sum(parts.values()), rows, struck)
    else:
        expected = sum(own_losses(part, rows, struck) for part in parts.values())
    assert found == pytest.approx(expected, abs=1e-5)


def test_one_branch_has_no_parts(build, dataset):
    assert build("hybrid", branches="id").eval().score_parts(dataset.inter_feat) == {}


def test_positions_by_hand(build, dataset):
    """With equal items the weights are a softmax of what each position is given."""
    model = build("hybrid", branches="id", n_heads=1, **PLAIN).eval()
    attention = model.encoders["id"].attention
    with torch.no_grad():
        attention.positions.age.copy_(torch.tensor([0.0, 1.0, 2.0, 0.0, 0.0, 0.0]))
        attention.positions.place.copy_(torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0, 0.0]))
        attention.maps["query"].weight.zero_(), attention.maps["query"].bias.zero_()
        items = torch.eye(3, 4).unsqueeze(0)
        mixed = attention(items[:, 2:], items, torch.ones(1, 3, dtype=torch.bool))
    # Ages 2, 1, 0 and places 0, 1, 2.
    expected = torch.softmax(torch.tensor([2.5, 1.0, 0.0]), dim=0)
    torch.testing.assert_close(mixed[0, 0, :3], expected)


def test_modalities_are_those_that_are_there(build, dataset):
    assert build("hybrid").tables["content"].features.shape[1] == 5 + 3
