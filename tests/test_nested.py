"""Values with an inner form."""

from __future__ import annotations

import pytest

from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError
from recbole_mm.nested import misfits


@pytest.mark.parametrize(
    "values",
    [
        {"user_inter_num_interval": "[5,inf)"},
        {"item_inter_num_interval": "(1, 3];[5,8]"},
        {"val_interval": {"timestamp": "[3,1e9)", "item_id": ["a", "b"]}},
        {"val_interval": None, "clip_grad_norm": None},
        {"clip_grad_norm": {"max_norm": 5, "norm_type": 2.0}},
    ],
)
def test_what_recbole_understands_is_accepted(values: dict) -> None:
    assert misfits(values) == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user_inter_num_interval", "[5,x"),
        ("item_inter_num_interval", "5"),
        ("val_interval", {"timestamp": "x"}),
        ("clip_grad_norm", {"foo": 1}),
        ("clip_grad_norm", {"max_norm": "5"}),
        ("clip_grad_norm", {"max_norm": -1}),
        ("clip_grad_norm", {}),
        ("clip_grad_norm", {1: 2}),
    ],
)
def test_what_recbole_would_pass_over_is_refused(key: str, value: object) -> None:
    assert list(misfits({key: value})) == [key]
    with pytest.raises(ConfigError, match=f"command line: {key} = .* is not accepted; expected"):
        MMConfig("SASRec", "Cellphones", (), {key: value})
