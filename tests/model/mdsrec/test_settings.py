"""MDSRec's settings: weights of the modalities, files that are read, heads that fit the width."""

from __future__ import annotations

import pytest

from recbole_mm.errors import ConfigError
from recbole_mm.model.mdsrec.settings import MDSRecSettings

BOTH = ("text", "image")


def test_weights_are_equal_or_as_given():
    assert MDSRecSettings().weights(BOTH) == {"text": 0.5, "image": 0.5}
    assert MDSRecSettings().weights(()) == {}
    assert MDSRecSettings(alpha=(0.9, 0.1)).weights(BOTH) == {"text": 0.9, "image": 0.1}


@pytest.mark.parametrize("alpha", [(1.0,), (0.5, 0.6), (0.2, 0.3, 0.5)])
def test_weights_must_fit_the_modalities(alpha):
    with pytest.raises(ConfigError, match="one weight for each of text, image with sum 1"):
        MDSRecSettings(alpha=alpha).weights(BOTH)


def test_files_that_are_read():
    available = ("price", "image", "text")
    assert MDSRecSettings().feature_files(available) == BOTH
    assert MDSRecSettings().feature_files(("image",)) == ("image",)
    # What is named is demanded, whether it is there or not.
    assert MDSRecSettings(modalities=BOTH).feature_files(()) == BOTH
    assert MDSRecSettings(modalities=()).feature_files(available) == ()


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="n_heads=3 does not divide hidden_size=64"):
        MDSRecSettings(n_heads=3)
