"""The preset ``official``: in what it differs from the sound model."""

from __future__ import annotations

import math

import pytest
import torch

from recbole_mm.model.mmsbr.official import (
    AlternatingFusion,
    GrowingScore,
    OfficialMMSBR,
    OneNormPrice,
    QueryAxisLayer,
    WholeContrast,
)
from recbole_mm.model.mmsbr.prices import Prices
from recbole_mm.model.mmsbr.settings import MMSBRSettings, OfficialMMSBRSettings

EYE = torch.eye(2)
SIZES = {"embedding_size": 4, "n_heads": 2, "inner_size": 8, "n_tokens": 3, "n_pivots": 2}


def layer(size=4, n_heads=2):
    torch.manual_seed(1)
    sizes = SIZES | {"embedding_size": size, "n_heads": n_heads}
    return QueryAxisLayer(MMSBRSettings(**sizes, dropout_encoder=0.0))


class Constant(torch.nn.Module):
    """A layer that returns ones, and notes its input."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, tokens, n_out):
        self.seen.append(tokens)
        return torch.ones_like(tokens[:, :n_out])


def test_it_is_the_class_of_the_preset(build):
    model = build("official")
    assert type(model) is OfficialMMSBR
    assert {"pivot_scope", "repeat_bias"} <= set(MMSBRSettings.keys()) - set(
        OfficialMMSBRSettings.keys()
    )


def test_features_are_wiped_out(build, make_data):
    model, sound = build("official", make_data()), build(data=make_data())
    assert not torch.allclose(model.real["text"].vectors, sound.real["text"].vectors)
    bound = 8**-0.5
    assert all(float(p.detach().abs().max()) <= bound for p in model.parameters())
    assert float(model.price.norms["mean"].weight.detach().min()) < 0


def test_features_are_trained(build, make_data, losses):
    data = make_data()
    model = build("official", data)
    before = {side: getattr(model, side)["text"].vectors.clone() for side in ("real", "pseudo")}
    sum(losses(model, data.inter_feat)).backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    for side, vectors in before.items():
        assert not torch.equal(getattr(model, side)["text"].vectors, vectors)


def test_dropout_after_the_first_epoch(build, make_data, losses):
    data = make_data()
    for preset in ("sound", "official"):
        model = build(preset, data, offset_dropout=0.0, w_con=0.0)
        for epoch, drops in ((0, True), (1, preset == "sound"), (5, preset == "sound"), (0, True)):
            if preset == "official":
                model.start_epoch(epoch)
            same = torch.equal(*(losses(model, data.inter_feat, seed)[0] for seed in (1, 2)))
            assert same == (not drops)


# Parts


def test_axis_of_the_softmax():
    """Logits [[0, ln 3], [0, 0]]: the values are unit vectors, so the output is the weights."""
    model, expected = layer(size=2, n_heads=1), torch.tensor([[0.5, 0.75], [0.5, 0.25]])
    logits = math.sqrt(2) * torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    with torch.no_grad():
        model.query.weight.copy_(logits.T)
        model.key_value.weight.copy_(torch.cat([EYE, EYE]))
        model.query.bias.zero_(), model.key_value.bias.zero_()
        found = model.attend(EYE.unsqueeze(0), 2)[0]
        first = model.attend(EYE.unsqueeze(0), 1)[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(first, expected[:1])


def test_wanted_tokens_are_what_the_whole_layer_gives():
    model, whole = layer(), torch.randn(5, 6, 4)
    torch.testing.assert_close(model(whole, 6)[:, :2], model(whole, 2))
    assert model.norm_out is model.norm_attention


@pytest.mark.parametrize(("first", "expected"), [(0.0, 0.984375), (2.0, 1.015625)])
def test_pivots_approach_a_constant_by_halves(first, expected):
    model = AlternatingFusion(MMSBRSettings(**SIZES, n_rounds=3), ("text", "image"))
    stub = Constant()
    for layers in model.rounds:
        layers["text"] = layers["image"] = stub
    tokens = {name: torch.ones(1, 3, 4) for name in ("text", "image")}
    here = dict.fromkeys(tokens, torch.ones(1, dtype=torch.bool))
    out = model(torch.full((1, 2, 4), first), tokens, here)
    # Pivots alone, and each layer sees what the one before it left of them.
    torch.testing.assert_close(out, torch.full((1, 8), expected))
    pivots = [seen[0, 0, 0].item() for seen in stub.seen]
    halves = [1 + (first - 1) / 2**step for step in range(6)]
    assert pivots == pytest.approx(halves)


def test_without_an_image_only_the_text_layers_count():
    model = AlternatingFusion(MMSBRSettings(**SIZES, n_rounds=2), ("text", "image")).eval()
    alone = AlternatingFusion(MMSBRSettings(**SIZES, n_rounds=2), ("text",)).eval()
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if "image" not in k})
    pivots, text, here = torch.randn(1, 2, 4), torch.randn(1, 3, 4), torch.tensor([True])
    expected = alone(pivots, {"text": text}, {"text": here})
    both = {"text": text, "image": torch.randn(1, 3, 4)}
    found = model(pivots, both, {"text": here, "image": ~here})
    torch.testing.assert_close(found, expected)


def test_no_coordinate_of_an_item_is_below_zero(build):
    vectors = build("official").eval().item_tables()["candidates"]
    assert bool((vectors >= 0).all()) and bool((vectors > 0).any())


def contrast(real, pseudo, n_nearest):
    model = WholeContrast({"text": torch.arange(len(real))}, 1.0, 0)
    model.n_nearest = n_nearest
    return model(real, pseudo).item()


def test_contrast_by_hand():
    pseudo = torch.diag(torch.tensor([1.0, 2.0]))
    assert contrast(EYE, pseudo, 2) == pytest.approx(0.191172, abs=1e-6)
    assert contrast(EYE, pseudo, 1) == pytest.approx(0.0, abs=1e-7)


def test_the_own_pair_may_miss_the_denominator():
    pseudo = EYE.flip(0)
    assert contrast(EYE, pseudo, 1) == pytest.approx(0.868589)
    assert contrast(EYE, pseudo, 2) == pytest.approx(1.140685)
    # More than there are is all there are.
    assert contrast(EYE, pseudo, 100) == pytest.approx(1.140685)


def test_large_products_stay_finite():
    assert contrast(20 * EYE, 20 * EYE, 2) == pytest.approx(0.0, abs=1e-6)


def test_all_items_are_compared(build, make_data):
    model = build("official", make_data(missing=(6,)))
    everybody = [item for item in range(1, 12) if item != 6]
    assert model.contrast.sample("text", torch.tensor([3])).tolist() == everybody


def test_a_distant_price_makes_a_score_larger():
    interest, distance = torch.tensor([1.0, -1.0]), torch.tensor([3.0, 0.0])
    assert (interest + GrowingScore()(interest, distance)).tolist() == [4.0, -1.0]


def test_one_norm_for_all_of_the_price_branch():
    known = Prices(torch.tensor([0, 1]), 2, None, 0, torch.tensor([False, True]))
    model = OneNormPrice(MMSBRSettings(embedding_size=4, n_heads=2), known)
    assert sum(name.startswith("norms") for name, _ in model.named_parameters()) == 2
    assert len(set(model.norms.values())) == 1 and model.norms["mean"].eps == 1e-12
    assert not list(model.score.parameters())
