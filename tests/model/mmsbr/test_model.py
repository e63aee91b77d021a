"""MMSBR as a whole: missing inputs, guards, caches, and that every switch does something."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from recbole_mm.errors import ConfigError, DataError, FeatureError
from recbole_mm.model.mmsbr.model import MMSBR

N_ITEMS = 12
TRAIN = [[1, 2, 3], [4, 2], [5, 6, 7, 8], [9, 1], [10, 3, 5], [2, 9, 4]]  # 11 is new in test
TEST = [[3, 4, 11], [6, 2], [7, 8, 1, 10, 2]]
PRICES = ["5", "9", "12", "", "30", "2", "7", "90", "40", "1", "55"]
SMALL = {
    "embedding_size": 8, "n_heads": 2, "inner_size": 16, "n_tokens": 2, "n_pivots": 2,
    "pca_dim": 4, "contrast_sample": 6, "price_levels": 5,
}  # fmt: skip
STILL = dict.fromkeys(
    ("dropout_tokens", "dropout_encoder", "dropout_fusion", "dropout_price", "offset_dropout"), 0.0
)


def write_items(folder, price=True, category=True):
    columns = ["item_id:token"] + ["price:token"] * price + ["category:token"] * category
    lines = [
        [f"i{item}"] + [PRICES[item - 1]] * price + [("a", "b", "")[item % 3]] * category
        for item in range(1, N_ITEMS)
    ]
    text = "\n".join("\t".join(line) for line in [columns, *lines])
    (folder / "Tiny.item").write_text(text + "\n")


@pytest.fixture
def make_data(make_dataset, tmp_path):
    def make(names=("text", "image"), price=True, category=True, missing=(6,), item_file=True):
        torch.manual_seed(11)
        widths = {"text": 7, "image": 5, "pseudo_text": 7, "pseudo_image": 5}
        every = {name: torch.randn(N_ITEMS, width) for name, width in widths.items()}
        features = {name: every[name] for name in names}
        data = make_dataset(TRAIN, N_ITEMS, TEST, features, missing)
        if item_file:
            write_items(tmp_path, price, category)
        data.dataset_path, data.dataset_name, data.iid_field = str(tmp_path), "Tiny", "item_id"
        data.field2id_token = {"item_id": ["[PAD]", *(f"i{item}" for item in range(1, N_ITEMS))]}
        return data

    return make


@pytest.fixture
def build(settings, make_data):
    def make(preset="sound", data=None, seed=3, **changes):
        torch.manual_seed(seed)
        return MMSBR(settings("MMSBR", preset, **{**SMALL, **changes}), data or make_data())

    return make


def evaluate(model, rows):
    model.eval()
    with torch.no_grad():
        return model.full_sort_predict(rows)


def losses(model, rows, seed=0):
    torch.manual_seed(seed)
    return model.train().calculate_loss(rows)


# Inputs


def test_features_stay_what_the_file_says(build, make_data):
    """The released constructor draws all tables anew after it has filled them."""
    data = make_data()
    for trained in (False, True):
        model = build(data=data, features_trainable=trained, pca_dim=0, pca_scale="none")
        for name in ("text", "image"):
            assert torch.equal(model.real[name].vectors, data.item_features.table(name))
    wiped = build("official", data, pca_dim=0)
    assert not torch.allclose(wiped.real["text"].vectors, data.item_features.table("text"))
    bound = SMALL["embedding_size"] ** -0.5
    assert all(float(p.detach().abs().max()) <= bound for p in wiped.parameters())
    assert float(wiped.price.norms["mean"].weight.detach().min()) < 0


SETS = [(), ("text",), ("image",), ("text", "image")]


@pytest.mark.parametrize("names", SETS, ids=str)
@pytest.mark.parametrize("price", [True, False])
@pytest.mark.parametrize("preset", ["sound", "official"])
def test_anything_may_be_missing(build, make_data, names, price, preset):
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
    assert build(price_score="none").price is None


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
        ({}, {"contrast_on": "tables"}, ConfigError, "nothing to move"),
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


# Missing modalities of some items


def test_an_item_without_features_is_not_read(build, make_data):
    """Whatever stands in the rows of an item without features, its vector stays."""
    data = make_data(missing=(6, 9))
    model = build(data=data).eval()
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


# Pivots


def test_new_items_have_no_offset(build):
    model = build(**STILL).eval()
    before = model.item_tables()["candidates"]
    with torch.no_grad():
        model.item_pivots[11] += 5.0
    assert torch.equal(model.item_tables()["candidates"], before)
    with torch.no_grad():
        model.item_pivots[10] += 5.0
    assert not torch.allclose(model.item_tables()["candidates"][10], before[10])


@pytest.mark.parametrize(
    ("scope", "alike"), [("shared", True), ("shared_plus_offset", False), ("item", False)]
)
def test_scope_of_the_pivots(build, make_data, scope, alike):
    data = make_data()
    for table in data.item_features.tables.values():
        table[2] = table[1]
    vectors = build(data=data, pivot_scope=scope).eval().item_tables()["candidates"]
    assert torch.allclose(vectors[1], vectors[2]) == alike


def test_offsets_are_dropped_item_by_item(build):
    model = build(**STILL | {"offset_dropout": 0.5}).train()
    rows = torch.arange(1, 11).repeat(20)
    moved = model._pivots(rows) - model.pivots.view(2, 8)
    kept = (moved != 0).flatten(1)
    assert bool((kept.all(dim=1) | ~kept.any(dim=1)).all())
    kept = kept[:, 0].view(20, 10).float().mean(dim=0)
    # Item 6 has no features: without its offset there would be nothing left of it.
    assert kept[5] == 1.0 and 0.2 < kept[0] < 0.8 and 0.4 < kept.mean() < 0.7
    assert bool((model.eval()._pivots(rows) != model.pivots.view(2, 8)).all())


# Scores


@pytest.mark.parametrize("form", ["sub", "mul_plus", "mul_exp"])
@pytest.mark.parametrize("preset", ["sound", "official", "no_price"])
def test_parts_and_single_scores_agree(build, make_data, form, preset):
    data = make_data()
    model = build(preset, data, price_score=form, price_gamma=0.01).eval()
    rows = data.held_out_rows()
    with torch.no_grad():
        scores, parts = model.full_sort_predict(rows), model.score_parts(rows)
        single = model.predict(rows)
    torch.testing.assert_close(sum(parts.values()), scores)
    torch.testing.assert_close(
        single, scores.gather(1, rows["item_id"].unsqueeze(1)).squeeze(1), rtol=1e-4, atol=1e-4
    )
    expected = {"sound": {"price", "repeat"}, "official": {"price"}, "no_price": {"repeat"}}
    assert set(parts) == {"interest"} | expected[preset]
    if preset != "no_price":
        assert bool((parts["price"][:, 1:] != 0).any()) and not parts["price"][:, 0].any()


def test_repeat_bias_moves_the_items_of_the_session_alone(build, make_data):
    data = make_data()
    model, rows = build(data=data), data.held_out_rows()
    plain = evaluate(model, rows)
    with torch.no_grad():
        model.repeat_bias.fill_(-2.0)
    moved, expected = evaluate(model, rows), torch.zeros_like(plain)
    for row, history in enumerate(rows["item_id_list"].tolist()):
        expected[row, [item for item in history if item]] = -2.0
    torch.testing.assert_close(moved[:, 1:] - plain[:, 1:], expected[:, 1:])
    rows["item_id"] = rows["item_id_list"][:, 0]
    with torch.no_grad():
        single = model.predict(rows)
    torch.testing.assert_close(single, moved.gather(1, rows["item_id"].unsqueeze(1))[:, 0])
    sum(losses(model, data.inter_feat)).backward()
    assert model.repeat_bias.grad != 0


def test_item_vectors_are_made_once_per_evaluation(build, make_data, monkeypatch):
    data, calls = make_data(), []
    model, rows = build(data=data), data.held_out_rows()
    original = model._item_vectors
    monkeypatch.setattr(model, "_item_vectors", lambda part: calls.append(1) or original(part))
    first = evaluate(model, rows)
    assert torch.equal(evaluate(model.train(), rows), first)
    calls.clear()
    with torch.no_grad():
        again = model.full_sort_predict(rows)
        torch.testing.assert_close(model.full_sort_predict(rows[:2]), again[:2])
    assert not calls and torch.equal(again, first)
    sum(losses(model, data.inter_feat)).backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    assert not torch.allclose(evaluate(model, rows)[:, 1:], first[:, 1:])


def test_a_column_of_padding_changes_nothing(build, make_data):
    data = make_data()
    model, rows = build(data=data), data.held_out_rows()
    wide = rows["item_id_list"]
    one = evaluate(model, rows)
    rows["item_id_list"] = torch.cat([wide, torch.zeros_like(wide)], dim=1)
    torch.testing.assert_close(evaluate(model, rows), one)


@pytest.mark.parametrize("preset", ["sound", "official"])
def test_chunks_give_the_same_scores_and_gradients(build, make_data, preset):
    data = make_data()
    found = []
    for chunk in (0, 4):
        model = build(preset, data, item_chunk=chunk, **STILL)
        sum(losses(model, data.inter_feat)).backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        found.append((grads, evaluate(model, data.held_out_rows())))
    torch.testing.assert_close(found[0][1], found[1][1])
    for name, grad in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], grad, rtol=1e-3, atol=1e-5, msg=name)


def test_chunks_repeat_their_dropout(build, make_data):
    """Recomputed parts must drop what they dropped at first, or gradients belong to nothing."""
    data = make_data()
    whole = build(data=data, item_chunk=4, w_con=0.0)
    loss = sum(losses(whole, data.inter_feat))
    step = 1e-3
    (slope,) = torch.autograd.grad(loss, whole.fusion.second.bias)
    with torch.no_grad():
        whole.fusion.second.bias += step * slope / slope.norm()
    gained = sum(losses(whole, data.inter_feat)) - loss
    assert gained.item() / step == pytest.approx(slope.norm().item(), rel=0.05)


# Training


def test_losses_by_name(build, make_data):
    data = make_data()
    main, con = losses(build(data=data, **STILL), data.inter_feat)
    twice = losses(build(data=data, w_con=0.2, **STILL), data.inter_feat)
    assert twice[0].item() == main.item()
    assert twice[1].item() == pytest.approx(0.2 * con.item() / build().settings["w_con"])
    none = build(data=data, w_con=0.0)
    assert len(losses(none, data.inter_feat)) == 1 and none.contrast is None
    assert not [name for name, _ in none.named_parameters() if "contrast" in name]


def test_padding_is_no_candidate(build, make_data):
    data = make_data()
    model = build(data=data, w_con=0.0, **STILL)
    scores = evaluate(model, data.inter_feat)
    expected = torch.nn.functional.cross_entropy(scores, data.inter_feat["item_id"])
    assert losses(model, data.inter_feat)[0].item() == pytest.approx(expected.item(), rel=1e-5)


def test_dropout_after_the_first_epoch(build, make_data):
    data = make_data()
    for habit in (False, True):
        model = build(data=data, dropout_first_epoch_only=habit, offset_dropout=0.0, w_con=0.0)
        for epoch, drops in ((0, True), (1, not habit), (5, not habit), (0, True)):
            model.start_epoch(epoch)
            same = torch.equal(
                losses(model, data.inter_feat, 1)[0], losses(model, data.inter_feat, 2)[0]
            )
            assert same == (not drops)


def test_frozen_features_do_not_move(build, make_data):
    data = make_data()
    for trained in (False, True):
        model = build(data=data, features_trainable=trained)
        before = model.real["text"].vectors.clone()
        sum(losses(model, data.inter_feat)).backward()
        torch.optim.SGD(model.parameters(), 1.0).step()
        assert torch.equal(model.real["text"].vectors, before) != trained


# Every switch does something

SWITCHES = [
    {"use_text": False},
    {"use_image": False},
    {"use_price": False},
    {"use_category": False},
    {"pca_dim": 2},
    {"pca_dim": 0},
    {"pca_scale": "whiten"},
    {"pca_scale": "none"},
    {"n_tokens": 3},
    {"n_pivots": 3},
    {"n_rounds": 2},
    {"n_heads": 4},
    {"inner_size": 8},
    {"pivot_scope": "item"},
    {"pivot_scope": "shared"},
    {"pivot_softmax_axis": "query"},
    {"fusion": "concat_mlp"},
    {"fusion": "mean"},
    {"fusion": "full_transformer"},
    {"pivot_order": "image_first"},
    {"pivot_order": "text_first"},
    {"token_skip": False},
    {"item_activation": "relu"},
    {"item_activation": "none"},
    {"interest": "mean"},
    {"interest": "last"},
    {"interest_position": "reversed"},
    {"session_residual": False},
    {"session_map": "none"},
    {"price_binning": "quantile"},
    {"price_binning": "logistic"},
    {"price_levels": 3},
    {"price_repr": "point"},
    {"price_attention": "dot"},
    {"price_attention": "none"},
    {"price_item_ln": True},
    {"price_score": "mul_plus"},
    {"price_score": "mul_exp"},
    {"price_gamma": 0.7},
    {"share_ln": True},
    {"init": "uniform_all"},
]


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_switches_of_the_scores(build, make_data, changes):
    data = make_data()
    models = [build(data=data, **keys) for keys in ({}, changes)]
    for model in models:  # norms and biases that start alike must not hide a switch
        torch.manual_seed(5)
        for name, weight in model.named_parameters():
            if weight.ndim == 1 or "tables" in name:
                torch.nn.init.normal_(weight, 0.3, 0.3)
    one, two = (evaluate(model, data.held_out_rows())[:, 1:] for model in models)
    assert bool(two.isfinite().all()) and not torch.allclose(one, two, rtol=1e-3)


LOSS_SWITCHES = [
    {"pseudo": "files"},
    {"pseudo": "none"},
    {"pca_shared": False},
    {"contrast_on": "tables", "features_trainable": True},
    {"contrast_sim": "dot"},
    {"contrast_tau": 1.0},
    {"contrast_topk": 2},
    {"contrast_reduction": "sum_log10"},
    {"contrast_sample": 0},
    {"contrast_sample": 3},
]


@pytest.mark.parametrize("changes", LOSS_SWITCHES, ids=str)
def test_switches_of_the_contrast(build, make_data, changes):
    data = make_data(("text", "image", "pseudo_text", "pseudo_image"))
    one = losses(build(data=data, **STILL), data.inter_feat)
    two = losses(build(data=data, **STILL, **changes), data.inter_feat)
    if changes == {"pseudo": "none"}:
        assert len(two) == 1
        return
    assert bool(two[1].isfinite()) and two[1].item() != pytest.approx(one[1].item(), rel=1e-3)


@pytest.mark.parametrize("name", [name for name in STILL if name != "offset_dropout"])
def test_each_dropout_drops_in_training_only(build, make_data, name):
    data = make_data()
    model = build(data=data, **STILL | {name: 0.5}, w_con=0.0)
    one, two = (losses(model, data.inter_feat, seed)[0] for seed in (1, 2))
    assert not torch.equal(one, two)
    still = build(data=data, **STILL, w_con=0.0)
    assert torch.equal(*(losses(still, data.inter_feat, seed)[0] for seed in (1, 2)))
    assert torch.equal(evaluate(model, data.held_out_rows()), evaluate(model, data.held_out_rows()))


# What a run reports


@pytest.mark.parametrize("preset", ["sound", "official"])
def test_diagnostics_by_hand(build, make_data, preset):
    data = make_data(missing=(6, 9))
    model = build(preset, data).train()
    rows = data.held_out_rows()
    found = model.diagnostics(None, [(rows, None)])
    assert found["share_text"] == found["share_image"] == pytest.approx(9 / 11)
    assert found["share_price"] == pytest.approx(10 / 11)
    with torch.no_grad():
        tables = model.item_tables()
        query = model.encode(*model.inputs(rows), tables)
        apart = query[:, None, 8:] - tables["price"][None, 1:]
        distance = apart.square().sum(dim=-1).mean().item()
        pairs = [item for item in range(1, N_ITEMS) if item not in (6, 9)]
        left, right = model.content("text", torch.tensor(pairs)), model.pseudo["text"](pairs)
        if preset == "sound":
            right = model.contrast.maps["text"](right)
        cosine = torch.nn.functional.cosine_similarity(left, right)
        products = left @ right.T
        if preset == "sound":
            products = torch.nn.functional.normalize(left) @ torch.nn.functional.normalize(right).T
    assert found["price_distance"] == pytest.approx(distance, rel=1e-4)
    assert found["text_cosine"] == pytest.approx(cosine.mean().item(), rel=1e-4, abs=1e-6)
    hits = (products.argmax(dim=1) == torch.arange(len(pairs))).float().mean().item()
    assert found["text_retrieval@1"] == pytest.approx(hits)
    assert ("price_gamma" in found) == (preset == "sound")


def test_diagnostics_of_what_is_there(build, make_data):
    data = make_data(("text",), price=False)
    found = build(data=data).diagnostics(None, [(data.held_out_rows(), None)])
    assert found == {"share_text": pytest.approx(10 / 11), "share_price": 0.0, "repeat_bias": 0.0}
