"""What MMSBR reads of its data set, and what it does where something is missing."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from recbole_mm.errors import ConfigError, DataError, FeatureError
from recbole_mm.model.spaces import FeatureSpace, Vectors

SETS = [(), ("text",), ("image",), ("text", "image")]


def test_features_stay_what_the_file_says(build, make_data):
    """The released constructor draws all tables anew after it has filled them."""
    data = make_data()
    model, features = build(data=data), data.item_features
    for name in ("text", "image"):
        read = Vectors(features.table(name), features.mask(name))
        expected = FeatureSpace(read, model.seen, 4)(read).table
        assert torch.equal(model.real[name].vectors, expected)


def test_features_do_not_move(build, make_data, losses):
    data = make_data()
    model = build(data=data)
    before = model.real["text"].vectors.clone()
    sum(losses(model, data.inter_feat)).backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    assert torch.equal(model.real["text"].vectors, before)


@pytest.mark.parametrize("names", SETS, ids=str)
@pytest.mark.parametrize("price", [True, False])
@pytest.mark.parametrize("preset", ["sound", "official"])
def test_anything_may_be_missing(build, make_data, evaluate, losses, names, price, preset):
    data = make_data(names, price, category=price)
    model = build(preset, data)
    scores = evaluate(model, data.held_out_rows())
    assert bool(scores[:, 1:].isfinite().all()) and bool((scores[:, 0] == -math.inf).all())
    assert model.loss_names == (("main", "con") if len(names) == 2 else ("main",))
    assert (model.price is not None) == price
    parts = losses(model, data.inter_feat)
    assert len(parts) == len(model.loss_names) and all(bool(x.isfinite()) for x in parts)
    sum(parts).backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead


def test_no_price_means_interest_alone(build, make_data):
    for keys, price in (({}, False), ({"use_price": False}, True)):
        data = make_data(price=price)
        model = build(data=data, **keys)
        parts = model.eval().score_parts(data.held_out_rows())
        assert list(parts) == ["interest", "repeat"]
        assert not [name for name, _ in model.named_parameters() if "price" in name]


def test_what_is_read_is_said(build, make_data, caplog):
    with caplog.at_level(logging.INFO):
        build(data=make_data(("text",), category=False))
    assert "MMSBR reads text, price of the items" in caplog.text
    assert "No contrastive loss" in caplog.text
    with caplog.at_level(logging.INFO):
        build(data=make_data((), price=False))
    assert "item vectors are made of ids alone" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        build()
    assert "MMSBR reads text, image, price, category of the items" in caplog.text
    assert "No contrastive loss" not in caplog.text


@pytest.mark.parametrize(
    ("made", "keys", "error", "message"),
    [
        ({"names": ("text",)}, {"use_image": True}, FeatureError, "needs image features of Tiny"),
        ({"price": False}, {"use_price": True}, DataError, "no item of the training sessions has"),
        ({"item_file": False}, {"use_price": True}, DataError, "--price_field"),
        ({"category": False}, {"use_category": True}, DataError, "--category_field"),
        ({}, {"price_field": "cost"}, DataError, "no item column 'cost'.*price, category"),
        ({}, {"n_heads": 3}, ConfigError, "n_heads=3 does not divide embedding_size=8"),
        ({}, {"pseudo": "files"}, FeatureError, "needs pseudo_text features"),
    ],
)
def test_what_must_be_there_and_is_not(build, make_data, made, keys, error, message):
    with pytest.raises(error, match=message):
        build(data=make_data(**made), **keys)


def test_no_item_file_is_no_error(build, make_data):
    data = make_data(item_file=False)
    assert build(data=data).price is None


def test_unknown_price_and_category_have_rows_of_their_own(build):
    model = build(category_field="category")
    levels, categories = model.price.levels.tolist(), model.price.categories.tolist()
    assert [i for i, level in enumerate(levels) if level == 7] == [4]
    assert levels[0] == categories[0] == 0
    # Items 2, 5, 8, 11 have no category.
    assert {categories[i] for i in (2, 5, 8, 11)} == {3} and set(categories[1:]) == {1, 2, 3}
    assert model.price.tables["mean"].shape == (8, 8)
    assert model.price.tables["category"].shape == (4, 8)
    assert build(use_category=False).price.levels[3] != model.price.levels[3]


def test_an_item_without_features_is_not_read(build, make_data):
    """Whatever stands in the rows of an item without features, its vector stays."""
    model = build(data=make_data(missing=(6, 9))).eval()
    first = model.item_tables()["candidates"]
    for name in model.used:
        model.real[name].vectors[6] = 50.0
    second = model.item_tables()["candidates"]
    assert torch.equal(first, second)
    for name in model.used:
        model.real[name].vectors[5] = 50.0
    assert not torch.allclose(model.item_tables()["candidates"][5], first[5])


def test_items_without_a_pair_are_not_contrasted(build, make_data):
    model = build(data=make_data(missing=(6, 9)))
    for name in model.used:
        assert not {0, 6, 9} & set(model.contrast.pairs(name).tolist())


def test_a_modality_without_any_pair_is_not_contrasted(build, make_data):
    data = make_data(("text", "image", "pseudo_text", "pseudo_image"))
    data.item_features.masks["pseudo_text"] = torch.zeros(12, dtype=torch.bool)
    model = build(data=data, pseudo="files")
    assert list(model.pseudo) == ["image"]
    data.item_features.masks["pseudo_image"] = torch.zeros(12, dtype=torch.bool)
    assert build(data=data, pseudo="files").loss_names == ("main",)
