"""Settings of AlterRec and NFRec: contradictions, what holds for one branch, presets."""

from __future__ import annotations

import pytest

from recbole_mm.errors import ConfigError
from recbole_mm.model.alterrec.settings import AlterRecSettings, NFRecSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_branches": ("id",)}, r"train_branches=\['id'\] leaves no other branch"),
        (
            {"schedule_policy": "algorithm1", "warmup_epochs": 3},
            "warmup_epochs=3 cannot be halved",
        ),
        (
            {"positive_augmentation": True, "negative_sampling": "uniform"},
            "no effect with negative_sampling=uniform",
        ),
        (
            {"positive_augmentation": True, "negative_sampling": "full"},
            "no effect with negative_sampling=full",
        ),
        ({"hard_negative_end_rank": 6.0}, "neither a rank nor a share"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        AlterRecSettings(**changes)


def test_what_is_near_a_contradiction_is_accepted():
    one = AlterRecSettings(train_branches=("id",), negative_sampling="uniform")
    assert one.branches == ("id",)
    assert AlterRecSettings(schedule_policy="parity", warmup_epochs=3).warmup_epochs == 3
    for rank in (1.0, 6):
        kept = AlterRecSettings(hard_negative_end_rank=rank).hard_negative_end_rank
        assert kept == rank
        assert type(kept) is type(rank)  # 1.0 is a share, 1 a rank


def test_branches_stand_in_order():
    assert AlterRecSettings(train_branches=("text", "id")).branches == ("id", "text")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hidden_size": 16}, (4.0, 4.0)),
        ({"parameter_init": "uniform"}, (1.0, 0.07)),
        ({"hidden_size": 16, "text_temperature": 0.5}, (4.0, 0.5)),
        ({"parameter_init": "uniform", "id_temperature": 3.0}, (3.0, 0.07)),
    ],
)
def test_temperatures(changes, expected):
    settings = AlterRecSettings(**changes)
    assert tuple(settings.of_branch(name).temperature for name in ("id", "text")) == expected


def test_each_branch_has_its_own_settings():
    settings = AlterRecSettings(
        id_session_encoder="mean", id_learning_rate=0.1, id_lr_step_size=3, text_lr_step_size=7
    )
    assert settings.of_branch("id")[0::2] == ("mean", 0.1)
    assert settings.of_branch("text")[0::2] == ("transformer", None)
    assert [settings.of_branch(name).lr_step_size for name in ("id", "text")] == [3, 7]


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


def test_heads_must_divide_the_fused_width():
    wide = {"session_encoder": "transformer", "hidden_size": 6, "n_heads": 4}
    assert NFRecSettings(**wide, fusion="concat").width == 12
    with pytest.raises(ConfigError, match="n_heads=4 does not divide the width 6"):
        NFRecSettings(**wide)


def test_only_settings_with_text_read_text():
    both = ("text", "image")
    assert NFRecSettings().feature_files(both) == ("text",)
    assert NFRecSettings(components="text").feature_files(both) == ("text",)
    assert NFRecSettings(components="id").feature_files(both) == ()
