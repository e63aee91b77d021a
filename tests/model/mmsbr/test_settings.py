"""Settings of MMSBR: what they read, and what contradicts itself."""

from __future__ import annotations

import pytest

from recbole_mm.errors import ConfigError
from recbole_mm.model.mmsbr.settings import MMSBRSettings, OfficialMMSBRSettings


@pytest.mark.parametrize(
    ("there", "keys", "expected"),
    [
        ((), {}, ()),
        (("text",), {}, ("text",)),
        (("text",), {"use_text": False}, ()),
        (("image", "text", "audio"), {}, ("text", "image")),
        (("text", "image"), {"use_image": False}, ("text",)),
        (("text",), {"use_image": True}, ("text", "image")),
        (
            ("text", "image"),
            {"pseudo": "files"},
            ("text", "image", "pseudo_text", "pseudo_image"),
        ),
        (("text",), {"pseudo": "files", "w_con": 0.0}, ("text",)),
    ],
)
def test_files_that_are_read(there, keys, expected):
    assert MMSBRSettings(**keys).feature_files(there) == expected


@pytest.mark.parametrize("kind", [MMSBRSettings, OfficialMMSBRSettings])
def test_heads_must_divide_the_width(kind):
    with pytest.raises(ConfigError, match="n_heads=3 does not divide embedding_size=64"):
        kind(n_heads=3)
