"""The losses of SRIM inside the model, by their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_mm.model import losses as shared
from recbole_mm.model.srim import losses
from recbole_mm.model.srim.terms import CooccurrenceContrast, Step


def test_main_loss_leaves_padding_out(build, dataset, evaluate, parts):
    model = build(w_align=0, w_joint=0, w_co=0)
    rows = dataset.inter_feat
    scores = evaluate(model, rows)
    assert model.loss_names == ("main",)
    expected = shared.softmax_ce(scores, rows["item_id"]).mean()
    torch.testing.assert_close(parts(model, rows)["main"], expected)
    printed = build(w_align=0, w_joint=0, w_co=0, main_loss="bce_softmax").eval()
    expected = losses.bce_softmax(scores, rows["item_id"]).mean()
    torch.testing.assert_close(parts(printed, rows)["main"], expected)


def test_alignment_contrasts_the_branches_after_attention(build, dataset, encoded, parts):
    model = build(w_align=0.5, align_temperature=0.3)
    rows = dataset.inter_feat
    _, sessions = encoded(model, rows)
    maps = model.terms["align"].maps
    left, right = (maps[b](sessions[b].after) for b in ("id", "content"))
    expected = 0.5 * losses.align_infonce(left, right, rows["item_id"], 0.3).mean()
    assert maps["id"].bias is None
    torch.testing.assert_close(parts(model, rows)["align"], expected)


def test_alignment_of_bounded_parts(build, dataset, encoded, parts):
    rows = dataset.inter_feat
    bounded = build(align_rows=len(rows) // 2, w_align=1.0)  # an odd row makes a third part
    n = -(-len(rows) // (len(rows) // 2))
    _, sessions = encoded(bounded, rows)
    maps = bounded.terms["align"].maps
    left, right = (maps[b](sessions[b].after) for b in ("id", "content"))
    each = [
        losses.align_infonce(left[one::n], right[one::n], rows["item_id"][one::n], 0.1)
        for one in range(n)
    ]
    found = parts(bounded, rows)["align"]
    torch.testing.assert_close(found, torch.cat(each).mean())
    assert max(map(len, each)) <= bounded.settings.align_rows
    whole = parts(build(align_rows=len(rows), w_align=1.0), rows)["align"]
    torch.testing.assert_close(whole, parts(build(w_align=1.0), rows)["align"])
    assert abs(float(whole.detach() - found.detach())) > 1e-3


def test_the_papers_alignment_compares_the_stated_pairs(build, dataset, encoded, parts):
    model = build(align="paper", w_align=1.0)
    rows = dataset.inter_feat
    _, sessions = encoded(model, rows)
    (p_id, q_id), (p_content, q_content) = sessions["id"], sessions["content"]
    maps = model.terms["align"].maps

    def e_like(left, x, right, y):
        return torch.cosine_similarity(maps[left](x), maps[right](y), dim=1).exp()

    b, c = e_like("1", p_id, "2", q_id), e_like("5", p_content, "6", q_content)
    a = e_like("3", p_id, "4", p_content)
    expected = (1 + a / (1 + b)).log() + (1 + a / (1 + c)).log() + (1 + (b + c) / (1 + a)).log()
    assert maps["3"].bias is None
    torch.testing.assert_close(parts(model, rows)["align"], expected.mean())


def test_joint_inference_by_definition(build, dataset, encoded, parts):
    model = build(w_joint=0.5)
    rows, train = dataset.inter_feat, dataset.train
    tables, sessions = encoded(model, rows)
    total, flags = [], []
    for row in range(len(rows)):
        inputs = [i for i in rows["item_id_list"][row].tolist() if i]
        target, own = int(rows["item_id"][row]), int(rows["session_id"][row]) - 1
        others = train[:own] + train[own + 1 :]
        flag = any(
            target in one and item in one for one in others for item in inputs if item != target
        )
        likes = [
            torch.cosine_similarity(
                sessions[branch].before[row], tables[branch][target], dim=0
            ).item()
            for branch in ("id", "content")
        ]
        j_id, j_content = (math.log(sum(map(math.exp, likes))) - like for like in likes)
        total.append(j_id + j_content / 2 if flag else j_content + j_id / 2)
        flags.append(flag)
    assert True in flags and False in flags
    assert parts(model, rows)["joint"].item() == pytest.approx(0.5 * np.mean(total), rel=1e-4)


def cos(x, y):
    return x @ y / (np.linalg.norm(x) * np.linalg.norm(y))


@pytest.mark.parametrize("form", ["infonce", "ratio"])
@pytest.mark.parametrize("weight", ["count", "uniform"])
def test_cooccurrence_loss_by_definition(build, dataset, encoded, parts, form, weight):
    model = build(co=form, co_pos_weight=weight, co_samples=0, w_co=2.0)
    rows, n_items = dataset.inter_feat, dataset.item_num
    table = encoded(model, rows)[0]["id"].detach().double().numpy()
    counts = np.zeros((n_items, n_items))
    for one in dataset.train:
        for a in set(one):
            for b in set(one):
                counts[a, b] += a != b
    far = {
        item: [k for k in range(1, n_items) if not counts[item, k] and k != item][:2]
        for item in range(1, 8)
    }

    def strangers(anchors):
        # The third is a gap.
        ids = torch.tensor([[*far[item], 1] for item in anchors.tolist()])
        return ids, torch.tensor([[True, True, False]]).expand_as(ids)

    model.terms["co"].strangers = strangers
    values = []
    for item in range(1, 8):
        near = sorted(
            (k for k in range(1, n_items) if counts[item, k]), key=lambda k: (-counts[item, k], k)
        )[:3]
        share = [counts[item, k] if weight == "count" else 1.0 for k in near]
        mean = sum(s * table[k] for s, k in zip(share, near, strict=True)) / sum(share)
        pos, neg = cos(table[item], mean), np.array([cos(table[item], table[k]) for k in far[item]])
        contrast = math.log(math.exp(pos) + np.exp(neg).sum()) - pos
        values.append(contrast if form == "infonce" else -pos / neg.sum())
    assert parts(model, rows)["co"].item() == pytest.approx(2 * np.mean(values), rel=1e-4)


def test_strangers_never_met_the_anchor(build, dataset):
    term = build().terms["co"]
    ids, valid = term.strangers(torch.tensor([1, 4]))
    assert ids.shape == valid.shape == (2, 3) and bool(valid.all())
    met = {1: {1, 2, 3, 5, 6}, 4: {4, 2}}
    assert not met[1] & set(ids[0].tolist()) and not met[4] & set(ids[1].tolist())


def test_anchors_are_the_batch_and_samples_all_with_partners(build):
    item_seq, target = torch.tensor([[1, 2, 0], [2, 8, 0]]), torch.tensor([3, 1])

    def anchors(n_samples):
        torch.manual_seed(0)
        step = Step(item_seq, target, torch.tensor([1, 2]), {}, {})
        return build(co_samples=n_samples).terms["co"].anchors(step).tolist()

    assert anchors(0) == [1, 2, 3]
    sampled = anchors(400)
    assert sampled[:3] == [1, 2, 3] and set(sampled) == set(range(1, 8))


def test_a_step_without_any_anchor_loses_nothing(build, make_dataset, dataset):
    lone = make_dataset([[1, 1], [2, 2]], dataset.item_num)
    model = build(data=lone, branches="id", w_co=1.0)
    main, co = model.calculate_loss(lone.inter_feat)
    (main + co).backward()
    assert co.item() == 0 and bool(main.isfinite())


def test_without_both_branches_only_what_makes_sense_remains(build):
    assert build().loss_names == ("main", "align", "joint", "co")
    assert build(branches="id").loss_names == ("main", "co")
    assert build(branches="content").loss_names == ("main",)
    assert build(w_co=0).loss_names == ("main", "align", "joint")
    assert build(w_align=0, w_joint=0).loss_names == ("main", "co")


@pytest.mark.parametrize("weight", ["count", "uniform"])
def test_weights_of_partners_sum_to_one(build, weight):
    modules = build(co_pos_weight=weight).modules()
    found = next(one for one in modules if isinstance(one, CooccurrenceContrast))
    has_partners = found.neighbours[:, 0] != 0
    torch.testing.assert_close(found.weight.sum(dim=1), has_partners.float())
    # Item 1 met 2 and 3 twice, 5 and 6 once; the three heaviest are kept.
    by_hand = [0.4, 0.4, 0.2] if weight == "count" else [1 / 3] * 3
    assert found.weight[1].tolist() == pytest.approx(by_hand)
