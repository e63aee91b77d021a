"""AlterRec as a whole: an independent derivation of scores and losses, its turns, its switches."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch

from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.alterrec.model import AlterRec

N_ITEMS = 9
RELEASED = {"parameter_init": "uniform"}
STILL = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
# Epochs of the schedule with warmup_epochs 4 and alternation_epochs 2.
ID_WARM, TEXT_WARM, ID_HARD, TEXT_HARD = 0, 2, 4, 6


def predicted(model, rows):
    with torch.no_grad():
        return model.eval().full_sort_predict(rows)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"id_session_encoder": "mean"},
        {"text_session_encoder": "mean"},
        {"n_layers": 1, "n_heads": 1, "fusion_weight": 0.8},
    ],
)
def test_scores_by_an_independent_derivation(build, dataset, alone, changes):
    model = build(**RELEASED, **changes)
    rows = dataset.held_out_rows()
    derived = alone(model, dataset, rows)
    alpha = changes.get("fusion_weight", 0.5)
    found = predicted(model, rows)
    assert found.shape == (len(rows), N_ITEMS)
    assert bool((found[:, 0] == -math.inf).all())
    expected = alpha * derived["id"] + (1 - alpha) * derived["text"]
    np.testing.assert_allclose(found[:, 1:].numpy(), expected, rtol=1e-3, atol=1e-3)
    apart = model.score_parts(rows)
    assert list(apart) == ["id", "text"]
    for name, scores in apart.items():
        assert bool((scores[:, 0] == -math.inf).all())
        np.testing.assert_allclose(scores[:, 1:].numpy(), derived[name], rtol=1e-3, atol=1e-3)


# An independent derivation of the losses without chance


def np_softmax_loss(scores, positive, negatives):
    total = math.log(sum(math.exp(scores[item] - scores.max()) for item in negatives))
    return math.log1p(math.exp(total + scores.max() - scores[positive]))


@pytest.mark.parametrize(("epoch", "student"), [(ID_HARD, "id"), (TEXT_HARD, "text")])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_hard_loss_by_an_independent_derivation(
    build, dataset, alone, epoch, student, reduction
):
    model = build(
        **RELEASED, **STILL,
        hard_negative_ratio=1.0,
        positive_augmentation=True,
        num_augmented_positives=3,
        augmentation_weight=0.25,
        augmentation_reduction=reduction,
    )  # fmt: skip
    model.train().start_epoch(epoch)
    rows = dataset.inter_feat
    derived = alone(model, dataset, rows)
    own, other = derived[student], derived["text" if student == "id" else "id"]
    main, borrowed = [], []
    for row, target in enumerate(rows["item_id"].numpy() - 1):
        order = sorted(range(N_ITEMS - 1), key=lambda item: -other[row][item])
        # Ranks 2 to 6; the borrowed items of ranks 2 and 3 stand in this window themselves.
        negatives = [item for item in order[1:6] if item != target]
        main.append(np_softmax_loss(own[row], target, negatives))
        for item in order[:3]:
            others = [one for one in negatives if one != item]
            borrowed.append(np_softmax_loss(own[row], item, others))
    added = np.mean(borrowed) if reduction == "mean" else sum(borrowed) / len(rows)
    found = [part.item() for part in model.calculate_loss(rows)]
    assert model.loss_names == ("main", "augmented")
    assert found[0] == pytest.approx(np.mean(main), rel=1e-3)
    assert found[1] == pytest.approx(0.25 * added, rel=1e-3)


@pytest.mark.parametrize(("epoch", "student"), [(ID_HARD, "id"), (TEXT_HARD, "text")])
def test_the_full_loss_is_a_softmax_over_all_items(build, dataset, alone, epoch, student):
    model = build(**RELEASED, **STILL, negative_sampling="full")
    model.train().start_epoch(epoch)
    rows = dataset.inter_feat
    own = torch.from_numpy(alone(model, dataset, rows)[student])
    expected = torch.nn.functional.cross_entropy(own, rows["item_id"] - 1)
    assert model.calculate_loss(rows).item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize(("epoch", "lender"), [(ID_HARD, "text"), (TEXT_HARD, "id")])
def test_the_other_branch_lends_its_best_items(build, dataset, epoch, lender):
    model = build(positive_augmentation=True, num_augmented_positives=2)
    model.train().start_epoch(epoch)
    rows = dataset.inter_feat
    item_seq, lengths = model.inputs(rows)
    lent = model._borrow(item_seq, lengths, model._teacher_scores(item_seq, lengths))
    # The lender evaluates meanwhile, so its scores have no dropout.
    assert torch.equal(lent, model.score_parts(rows)[lender][:, 1:].topk(2).indices + 1)


def test_without_a_teacher_nothing_is_borrowed(build, dataset):
    model = build(positive_augmentation=True)
    model.train().start_epoch(TEXT_WARM)
    main, added = model.calculate_loss(dataset.inter_feat)
    assert main.item() > 0
    assert added.item() == 0


@pytest.mark.parametrize(
    ("temperature", "alpha", "expected"),
    [
        (0.07, 0.5, [0.8571429, 0.9642857, 0.2428571]),
        (1.0, 0.5, [0.525, 0.300, 0.110]),
        (0.07, 0.8, [0.9428571, 0.6857143, 0.2171429]),
    ],
)
def test_fusion_by_hand(settings, make_dataset, temperature, alpha, expected):
    data = make_dataset([[1, 2]], 4, features={"text": torch.ones(4, 3)})
    changes = {"text_temperature": temperature, "fusion_weight": alpha, "id_temperature": 1.0}
    model = AlterRec(
        settings("AlterRec", "mean_mean", hidden_size=4, hard_negative_start_rank=1, **changes),
        data,
    ).eval()
    raw = {"id": [1.0, 0.5, 0.2], "text": [0.05, 0.10, 0.02]}
    for name, column in raw.items():
        table = torch.zeros(4, 4)
        table[1:, 0] = torch.tensor(column)
        # Session of item 1, whose vector is made the unit of the column.
        model.branches[name].items = Fixed(table / column[0])
        model.branches[name].temperature *= 1 / column[0]
    found = predicted(model, one_row([1]))[0]
    assert found[0] == -math.inf
    assert found[1:].tolist() == pytest.approx(expected, abs=1e-6)
    sweep = dict(model.score_variants(one_row([1])))
    assert list(sweep) == [f"fusion_weight=0.{n}" for n in range(1, 10)]
    assert sweep[f"fusion_weight={alpha}"][0, 1:].tolist() == pytest.approx(expected, abs=1e-6)
    assert sweep[f"fusion_weight={alpha}"][0, 0] == -math.inf


class Fixed(torch.nn.Module):
    """An item table as given."""

    def __init__(self, table):
        super().__init__()
        self.table = table

    def forward(self):
        return self.table


def one_row(session, target=2, width=6):
    item_seq = torch.zeros(1, width, dtype=torch.long)
    item_seq[0, : len(session)] = torch.tensor(session)
    return {
        "item_id_list": item_seq,
        "item_length": torch.tensor([len(session)]),
        "item_id": torch.tensor([target]),
    }


# Turns


@pytest.mark.parametrize(
    ("epoch", "student"),
    [(ID_WARM, "id"), (TEXT_WARM, "text"), (ID_HARD, "id"), (TEXT_HARD, "text")],
)
def test_only_the_branch_whose_turn_it_is_is_trained(build, dataset, epoch, student):
    model = build(positive_augmentation=True)
    model.start_epoch(epoch)
    model.train()
    assert model.training
    for name, branch in model.branches.items():
        assert {part.training for part in branch.modules()} == {name == student}
    sum(model.calculate_loss(dataset.inter_feat)).backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == name.startswith(f"branches.{student}."), name


def test_the_turn_changes_in_training_mode_too(build):
    model = build()
    model.train()
    model.start_epoch(TEXT_WARM)
    assert (model.branches.id.training, model.branches.text.training) == (False, True)
    model.eval()
    model.start_epoch(ID_HARD)
    assert (model.branches.id.training, model.branches.text.training) == (False, False)


def test_the_idle_branch_costs_nothing_but_as_teacher(build, dataset, monkeypatch):
    model, calls = build(), []
    for name, branch in model.branches.items():
        for what in ("table", "query"):
            original = getattr(branch, what)

            def noted(*args, _name=name, _what=what, _original=original):
                calls.append((_name, _what))
                return _original(*args)

            monkeypatch.setattr(branch, what, noted)

    def called_in(epoch):
        model.start_epoch(epoch)
        model.train()
        calls.clear()
        model.calculate_loss(dataset.inter_feat)
        return sorted(calls)

    own = {name: [(name, "query"), (name, "table")] for name in ("id", "text")}
    assert called_in(ID_WARM) == own["id"]
    assert called_in(TEXT_WARM) == own["text"]
    assert called_in(ID_HARD) == own["id"] + own["text"]
    # The teacher's table is made once for the block.
    assert called_in(ID_HARD + 1) == [*own["id"], ("text", "query")]
    assert called_in(TEXT_HARD) == own["id"] + own["text"]
    assert called_in(TEXT_HARD + 1) == [("id", "query"), *own["text"]]


def test_the_teachers_table_follows_loaded_weights_and_has_no_gradient(build, dataset):
    model, other = build(), build(seed=9)
    model.train().start_epoch(ID_HARD)
    item_seq, lengths = model.inputs(dataset.inter_feat)
    first = model._teacher_scores(item_seq, lengths)
    assert not first.requires_grad
    model.load_state_dict(other.state_dict())
    other.train().start_epoch(ID_HARD)
    second = model._teacher_scores(item_seq, lengths)
    assert torch.equal(second, other._teacher_scores(item_seq, lengths))
    assert not torch.equal(first, second)
    model.double()
    assert model._teacher is None


def test_padding_is_never_ranked(build, dataset):
    model = build().eval()
    model.start_epoch(ID_HARD)
    item_seq, lengths = model.inputs(dataset.inter_feat)
    teacher = model._teacher_scores(item_seq, lengths)
    assert teacher.shape == (len(item_seq), N_ITEMS)
    scores = model.score_parts(dataset.inter_feat)["text"]
    assert torch.allclose(teacher[:, 1:], scores[:, 1:], atol=1e-5)
    teacher[:, 0] = 99.0
    assert model.sampler.hard(teacher).min() > 0
    assert model.sampler.uniform(teacher).min() > 0


# Switches


@pytest.mark.parametrize("preset", ["no_text", "no_id"])
def test_a_single_branch(build, dataset, preset):
    model = build(preset)
    (name,) = model.branches
    assert name == {"no_text": "id", "no_id": "text"}[preset]
    rows = dataset.held_out_rows()
    assert list(model.score_parts(rows)) == [name]
    assert list(model.score_variants(rows)) == []
    assert torch.equal(predicted(model, rows), model.score_parts(rows)[name])
    assert model.settings.feature_files(("text", "image")) == (
        () if preset == "no_text" else ("text",)
    )
    for epoch in range(9):
        model.start_epoch(epoch)
        assert model.plan == (name, "uniform")


def test_no_text_needs_no_features(build, bare):
    assert predicted(build("no_text", bare), bare.held_out_rows()).shape == (3, N_ITEMS)
    with pytest.raises(FeatureError, match="encode --dataset=Tiny --modality=text"):
        build(data=bare)


def test_an_empty_window_is_refused(build):
    with pytest.raises(ConfigError, match="hard_negative_start_rank=9 lies behind"):
        build(hard_negative_start_rank=9, hard_negative_end_rank=50)


def test_a_rank_behind_the_catalogue_is_cut(build, caplog):
    caplog.set_level(logging.INFO, "recbole_mm")
    assert build(hard_negative_end_rank=20_000).sampler.window == (2, 8)
    assert "cut to the 8 items" in caplog.text


def test_own_items_are_no_negatives_where_they_are_struck_out(build, dataset):
    """The full loss is a softmax over the items that the row does not hold, and the target."""
    rows, quiet = dataset.inter_feat, {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    model = build(negative_sampling="full", train_own_items="mask", **quiet)
    model.start_epoch(0)
    with torch.no_grad():
        found = float(model.train().calculate_loss(rows))
        scores = model.eval().score_parts(rows)[model.plan.branch]
    losses = []
    for row, target, items in zip(scores, rows["item_id"], rows["item_id_list"], strict=True):
        kept = [j for j in range(1, N_ITEMS) if j == target or j not in items]
        losses.append(torch.logsumexp(row[kept], dim=0) - row[target])
    assert found == pytest.approx(float(torch.stack(losses).mean()), abs=1e-4)
