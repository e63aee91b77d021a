"""The released MMSBR as a whole against numbers of an independent derivation in float64.

Every weight follows one rule: number ``t`` has the entries ``sin(t + 0.7 row + 1.3 column)``, its
bias ``0.1 cos(t + row)``. The released network, run with these weights, gives the numbers of the
axis ``query`` to float32 rounding; those of the axis ``key`` have the layers of the sound model.
"""

from __future__ import annotations

import math

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_mm.data.item_columns import ItemColumns
from recbole_mm.model.mmsbr.official import AlternatingFusion, OfficialMMSBR, WholeContrast
from recbole_mm.model.mmsbr.pivots import TokenLayer

D, HEADS, INNER = 4, 2, 16
SETTINGS = {
    "embedding_size": D,
    "n_heads": HEADS,
    "inner_size": INNER,
    "n_tokens": 2,
    "n_pivots": 4,
    "n_rounds": 1,
    "pca_dim": 0,
    "price_levels": 1,
    "pseudo": "files",
}
VECTORS = ("image", "text", "pseudo_image", "pseudo_text")
ITEMS = """item_id:token\tprice:float\tcategory:token
i1\t10\tfirst
i2\t20\tfirst
i3\t70\tsecond
"""
GOLDEN = {
    "query": {
        "E": [
            [1.50854, 1.21766, 0.82441, 0.51374],
            [0.56010, 0.70702, 0.99174, 1.28034],
            [0.88695, 0.98439, 1.08918, 1.15202],
        ],
        "s": [[1.31877, 1.29278, 1.23472, 1.17190], [0.43684, 0.55143, 0.77348, 0.99857]],
        "r": [[5.18353, 4.37761, 5.13715], [2.48111, 2.68015, 2.92311]],
        "score": [[73.46739, 95.79179, 49.93504], [36.22443, 59.80302, 28.56554]],
        "ce": 11.78930,
    },
    "key": {
        "E": [
            [0.99581, 1.02852, 1.04781, 1.04462],
            [0.90399, 0.93854, 1.00200, 1.06452],
            [1.39610, 1.14416, 0.82442, 0.58726],
        ],
        "s": [[1.36303, 1.28020, 1.15802, 1.05396], [0.70261, 0.72947, 0.77879, 0.82738]],
        "r": [[4.98841, 4.71600, 4.94132], [3.13026, 2.98091, 2.94347]],
        "score": [[70.70187, 103.19642, 48.03147], [45.70215, 66.51377, 28.76453]],
        "ce": 10.40581,
    },
}
# The same for both axes.
MEAN = [[1.60944, 0.06335, -0.89375, -0.77904], [1.56688, 0.16642, -0.77989, -0.95340]]
VARIANCE = [[0.71578, 0.83663, 0.11339, -1.66579], [0.53165, 0.91670, 0.23190, -1.68025]]
DISTANCE = [[13.17323, 20.88220, 8.72038], [13.60011, 21.31327, 8.77231]]
CONTRAST = 3.79765


def entries(t, rows, columns, scale=1.0):
    i, j = torch.arange(rows).double()[:, None], torch.arange(columns).double()[None]
    return (scale * torch.sin(t + 0.7 * i + 1.3 * j)).float()


def with_padding(table):
    return torch.cat([torch.zeros(1, table.shape[1]), table])


def fill(layer, t, scale=1.0, bias=None):
    weight = layer.weight
    weight.copy_(entries(t, *weight.shape, scale))
    if layer.bias is not None:
        rows = torch.arange(len(weight)).double()
        layer.bias.copy_(0.1 * torch.cos(t + rows) if bias is None else torch.full_like(rows, bias))


def fill_layer(layer, t):
    fill(layer.query, t)
    parts = [torch.nn.Linear(D, D), torch.nn.Linear(D, D)]
    for part, number in zip(parts, (t + 1, t + 2), strict=True):
        fill(part, number)
    layer.key_value.weight.copy_(torch.cat([part.weight for part in parts]))
    layer.key_value.bias.copy_(torch.cat([part.bias for part in parts]))
    fill(layer.out, t + 3)
    fill(layer.widen, t + 4)
    fill(layer.narrow, t + 5)


def fill_tokens(tokens, t):
    for number in range(2):
        for weight, bias, at in (
            (tokens.first, tokens.first_bias, t + 2 * number),
            (tokens.second, tokens.second_bias, t + 2 * number + 1),
        ):
            layer = torch.nn.Linear(D, D)
            fill(layer, at)
            weight[number].copy_(layer.weight.T), bias[number, 0].copy_(layer.bias)


@torch.no_grad()
def fill_model(model):
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.fill_(1.0), module.bias.zero_()
    for t, name in enumerate(VECTORS, start=1):
        side = model.pseudo if name.startswith("pseudo") else model.real
        side[name.removeprefix("pseudo_")].vectors.copy_(with_padding(entries(t, 3, D)))
    pivots = torch.cat([entries(t, 3, D) for t in (5, 6, 7, 8)], dim=1)
    model.pivots.own[1:].copy_(pivots)
    fill_tokens(model.tokens["image"], 12), fill_tokens(model.tokens["text"], 16)
    fill_layer(model.fusion.rounds[0]["image"], 20), fill_layer(model.fusion.rounds[0]["text"], 26)
    fill(model.head.first, 32, 0.3, 1.0), fill(model.head.second, 33, 0.3, 1.0)
    for layer, t in (
        (model.interest.item, 34),
        (model.interest.mean, 35),
        (model.interest.gate, 36),
    ):
        fill(layer, t)
    for t, role in ((9, "mean"), (10, "variance"), (11, "category")):
        model.price.tables[role][1:3].copy_(entries(t, 2, D))
    maps = ["query", "key", "value"]
    names = [f"{name}_mean" for name in maps] + [f"{name}_variance" for name in maps]
    for t, name in enumerate([*names, "out_mean", "out_variance"], start=37):
        fill(model.price.maps[name], t)


class KeyAxisFusion(AlternatingFusion):
    Layer = TokenLayer


class TwoNearest(WholeContrast):
    n_nearest = 2


class KeyAxis(OfficialMMSBR):
    Contrast = TwoNearest
    Fusions = {"pivot": KeyAxisFusion}


class QueryAxis(OfficialMMSBR):
    Contrast = TwoNearest


@pytest.fixture(params=["query", "key"])
def golden(request, settings, make_dataset, tmp_path):
    (tmp_path / "Tiny.item").write_text(ITEMS)
    # What the files hold is drawn over at once; the tables are filled below.
    features = {name: with_padding(entries(1, 3, D)) for name in VECTORS}
    data = make_dataset([[1, 3, 2], [2, 1]], 4, features=features)
    tokens = ["[PAD]", "i1", "i2", "i3"]
    data.item_columns = ItemColumns(tmp_path / "Tiny.item", "item_id", tokens)
    kind = {"query": QueryAxis, "key": KeyAxis}[request.param]
    model = kind(settings("MMSBR", "official", **SETTINGS), data)
    fill_model(model)
    rows = Interaction(
        {
            "item_id_list": torch.tensor([[1, 3, 0], [2, 0, 0]]),
            "item_length": torch.tensor([2, 1]),
            "item_id": torch.tensor([2, 1]),
        }
    )
    return model.eval(), rows, GOLDEN[request.param]


def near(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=2e-5)


def test_levels_and_categories_of_the_case(golden):
    model, *_ = golden
    assert model.price.levels.tolist() == [0, 1, 2, 1]
    assert model.price.categories.tolist() == [0, 1, 1, 2]


@torch.no_grad()
def test_every_quantity_on_the_way(golden):
    model, rows, expected = golden
    tables = model.item_tables()
    near(tables["candidates"][1:], expected["E"])
    query = model.encode(*model.inputs(rows), tables)
    near(query[:, :D], expected["s"])
    near(query[:, D : 2 * D], MEAN)
    raw = torch.tensor(VARIANCE)
    sigma = torch.where(raw > 0, (1 + raw.clamp(min=0)).sqrt(), (raw / 2).exp())
    torch.testing.assert_close(query[:, 2 * D :], sigma, rtol=1e-4, atol=2e-5)
    near(model.distances(rows)[:, 1:], DISTANCE)
    parts = model.score_parts(rows)
    near(parts["interest"][:, 1:], expected["r"])


@torch.no_grad()
def test_scores_and_losses(golden):
    model, rows, expected = golden
    scores = model.full_sort_predict(rows)
    near(scores[:, 1:], expected["score"])
    assert bool((scores[:, 0] == -math.inf).all())
    near(model.predict(rows), [expected["score"][0][1], expected["score"][1][0]])
    main, contrast = model.calculate_loss(rows)
    assert main.item() == pytest.approx(expected["ce"], rel=1e-4)
    assert contrast.item() == pytest.approx(0.01 * CONTRAST, rel=1e-4)
