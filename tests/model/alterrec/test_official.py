"""AlterRec as the released code does it: its window, its draws, whose positives are borrowed."""

from __future__ import annotations

import pytest
import torch

from recbole_mm import key_table, registry
from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError
from recbole_mm.model.alterrec.model import AlterRec
from recbole_mm.model.alterrec.official import OfficialAlterRec

# Epochs of hard negatives, with warmup_epochs 4 and alternation_epochs 2.
ID_HARD, TEXT_HARD = 4, 6


def test_the_released_window_and_temperatures(settings, make_dataset):
    data = make_dataset([[1, 2]], 40_259, features={"text": torch.zeros(40_259, 2)})
    small = {"hidden_size": 4, "inner_size": 4}
    released = OfficialAlterRec(settings("AlterRec", "official", **small), data)
    assert released.sampler.window == (21, 20_000)
    assert (released.sampler.n_hard, released.sampler.n_uniform) == (9_990, 9_990)
    paper = AlterRec(settings("AlterRec", "paper", **small), data)
    assert paper.sampler.window == (20, 20_129)
    assert (paper.sampler.n_hard, paper.sampler.n_uniform) == (20_110, 0)
    for model in (released, paper):
        assert [model.network(name).temperature for name in ("id", "text")] == [1.0, 0.07]
        # Uniform first weights leave no norm at its usual scale of 1.
        assert model.branches.id.items.norm.weight.abs().max().item() <= 0.5


def test_the_preset_takes_the_class(tmp_path):
    config = MMConfig("AlterRec", "Cellphones", (), {"preset": "official"})
    assert config.model_class is OfficialAlterRec
    assert registry.resolve("AlterRec").load() is AlterRec


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("parameter_init", "normal"), ("id_temperature", 2.0), ("schedule_policy", "algorithm1"),
        ("text_session_encoder", "mean"), ("augmentation_reduction", "sum"),
    ],
)  # fmt: skip
def test_what_the_code_decides_cannot_be_set(key, value):
    spec = registry.resolve("AlterRec")
    assert key in key_table.model_keys(spec)
    with pytest.raises(ConfigError, match=f"{key} is not accepted; with preset: official"):
        MMConfig("AlterRec", "Cellphones", (), {"preset": "official", key: value})


def test_each_row_has_a_draw_of_its_own(build):
    torch.manual_seed(5)
    # One teacher for all rows, so that equal places are equal items.
    teacher = torch.randn(1, 9).expand(40, -1).contiguous()
    for preset, expected in (("official", True), ("sound", False)):
        sampler = build(preset, hard_negative_ratio=0.8).sampler
        hard = sampler.hard(teacher)[:, : sampler.n_hard]
        assert (len({tuple(sorted(row)) for row in hard.tolist()}) > 1) == expected


@pytest.mark.parametrize("epoch", [ID_HARD, TEXT_HARD])
def test_the_id_branch_always_lends_and_without_dropout(build, dataset, epoch):
    keys = {"hidden_dropout_prob": 0.5, "attn_dropout_prob": 0.5}
    model = build("official", positive_augmentation=True, num_augmented_positives=3, **keys)
    rows = dataset.inter_feat
    expected = model.eval().score_parts(rows)["id"][:, 1:].topk(3).indices + 1
    model.train().start_epoch(epoch)
    item_seq, lengths = model.inputs(rows)
    before = torch.get_rng_state()
    lent = model._borrow(item_seq, lengths, model._teacher_scores(item_seq, lengths))
    assert torch.equal(lent, expected)
    assert torch.equal(torch.get_rng_state(), before)
    # The branch whose turn it is goes on training.
    assert model.network(model.plan.branch).training


def test_nothing_but_draws_and_lenders_differs(build, dataset):
    """With all of the window and nothing borrowed, both classes are one model."""
    keys = {"hard_negative_ratio": 1.0, "hidden_size": 4, "text_temperature": 0.07}
    released = build("official", **keys).train()
    sound = build(parameter_init="uniform", **keys).train()
    losses = []
    for model in (released, sound):
        model.start_epoch(ID_HARD)
        torch.manual_seed(8)
        losses.append(model.calculate_loss(dataset.inter_feat).item())
    assert losses[0] == losses[1]
