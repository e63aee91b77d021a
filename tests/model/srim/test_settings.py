"""Settings of SRIM: what they read, what they refuse, what a preset leaves to choose."""

from __future__ import annotations

import pytest

from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError
from recbole_mm.model.srim.settings import OfficialSRIMSettings, SRIMSettings


def test_heads_that_do_not_divide_the_width_are_refused(build):
    with pytest.raises(ConfigError, match="n_heads=3 does not divide embedding_size=100"):
        SRIMSettings(n_heads=3)
    with pytest.raises(ConfigError, match="n_heads=3 does not divide embedding_size=4"):
        build("official", n_heads=3)
    assert SRIMSettings(n_heads=3, attention="none").n_heads == 3


def test_which_feature_files_are_read():
    have = ("text", "image", "price")
    assert SRIMSettings().feature_files(have) == ("text",)
    assert SRIMSettings(modalities=("text", "image")).feature_files(have) == ("text", "image")
    assert SRIMSettings(branches="id").feature_files(have) == ()
    assert SRIMSettings(content="random").feature_files(have) == ()
    assert OfficialSRIMSettings().feature_files(have) == ()


def test_the_released_code_leaves_sizes_weights_and_dropouts_to_choose():
    assert set(OfficialSRIMSettings.keys()) == {
        *("embedding_size", "n_layers", "n_heads", "n_neighbors"),
        *("w_align", "w_joint", "w_co", "emb_dropout", "att_dropout"),
    }
    config = MMConfig("SRIM", "Cellphones", (), {"preset": "official", "n_layers": 2})
    assert config["n_layers"] == 2 and config["w_co"] == 0.001


@pytest.mark.parametrize("key", ["session_pool", "co_samples", "modalities"])
def test_a_key_that_the_released_code_decides_is_refused(key):
    value = {"session_pool": "mean", "co_samples": 5, "modalities": ["text"]}[key]
    for preset in ("official", "official_leaky"):
        with pytest.raises(ConfigError, match=f"{key} is not accepted; with preset: {preset}"):
            MMConfig("SRIM", "Cellphones", (), {"preset": preset, key: value})


def test_all_epochs_of_the_released_code_are_run():
    for preset in ("official", "official_leaky"):
        config = MMConfig("SRIM", "Cellphones", (), {"preset": preset})
        assert config["stopping_step"] >= config["epochs"] == 20
