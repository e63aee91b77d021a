"""MMSBR as a whole: item vectors, scores, caches, losses, and that every switch does something."""

from __future__ import annotations

import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_mm.model.losses import softmax_ce, without_own_items

DROPOUTS = ("dropout_tokens", "dropout_encoder", "dropout_fusion", "dropout_price")


# Pivots


def test_new_items_have_no_offset(build):
    model = build(still=True).eval()
    before = model.item_tables()["candidates"]
    with torch.no_grad():
        model.pivots.offset[11] += 5.0
    assert torch.equal(model.item_tables()["candidates"], before)
    with torch.no_grad():
        model.pivots.offset[10] += 5.0
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


# Scores


@pytest.mark.parametrize("preset", ["sound", "official", "no_price"])
def test_parts_and_single_scores_agree(build, make_data, preset):
    data = make_data()
    model = build(preset, data).eval()
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


def test_repeat_bias_moves_the_items_of_the_session_alone(build, make_data, evaluate, losses):
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


@torch.no_grad()
def test_ids_behind_the_end_of_a_session_do_not_count(build, make_data, evaluate):
    data = make_data()
    model = build(data=data)
    model.repeat_bias.fill_(-2.0)
    sessions = torch.tensor([[1, 3, 0], [2, 0, 0], [1, 3, 4]])
    rows = {"item_length": torch.tensor([2, 1, 3]), "item_id": torch.tensor([4, 4, 5])}
    clean = Interaction({**rows, "item_id_list": sessions})
    soiled = sessions.clone()
    soiled[:2, 2], soiled[1, 1] = 4, 4
    soiled = Interaction({**rows, "item_id_list": soiled})
    assert torch.equal(evaluate(model, soiled), evaluate(model, clean))
    assert torch.equal(model.predict(soiled), model.predict(clean))


@pytest.mark.parametrize("own", ["keep", "mask"])
@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_the_loss_is_that_of_the_scores(build, make_data, own, score):
    """Its gradient too, though it is made of one product and the scores of several parts."""
    data = make_data()
    model, rows = (
        build(data=data, score=score, train_own_items=own, w_con=0).eval(),
        data.inter_feat,
    )
    with torch.no_grad():
        model.repeat_bias.fill_(0.7)
    (found,) = model.calculate_loss(rows)
    scores = model.full_sort_predict(rows)
    if own == "mask":
        scores = without_own_items(scores, rows["item_id_list"], rows["item_id"])
    expected = softmax_ce(scores, rows["item_id"]).mean()
    torch.testing.assert_close(found, expected)
    weights = dict(model.named_parameters())
    left, right = (
        torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for loss in (found, expected)
    )
    for name, one, other in zip(weights, left, right, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6, msg=name)


def test_item_vectors_are_made_once_per_evaluation(build, make_data, evaluate, losses, monkeypatch):
    data, calls = make_data(), []
    model, rows = build(data=data), data.held_out_rows()
    original = model.item_vectors
    monkeypatch.setattr(model, "item_vectors", lambda part: calls.append(1) or original(part))
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


def test_a_column_of_padding_changes_nothing(build, make_data, evaluate):
    data = make_data()
    model, rows = build(data=data), data.held_out_rows()
    wide = rows["item_id_list"]
    one = evaluate(model, rows)
    rows["item_id_list"] = torch.cat([wide, torch.zeros_like(wide)], dim=1)
    torch.testing.assert_close(evaluate(model, rows), one)


@pytest.mark.parametrize("preset", ["sound", "official"])
def test_chunks_give_the_same_scores_and_gradients(build, make_data, evaluate, losses, preset):
    data = make_data()
    found = []
    for chunk in (0, 4):
        model = build(preset, data, item_chunk=chunk, still=True)
        sum(losses(model, data.inter_feat)).backward()
        grads = {name: p.grad for name, p in model.named_parameters()}
        found.append((grads, evaluate(model, data.held_out_rows())))
    torch.testing.assert_close(found[0][1], found[1][1])
    for name, grad in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], grad, rtol=1e-3, atol=1e-5, msg=name)


def test_chunks_repeat_their_dropout(build, make_data, losses):
    """Recomputed parts must drop what they dropped at first, or gradients belong to nothing."""
    data = make_data()
    whole = build(data=data, item_chunk=4, w_con=0.0)
    loss = sum(losses(whole, data.inter_feat))
    step = 1e-3
    (slope,) = torch.autograd.grad(loss, whole.head.second.bias)
    with torch.no_grad():
        whole.head.second.bias += step * slope / slope.norm()
    gained = sum(losses(whole, data.inter_feat)) - loss
    assert gained.item() / step == pytest.approx(slope.norm().item(), rel=0.05)


# Training


def test_losses_by_name(build, make_data, losses):
    data = make_data()
    main, con = losses(build(data=data, still=True), data.inter_feat)
    twice = losses(build(data=data, w_con=0.2, still=True), data.inter_feat)
    assert twice[0].item() == main.item()
    assert twice[1].item() == pytest.approx(0.2 * con.item() / build().settings.w_con)
    none = build(data=data, w_con=0.0)
    assert len(losses(none, data.inter_feat)) == 1 and none.contrast is None
    assert not [name for name, _ in none.named_parameters() if "pseudo" in name]


def test_padding_is_no_candidate(build, make_data, evaluate, losses):
    data = make_data()
    model = build(data=data, w_con=0.0, still=True)
    scores = evaluate(model, data.inter_feat)
    expected = torch.nn.functional.cross_entropy(scores, data.inter_feat["item_id"])
    assert losses(model, data.inter_feat)[0].item() == pytest.approx(expected.item(), rel=1e-5)


# Every switch does something

SWITCHES = [
    {"use_text": False},
    {"use_image": False},
    {"use_price": False},
    {"use_category": False},
    {"pca_dim": 2},
    {"pca_dim": 0},
    {"n_tokens": 3},
    {"n_pivots": 3},
    {"n_rounds": 2},
    {"n_heads": 4},
    {"inner_size": 8},
    {"pivot_scope": "item"},
    {"pivot_scope": "shared"},
    {"fusion": "concat_mlp"},
    {"repeat_bias": False},
    {"price_levels": 3},
    {"price_repr": "point"},
    {"price_attention": "dot"},
]


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_switches_of_the_scores(build, make_data, evaluate, changes):
    data = make_data()
    models = [build(data=data, **keys) for keys in ({}, changes)]
    for model in models:  # norms and biases that start alike must not hide a switch
        torch.manual_seed(5)
        for name, weight in model.named_parameters():
            if weight.ndim < 2 or "tables" in name:
                torch.nn.init.normal_(weight, 0.3, 0.3)
    one, two = (evaluate(model, data.held_out_rows())[:, 1:] for model in models)
    assert bool(two.isfinite().all()) and not torch.allclose(one, two, rtol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [{"pseudo": "files"}, {"contrast_tau": 1.0}, {"contrast_sample": 0}, {"contrast_sample": 3}],
    ids=str,
)
def test_switches_of_the_contrast(build, make_data, losses, changes):
    data = make_data(("text", "image", "pseudo_text", "pseudo_image"))
    one = losses(build(data=data, still=True), data.inter_feat)
    two = losses(build(data=data, still=True, **changes), data.inter_feat)
    assert bool(two[1].isfinite()) and two[1].item() != pytest.approx(one[1].item(), rel=1e-3)


@pytest.mark.parametrize("name", DROPOUTS)
def test_each_dropout_drops_in_training_only(build, make_data, evaluate, losses, name):
    data = make_data()
    quiet = dict.fromkeys((*DROPOUTS, "offset_dropout"), 0.0)
    model = build(data=data, **quiet | {name: 0.5}, w_con=0.0)
    one, two = (losses(model, data.inter_feat, seed)[0] for seed in (1, 2))
    assert not torch.equal(one, two)
    still = build(data=data, **quiet, w_con=0.0)
    assert torch.equal(*(losses(still, data.inter_feat, seed)[0] for seed in (1, 2)))
    assert torch.equal(evaluate(model, data.held_out_rows()), evaluate(model, data.held_out_rows()))
