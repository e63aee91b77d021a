"""Price branch of MMSBR: Gaussians, Wasserstein attention and scores, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_mm.model.mmsbr.price import (
    PricePreference,
    PriceScore,
    nearness,
    positive,
    products,
    spread,
    squared_distances,
)
from recbole_mm.model.mmsbr.prices import Prices
from recbole_mm.model.mmsbr.settings import MMSBRSettings


def tiny(**changes):
    sizes = {"embedding_size": 1, "n_heads": 1, "dropout_price": 0.0}
    return MMSBRSettings(**sizes | changes)


def known(levels, n_levels, categories=None, n_categories=0):
    levels = torch.tensor(levels)
    return Prices(levels, n_levels, categories, n_categories, levels > 0)


def test_wasserstein_distance_by_hand():
    left = torch.tensor([[1.0, 2.0, 1.0, 2.0]])  # means (1, 2), variances (1, 4)
    right = torch.tensor([[3.0, -1.0, 2.0, 1.0]])  # means (3, -1), variances (4, 1)
    assert squared_distances(left, right).item() == 15.0
    assert squared_distances(right, left).item() == 15.0
    assert squared_distances(left, left).item() == 0.0
    both = torch.cat([left, right])
    torch.testing.assert_close(
        squared_distances(both, both), torch.tensor([[0.0, 15.0], [15.0, 0.0]])
    )


def test_positive_and_spread_by_hand():
    torch.testing.assert_close(
        positive(torch.tensor([-1.0, 0.0, 2.0])), torch.tensor([0.367879, 1.0, 3.0])
    )
    torch.testing.assert_close(
        spread(torch.tensor([-2.0, 0.0, 3.0])), torch.tensor([0.367879, 1.0, 2.0])
    )
    for start in (0.0, -1e-4, 1e-4, -60.0, 60.0):
        x = torch.tensor(start, requires_grad=True)
        (slope,) = torch.autograd.grad(spread(x), x)
        assert torch.isfinite(slope)
        if abs(start) < 1:
            assert slope.item() == pytest.approx(0.5, abs=1e-4)
    x = torch.linspace(-8, 8, 33)
    torch.testing.assert_close(spread(x), positive(x).sqrt())


class Recorded(PricePreference):
    """A branch whose attention inputs and weights are set and looked at."""

    def _inputs(self, moment, item_seq):
        # Maps are identities; the raw number of a variance v is v - 1 or log v.
        return {"mean": self.means, "variance": self.variances}[moment.name]


def identity_maps(model):
    with torch.no_grad():
        for layer in model.maps.values():
            layer.weight.copy_(torch.eye(len(layer.weight)))
            layer.bias.zero_()


@pytest.fixture
def attended():
    model = Recorded(tiny(), known([0, 1, 2], 3))
    identity_maps(model)
    model.means = torch.tensor([[[2.0], [0.0]]])
    model.variances = torch.tensor([[[3.0], [0.0]]])  # stand for variances 4 and 1
    return model


def test_wasserstein_attention_by_hand(attended):
    """The last position asks: mean 0, variance 1; the other one is 5 away."""
    lengths = torch.tensor([2])
    inputs = {"mean": attended.means, "variance": attended.variances}
    weights = attended._weights(inputs, lengths)
    torch.testing.assert_close(weights, torch.tensor([[[0.006693, 0.993307]]]), atol=1e-6, rtol=0)
    mean = (weights @ attended.means).item()
    assert mean == pytest.approx(0.013386, abs=1e-6)
    values = positive(attended.variances)
    assert (weights.square() @ values).item() == pytest.approx(0.986838, abs=1e-6)
    # And seen from the other item.
    attended.means, attended.variances = attended.means.flip(1), attended.variances.flip(1)
    inputs = {"mean": attended.means, "variance": attended.variances}
    weights = attended._weights(inputs, lengths)
    assert (weights @ attended.means).item() == pytest.approx(1.986614, abs=1e-6)
    values = positive(attended.variances)
    assert (weights.square() @ values).item() == pytest.approx(3.946681, abs=1e-6)


def test_variances_are_mixed_with_squared_weights(attended):
    """What reaches the norm behind the attention is (A*A) U plus the raw row, and A v plus it."""
    seen = {}
    for place in ("out_mean", "out_variance"):
        attended.norms[place] = torch.nn.Identity()
        attended.norms[place].register_forward_hook(
            lambda module, inputs, out, place=place: seen.update({place: out})
        )
    with torch.no_grad():
        attended.tables["mean"][:] = torch.tensor([[0.0], [10.0], [20.0]])
        attended.tables["variance"][:] = torch.tensor([[0.0], [30.0], [40.0]])
        attended(torch.tensor([[2, 1]]), torch.tensor([2]))
    assert seen["out_mean"].item() == pytest.approx(10.013386, abs=1e-5)
    assert seen["out_variance"].item() == pytest.approx(30.986838, abs=1e-5)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (nearness, [math.exp(-5.0), 1.0]),
        (products, [math.exp(2.0), math.exp(1.0)]),  # u = [0, 1] with [2, 2] and [0, 1]
    ],
)
def test_forms_of_the_attention(attended, form, expected):
    attended.likeness = form
    inputs = {"mean": attended.means, "variance": attended.variances}
    weights = attended._weights(inputs, torch.tensor([2]))
    expected = torch.tensor(expected)
    torch.testing.assert_close(weights[0, 0], expected / expected.sum(), atol=1e-6, rtol=0)


def test_padding_takes_no_weight():
    torch.manual_seed(0)
    settings = tiny(embedding_size=4, n_heads=2)
    model = PricePreference(settings, known([0, 1, 2, 3], 4, torch.tensor([0, 1, 1, 2]), 3)).eval()
    short = model(torch.tensor([[1, 3], [2, 0]]), torch.tensor([2, 1]))
    padded = model(torch.tensor([[1, 3, 0, 0], [2, 0, 0, 0]]), torch.tensor([2, 1]))
    torch.testing.assert_close(short, padded)


def test_a_point_has_no_variance():
    model = PricePreference(tiny(price_repr="point"), known([0, 1, 2], 3))
    assert not [name for name, _ in model.named_parameters() if "variance" in name]
    assert model.item_vectors().shape == (3, 1)
    assert model(torch.tensor([[1]]), torch.tensor([1])).shape == (1, 1)


def test_item_vectors_by_hand():
    model = PricePreference(tiny(embedding_size=2), known([0, 1, 2], 3, torch.tensor([0, 1, 1]), 2))
    with torch.no_grad():
        model.tables["mean"][:] = torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]])
        model.tables["variance"][:] = torch.tensor([[9.0, 9.0], [2.0, -3.0], [0.0, 7.0]])
        model.tables["category"][:] = torch.tensor([[9.0, 9.0], [1.0, 1.0]])
    expected = torch.tensor(
        [[0, 0, 0, 0], [2, 3, 2, math.exp(-1)], [4, 5, math.sqrt(2), 3]], dtype=torch.float
    )
    torch.testing.assert_close(model.item_vectors(), expected)


@pytest.mark.parametrize(("name", "form"), [("wasserstein", nearness), ("dot", products)])
def test_the_setting_chooses_the_attention(name, form):
    assert PricePreference(tiny(price_attention=name), known([0, 1], 2)).likeness is form


def test_a_distant_price_makes_a_score_smaller():
    model, interest = PriceScore(), torch.tensor([1.0, -1.0])
    added = model(interest, torch.tensor([3.0, 0.0]))
    torch.testing.assert_close(added, torch.tensor([-0.3, 0.0]))
    with torch.no_grad():
        model.log_gamma.fill_(0.0)
    assert (interest + model(interest, torch.tensor([3.0, 0.0]))).tolist() == [-2.0, -1.0]


def test_each_place_has_a_norm_of_its_own():
    model = PricePreference(tiny(), known([0, 1], 2))
    assert sum(name.startswith("norms") for name, _ in model.named_parameters()) == 8
    assert model.norms["mean"].eps == 1e-5
