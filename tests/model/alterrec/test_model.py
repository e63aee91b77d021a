"""AlterRec as a whole: an independent derivation of scores and losses, its turns, its switches."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from recbole.model.layers import TransformerEncoder

from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.alterrec import branches as parts
from recbole_mm.model.alterrec.model import AlterRec

N_ITEMS = 9
TRAIN = [[1, 2, 3], [1, 2], [2, 2, 4], [5, 3, 6, 1], [7, 5]]
TEST = [[3, 4, 8], [6, 2]]
SMALL = {
    "hidden_size": 4, "inner_size": 6, "n_heads": 2, "n_layers": 2,
    "hard_negative_start_rank": 2, "hard_negative_end_rank": 6,
}  # fmt: skip
STILL = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
# Epochs of the schedule with warmup_epochs 4 and alternation_epochs 2.
ID_WARM, TEXT_WARM, ID_HARD, TEXT_HARD = 0, 2, 4, 6


@pytest.fixture
def dataset(make_dataset):
    torch.manual_seed(11)
    # Item 8 occurs in no training session; item 6 has no text.
    return make_dataset(TRAIN, N_ITEMS, TEST, {"text": torch.randn(N_ITEMS, 5)}, missing=[6])


@pytest.fixture
def build(settings, dataset):
    def make(preset="sound", data=None, seed=3, **changes):
        torch.manual_seed(seed)
        model = AlterRec(settings("AlterRec", preset, **{**SMALL, **changes}), data or dataset)
        # Larger than the first weights, so that order and masks matter.
        for weight in model.parameters():
            torch.nn.init.normal_(weight)
        model.branches.id.items.table.weight.data[0].zero_() if "id" in model.branches else None
        return model

    return make


def predicted(model, rows):
    with torch.no_grad():
        return model.eval().full_sort_predict(rows)


# An independent derivation of the scores, position by position and head by head, in NumPy


def np_norm(vector, weights, name, eps):
    spread = np.sqrt(((vector - vector.mean()) ** 2).mean() + eps)
    return (vector - vector.mean()) / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def np_linear(vector, weights, name):
    return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]


def np_items(name, weights, features, config):
    rows = [np.zeros(config["hidden_size"])]
    for item in range(1, N_ITEMS):
        if name == "id":
            row = weights["id.items.table.weight"][item]
        else:
            row = np.maximum(np_linear(features[item], weights, "text.items.project"), 0)
        if config["item_layer_norm"]:
            row = np_norm(row, weights, f"{name}.items.norm", 1e-5)
        rows.append(row)
    return np.stack(rows)


def np_attention(states, place, weights, name, heads):
    width = len(states[0]) // heads
    query = np_linear(states[place], weights, f"{name}.query")
    seen = range(place + 1)
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        keys = [np_linear(states[j], weights, f"{name}.key")[part] for j in seen]
        values = [np_linear(states[j], weights, f"{name}.value")[part] for j in seen]
        logits = np.array([query[part] @ key for key in keys]) / math.sqrt(width)
        share = np.exp(logits - logits.max())
        mixed.append(sum(s * v for s, v in zip(share / share.sum(), values, strict=True)))
    out = np_linear(np.concatenate(mixed), weights, f"{name}.dense")
    return np_norm(out + states[place], weights, f"{name}.LayerNorm", 1e-6)


def np_session(name, session, table, weights, config):
    vectors = [table[item] for item in session]
    if config[f"{name}_session_encoder"] == "mean":
        return sum(vectors) / len(vectors)
    base = f"{name}.session."
    states = [
        np_norm(vector + weights[f"{base}positions.weight"][place], weights, f"{base}norm", 1e-6)
        for place, vector in enumerate(vectors)
    ]
    for layer in range(config["n_layers"]):
        block = f"{base}encoder.layer.{layer}."
        attended = [
            np_attention(states, i, weights, f"{block}multi_head_attention", config["n_heads"])
            for i in range(len(states))
        ]
        states = []
        for one in attended:
            inner = np.maximum(np_linear(one, weights, f"{block}feed_forward.dense_1"), 0)
            out = np_linear(inner, weights, f"{block}feed_forward.dense_2")
            states.append(np_norm(out + one, weights, f"{block}feed_forward.LayerNorm", 1e-6))
    return states[-1]


def np_scores(model, data, sessions):
    """Return each branch's scores of items 1 to 8, ``{"id": (B, V), "text": (B, V)}``."""
    weights = {
        name.removeprefix("branches."): value.double().numpy()
        for name, value in model.state_dict().items()
    }
    features = data.item_features.table("text").double().numpy()
    config, found = model.settings, {}
    for name, temperature in (("id", 1.0), ("text", 0.07)):
        table = np_items(name, weights, features, config)
        queries = [np_session(name, one, table, weights, config) for one in sessions]
        found[name] = np.stack([table[1:] @ query / temperature for query in queries])
    return found


def sessions_of(rows):
    pairs = zip(rows["item_id_list"].tolist(), rows["item_length"].tolist(), strict=True)
    return [items[:length] for items, length in pairs]


RELEASED = {"parameter_init": "uniform"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"id_session_encoder": "mean"},
        {"text_session_encoder": "mean", "item_layer_norm": False},
        {"n_layers": 1, "n_heads": 1, "fusion_weight": 0.8},
    ],
)
def test_scores_by_an_independent_derivation(build, dataset, changes):
    model = build(**RELEASED, **changes)
    rows = dataset.held_out_rows()
    alone = np_scores(model, dataset, sessions_of(rows))
    alpha = changes.get("fusion_weight", 0.5)
    found = predicted(model, rows)
    assert found.shape == (len(rows), N_ITEMS)
    assert bool((found[:, 0] == -math.inf).all())
    expected = alpha * alone["id"] + (1 - alpha) * alone["text"]
    np.testing.assert_allclose(found[:, 1:].numpy(), expected, rtol=1e-3, atol=1e-3)
    apart = model.score_parts(rows)
    assert list(apart) == ["id", "text"]
    for name, scores in apart.items():
        assert bool((scores[:, 0] == -math.inf).all())
        np.testing.assert_allclose(scores[:, 1:].numpy(), alone[name], rtol=1e-3, atol=1e-3)


# An independent derivation of the losses without chance


def np_window(teacher, first, last):
    order = sorted(range(len(teacher)), key=lambda item: -teacher[item])
    return order[first - 1 : last], order


def np_softmax_loss(scores, positive, negatives):
    total = math.log(sum(math.exp(scores[item] - scores.max()) for item in negatives))
    return math.log1p(math.exp(total + scores.max() - scores[positive]))


@pytest.mark.parametrize(("epoch", "student"), [(ID_HARD, "id"), (TEXT_HARD, "text")])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("exclude", [False, True])
def test_the_hard_loss_by_an_independent_derivation(
    build, dataset, epoch, student, reduction, exclude
):
    model = build(
        **RELEASED, **STILL,
        hard_negative_sampling="window",
        hard_negative_ratio=1.0,
        positive_augmentation=True,
        num_augmented_positives=2,
        augmentation_weight=0.25,
        augmentation_reduction=reduction,
        augmentation_exclude_target=exclude,
    )  # fmt: skip
    model.train().start_epoch(epoch)
    rows = dataset.inter_feat
    alone = np_scores(model, dataset, sessions_of(rows))
    own, other = alone[student], alone["text" if student == "id" else "id"]
    main, borrowed = [], []
    for row, target in enumerate(rows["item_id"].numpy() - 1):
        window, order = np_window(other[row], 2, 6)
        negatives = [item for item in window if item != target]
        main.append(np_softmax_loss(own[row], target, negatives))
        kept = [item for item in order[:2] if not (exclude and item == target)]
        borrowed.append([np_softmax_loss(own[row], item, negatives) for item in kept])
    flat = [term for terms in borrowed for term in terms]
    added = np.mean(flat) if reduction == "mean" else sum(flat) / len(rows)
    found = [part.item() for part in model.calculate_loss(rows)]
    assert model.loss_names == ("main", "augmented")
    assert found[0] == pytest.approx(np.mean(main), rel=1e-3)
    assert found[1] == pytest.approx(0.25 * added, rel=1e-3)


@pytest.mark.parametrize(("epoch", "student"), [(ID_HARD, "id"), (TEXT_HARD, "text")])
def test_the_full_loss_is_a_softmax_over_all_items(build, dataset, epoch, student):
    model = build(**RELEASED, **STILL, negative_sampling="full")
    model.train().start_epoch(epoch)
    rows = dataset.inter_feat
    own = torch.from_numpy(np_scores(model, dataset, sessions_of(rows))[student])
    expected = torch.nn.functional.cross_entropy(own, rows["item_id"] - 1)
    assert model.calculate_loss(rows).item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_sessions_items_can_be_struck_out(build, dataset):
    model = build(**RELEASED, **STILL, negative_sampling="full", mask_history_negatives=True)
    model.train()
    rows = dataset.inter_feat
    own = np_scores(model, dataset, sessions_of(rows))["id"]
    losses = []
    for row, session in enumerate(sessions_of(rows)):
        target = int(rows["item_id"][row]) - 1
        struck = {item - 1 for item in session} | {target}
        others = [item for item in range(N_ITEMS - 1) if item not in struck]
        losses.append(np_softmax_loss(own[row], target, others))
    assert model.calculate_loss(rows).item() == pytest.approx(np.mean(losses), rel=1e-3)


@pytest.mark.parametrize(
    ("source", "epoch", "lender"),
    [
        ("other", ID_HARD, "text"), ("other", TEXT_HARD, "id"),
        ("self", ID_HARD, "id"), ("self", TEXT_HARD, "text"),
        ("id", ID_HARD, "id"), ("id", TEXT_HARD, "id"),
    ],
)  # fmt: skip
def test_who_lends_the_positives(build, dataset, source, epoch, lender):
    model = build(positive_augmentation=True, augmentation_source=source)
    model.start_epoch(epoch)
    teacher, own = torch.zeros(1, 3), torch.ones(1, 3, requires_grad=True)
    lent = model._lender(own, teacher)
    student = model.plan.branch
    assert (lent.sum().item() == 0) == (lender != student)
    assert not lent.requires_grad


def test_without_a_teacher_nothing_is_borrowed(build, dataset):
    model = build(positive_augmentation=True)
    model.train().start_epoch(TEXT_WARM)
    main, added = model.calculate_loss(dataset.inter_feat)
    assert main.item() > 0
    assert added.item() == 0


# Hand-computed numbers


def test_mean_session_and_item_norm():
    vectors = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [9.0, 9.0]]])
    query = parts.MeanSession()(vectors, torch.tensor([2]))
    assert query.tolist() == [[1.0, 0.5]]
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert (query @ table.T).tolist() == [[1.0, 0.5, 1.5]]
    items = parts.IdItems(2, 4, layer_norm=True)
    items.table.weight.data[1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = [-1.3416355, -0.4472118, 0.4472118, 1.3416355]
    assert items()[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_mask_lets_through_the_past_only():
    mask = parts.attention_mask(torch.tensor([3, 2]), 4)
    assert mask.shape == (2, 1, 4, 4)
    logits = torch.tensor([0.2, 0.4, 0.9, 0.7])
    share = torch.softmax(logits + mask[0, 0], dim=-1)
    assert share[1].tolist() == pytest.approx([0.4501660, 0.5498340, 0, 0], abs=1e-6)
    assert share[2].tolist() == pytest.approx([0.2361188, 0.2883962, 0.4754849, 0], abs=1e-6)
    # A session of two: the third position sees the two, never itself or padding.
    assert torch.softmax(logits + mask[1, 0], dim=-1)[2, 2:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("encoder", ["transformer", "mean"])
def test_padding_and_what_comes_later_do_not_matter(build, encoder):
    model = build(id_session_encoder=encoder, text_session_encoder=encoder).eval()
    lengths = torch.tensor([2, 2, 2])
    rows = torch.tensor([[7, 3, 0, 0, 0, 0], [7, 3, 5, 0, 0, 0], [7, 3, 1, 8, 2, 4]])
    for branch in model.branches.values():
        table = branch.table()
        wide = branch.query(table, rows, lengths)
        narrow = branch.query(table, rows[:1, :2], lengths[:1])
        assert torch.allclose(wide, narrow.expand_as(wide), atol=1e-6)
        # The last item is the second position, not the last column.
        turned = branch.query(table, torch.tensor([[3, 7]]), lengths[:1])
        assert torch.allclose(turned, narrow, atol=1e-3) == (encoder == "mean")


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
    model = AlterRec(settings("AlterRec", "mean_mean", **{**SMALL, **changes}), data).eval()
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


@pytest.mark.parametrize("how", ["uniform", "normal"])
@pytest.mark.parametrize("temperatures", ["released", "automatic"])
def test_first_scores(settings, make_dataset, how, temperatures):
    n_items = 5_001
    generator = torch.Generator().manual_seed(1)
    features = torch.nn.functional.normalize(torch.randn(n_items, 64, generator=generator))
    data = make_dataset([[1, 2]], n_items, features={"text": features})
    changes = {"hidden_size": 300, "inner_size": 1_200, "parameter_init": how}
    if temperatures == "released":
        changes |= {"id_temperature": 1.0, "text_temperature": 0.07}
    torch.manual_seed(4)
    model = AlterRec(settings("AlterRec", **changes), data).eval()
    item_seq = torch.randint(1, n_items, (64, 6), generator=generator)
    rows = {"item_id_list": item_seq, "item_length": torch.full((64,), 6)}
    target = torch.randint(0, n_items - 1, (64,), generator=generator)
    for scores in model.score_parts(rows).values():
        loss = torch.nn.functional.cross_entropy(scores[:, 1:], target).item()
        if how == "uniform":
            assert abs(loss - math.log(5_000)) < 0.1
        elif temperatures == "automatic":
            # Scores of unit spread, but up to sqrt(d) for the session's own last item.
            assert abs(loss - math.log(5_000)) < math.sqrt(300)
        else:
            assert loss > 100


@pytest.mark.parametrize("n_layers", [1, 3])
def test_the_transformer_is_recboles(build, n_layers):
    model = build(n_layers=n_layers).eval()
    rows = torch.tensor([[7, 3, 5, 1], [2, 2, 0, 0], [4, 0, 0, 0]])
    lengths = torch.tensor([4, 2, 1])
    for branch in model.branches.values():
        session = branch.session
        assert isinstance(session.encoder, TransformerEncoder)
        assert len(session.encoder.layer) == n_layers
        items = branch.table()[rows]
        hidden = session.norm(items + session.positions.weight[:4])
        whole = session.encoder(hidden, parts.attention_mask(lengths, 4))[-1]
        last = whole[torch.arange(3), lengths - 1]
        assert torch.allclose(session(items, lengths), last, atol=1e-5)


def test_first_weights(settings, dataset):
    def weights(**changes):
        torch.manual_seed(2)
        changes = {**SMALL, "hidden_size": 64, "inner_size": 128, **changes}
        return dict(AlterRec(settings("AlterRec", **changes), dataset).named_parameters())

    uniform = weights(parameter_init="uniform")
    for name, weight in uniform.items():
        flat = weight if "items.table" not in name else weight[1:]
        assert flat.abs().max().item() <= 64**-0.5, name
        assert flat.std().item() == pytest.approx(64**-0.5 / math.sqrt(3), rel=0.3), name
    normal = weights(parameter_init="normal")
    assert bool((normal["branches.id.items.norm.weight"] == 1).all())
    assert bool((normal["branches.text.items.project.bias"] == 0).all())
    assert normal["branches.id.items.table.weight"][1:].std().item() == pytest.approx(0.02, rel=0.2)
    for found in (uniform, normal):
        assert bool((found["branches.id.items.table.weight"][0] == 0).all())


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
    drawn = model.sampler.hard(teacher).items
    assert drawn.min() > 0
    assert model.sampler.uniform(teacher).items.min() > 0


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
    assert model.modalities(model.settings) == (() if preset == "no_text" else ("text",))
    for epoch in range(9):
        model.start_epoch(epoch)
        assert model.plan == (name, "uniform")


def test_no_text_needs_no_features(build, make_dataset):
    bare = make_dataset(TRAIN, N_ITEMS, TEST)
    assert predicted(build("no_text", bare), bare.held_out_rows()).shape == (3, N_ITEMS)
    with pytest.raises(FeatureError, match="encode --dataset=Tiny --modality=text"):
        build(data=bare)


def test_contradictions_are_refused(build):
    with pytest.raises(ConfigError, match=r"train_branches=\['id'\] leaves no other branch"):
        build(train_branches=["id"])
    for kind in ("uniform", "full"):
        with pytest.raises(ConfigError, match=f"no effect with negative_sampling={kind}"):
            build(positive_augmentation=True, negative_sampling=kind)
    with pytest.raises(ConfigError, match="hard_negative_start_rank=9 lies behind"):
        build(hard_negative_start_rank=9, hard_negative_end_rank=50)


def test_a_rank_behind_the_catalogue_is_cut(build, caplog):
    caplog.set_level(logging.INFO, "recbole_mm")
    assert build(hard_negative_end_rank=20_000).sampler.window == (2, 8)
    assert "cut to the 8 items" in caplog.text


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("aug", {"positive_augmentation": True}),
        ("random", {"negative_sampling": "uniform"}),
        ("full", {"negative_sampling": "full"}),
        ("hard0", {"hard_negative_ratio": 0.0}),
        ("hard50", {"hard_negative_ratio": 0.5}),
        ("hard100", {"hard_negative_ratio": 1.0}),
        ("mean_mean", {"id_session_encoder": "mean", "text_session_encoder": "mean"}),
        ("mean_transformer", {"id_session_encoder": "mean"}),
        ("transformer_mean", {"text_session_encoder": "mean"}),
    ],
)
def test_an_ablation_changes_what_it_says(settings, preset, expected):
    sound, found = settings("AlterRec"), settings("AlterRec", preset)
    assert {key: found[key] for key in expected} == expected
    assert all(found[key] == sound[key] for key in sound if key not in expected)


def test_released_preset_has_the_released_window(settings, make_dataset):
    data = make_dataset([[1, 2]], 40_259, features={"text": torch.zeros(40_259, 2)})
    small = {"hidden_size": 4, "inner_size": 4}
    model = AlterRec(settings("AlterRec", "official", **small), data)
    assert model.sampler.window == (21, 20_000)
    assert (model.sampler.n_hard, model.sampler.n_uniform) == (9_990, 9_990)
    paper = AlterRec(settings("AlterRec", "paper", **small), data)
    assert paper.sampler.window == (20, 20_129)
    assert (paper.sampler.n_hard, paper.sampler.n_uniform) == (20_110, 0)
    assert [paper.branches[name].temperature for name in ("id", "text")] == [1.0, 0.07]


# Diagnostics


class Loader:
    """What diagnostics read of a loader."""

    def __init__(self, rows):
        self.dataset = rows


def test_diagnostics_by_hand(build, dataset):
    model = build(hard_negative_ratio=1.0, hard_negative_sampling="window").train()
    model.start_epoch(TEXT_HARD)
    before = torch.get_rng_state()
    train, valid = dataset.inter_feat, dataset.held_out_rows()
    found = model.diagnostics(Loader(train), Loader(valid))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert not model.branches.id.training
    model.eval()
    target = train["item_id"] - 1
    tables = model.item_tables()
    for name in ("id", "text"):
        scores = model.score_parts(train)[name][:, 1:]
        rank = 1 + (scores > scores.gather(1, target.unsqueeze(1))).sum(dim=1)
        assert found[f"{name}/target_in_top"] == pytest.approx((rank <= 5).float().mean().item())
        window = (rank >= 2) & (rank <= 6)
        assert found[f"{name}/target_in_window"] == pytest.approx(window.float().mean().item())
        spread = model.score_parts(valid)[name][:, 1:].std(dim=1).mean().item()
        assert found[f"{name}/score_std"] == pytest.approx(spread, rel=1e-4)
        length = tables[name][1:].norm(dim=1).mean().item()
        assert found[f"{name}/item_norm"] == pytest.approx(length, rel=1e-4)
        branch = model.branches[name]
        query = branch.query(tables[name], *model.inputs(valid)) * branch.temperature
        session = query.norm(dim=1).mean().item()
        assert found[f"{name}/session_norm"] == pytest.approx(session, rel=1e-4)
    assert len(found) == 10
