"""What SRIM's released code does: its losses by definition and by hand, its graph, its dropout."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch

from recbole_mm.graph.cooccurrence import cooccurrence
from recbole_mm.model.srim.official import (
    OfficialLeakySRIM,
    OfficialSRIM,
    align_released,
    first_strangers,
)
from recbole_mm.model.srim.terms import Step


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def counted(lists, n_items):
    """Pairs of positions with different items."""
    counts = np.zeros((n_items, n_items))
    for one in lists:
        for a in one:
            for b in one:
                counts[a, b] += a != b
    return counts


def listed(counts, item, length=3):
    """The most frequent partners of an item and their counts, by count and then by id."""
    partners = [k for k in range(len(counts)) if counts[item, k]]
    partners = sorted(partners, key=lambda k: (-counts[item, k], k))[:length]
    return partners, [counts[item, k] for k in partners]


def cos(x, y):
    x, y = np.asarray(x), np.asarray(y)
    return x @ y / (np.linalg.norm(x) * np.linalg.norm(y))


def test_presets_are_classes_of_their_own(build):
    assert type(build("official")) is OfficialSRIM
    assert type(build("official_leaky")) is OfficialLeakySRIM


def test_the_leaky_preset_differs_from_the_official_one_by_its_class_only(settings):
    assert settings(preset="official") == settings(preset="official_leaky")


def test_both_tables_are_free_and_hold_all_parameters_of_the_items(build):
    tables = build("official").tables
    assert tables["id"].weight.shape == tables["content"].weight.shape == (9, 4)


# Graph


def test_pairs_of_positions_are_counted(build, dataset):
    ours = build("official").graph.counts.toarray()
    np.testing.assert_array_equal(ours, counted(dataset.train, dataset.item_num))
    assert ours[2, 4] == 2


def test_the_leaky_graph_holds_targets_and_says_so(build, caplog):
    with caplog.at_level(logging.WARNING):
        honest = build("official")
        assert not caplog.text
        leaky = build("official_leaky")
    assert leaky.leaky and "NOT those of an honest run" in caplog.text
    assert leaky.graph.counts[3, 4] == 1 and leaky.graph.counts[4, 8] == 1
    assert honest.graph.counts[3, 4] == 0 and not honest.leaky


# Alignment


@pytest.mark.parametrize(
    ("b", "a1", "c", "a2", "total"),
    [
        (0, 0, 0, 0, 1.216395),
        (1, 0, 1, 0, 1.645214),
        (0, 1, 0, 1, 1.501946),
        (0.5, 0.25, -0.5, 0.1, 1.273091),
    ],
)
def test_the_released_alignment_by_hand(b, a1, c, a2, total):
    loss = align_released(column(b), column(a1), column(c), column(a2))
    assert loss.item() == pytest.approx(total, abs=1e-6)


def test_the_released_alignment_gradient_at_zero():
    slots = [column(0).requires_grad_() for _ in range(4)]
    align_released(*slots).sum().backward()
    assert [x.grad.item() for x in slots] == pytest.approx([1 / 6, -1 / 6, 1 / 6, 1 / 3])


def test_the_call_of_the_alignment_mixes_the_slots_up(build, dataset, encoded, parts):
    model = build("official", w_align=1.0)
    rows = dataset.inter_feat
    _, sessions = encoded(model, rows)
    (p_id, q_id), (p_content, q_content) = sessions["id"], sessions["content"]
    s1, s2, s3, s4 = q_id, q_content, p_id, p_content
    maps = model.terms["align"].maps

    def e_like(left, x, right, y):
        return torch.cosine_similarity(maps[left](x), maps[right](y), dim=1).exp()

    b, a1 = e_like("1", s1, "2", s2), e_like("3", s1, "4", s3)
    c, a2 = e_like("4", s3, "5", s4), e_like("7", s3, "8", s1)
    expected = (
        ((1 + a1 + b) / (1 + b)).log()
        + ((1 + a2 + c) / (1 + c)).log()
        + ((1 + b + c) / (1 + a1)).log()
    )
    assert maps["3"].bias is not None
    torch.testing.assert_close(parts(model, rows)["align"], expected.sum())


# Joint inference


def test_joint_inference_by_definition(build, dataset, encoded, parts):
    model = build("official", w_joint=0.5, n_neighbors=1)
    rows, counts = dataset.inter_feat, counted(dataset.train, dataset.item_num)
    tables, sessions = encoded(model, rows)
    total, flags = 0.0, []
    for row in range(len(rows)):
        inputs = [i for i in rows["item_id_list"][row].tolist() if i]
        target = int(rows["item_id"][row])
        flags.append(any(target in listed(counts, item, 1)[0] for item in inputs))
        likes = []
        for branch in ("id", "content"):
            before = tables[branch][target - 1].tolist()
            # Item 0, before the first one, is the zero vector.
            vector = sessions[branch].after[row].tolist()
            likes.append(cos(vector, before) if target > 1 else 0.0)
        j_id, j_content = (math.log(sum(map(math.exp, likes))) - like for like in likes)
        total -= j_id + j_content / 2 if flags[-1] else j_content + j_id / 2
    assert True in flags and False in flags and 1 in rows["item_id"]
    assert parts(model, rows)["joint"].item() == pytest.approx(0.5 * total, rel=1e-4)


def test_flags_by_lists(build):
    term = build("official", n_neighbors=1).terms["joint"]
    # One partner each, the most frequent one with the lowest id: 3-1, 4-2, 2-1, 7-5, 5-1.
    item_seq = torch.tensor([[3, 0], [4, 7], [4, 0], [2, 5]])
    step = Step(item_seq, torch.tensor([1, 5, 1, 3]), torch.zeros(4).long(), {}, {})
    assert term.flag(step).tolist() == [True, True, False, False]


# Co-occurrence


def test_cooccurrence_loss_by_definition(build, dataset, encoded, parts):
    model = build("official", w_co=2.0)
    rows, n_items = dataset.inter_feat, dataset.item_num
    table = encoded(model, rows)[0]["id"].detach().double().numpy()
    counts = counted(dataset.train, n_items)
    total = 0.0
    for item in range(1, n_items):
        near, share = listed(counts, item)
        far = [k for k in range(1, n_items) if not counts[item, k] and k != item][:3]
        mean = sum(s * table[k] for s, k in zip(share, near, strict=True))
        # Item 8 has no partners.
        pos = cos(table[item], mean) if near else 0.0
        total += math.log10(math.exp(pos) + sum(math.exp(cos(table[item], table[k])) for k in far))
        total -= math.log10(math.exp(pos))
    assert not listed(counts, 8)[0]
    assert parts(model, rows)["co"].item() == pytest.approx(2 * total, rel=1e-4)


def test_first_strangers_equal_going_through_all_items(make_dataset):
    rng = np.random.default_rng(4)
    lists = [rng.integers(1, 25, rng.integers(2, 7)).tolist() for _ in range(90)]
    counts = cooccurrence(make_dataset(lists, 25).train_sessions, 25)
    ids = first_strangers(counts, 18)
    for row in range(1, 25):
        dense = counts[row].toarray().ravel()
        free = [c for c in range(1, 25) if dense[c] == 0 and c != row][:18]
        assert ids[row].tolist() == free + [0] * (18 - len(free))
    assert not ids[0].any() and (ids[1:] == 0).any()


# Dropout


def test_dropout_in_the_first_epoch_only(build):
    def shares(model):
        return [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]

    model = build("official")
    for epoch, expected in ((0, [0.3, 0.2, 0.2]), (1, [0.0] * 3), (0, [0.3, 0.2, 0.2])):
        model.start_epoch(epoch)
        assert shares(model) == expected
    assert not hasattr(build(), "start_epoch") and shares(build()) == [0.3, 0.2, 0.2]
