"""Keys of RecBole whose values have an inner form, which RecBole itself does not check."""

from __future__ import annotations

import re
from collections.abc import Mapping

from recbole_mm.keys import type_fault

_NUMBER = r"[-+]?(?:inf|\d+\.?\d*(?:[eE][-+]?\d+)?)"
_INTERVALS = re.compile(rf"[\[(]{_NUMBER},{_NUMBER}[\])](?:;[\[(]{_NUMBER},{_NUMBER}[\])])*")
_INTERVAL_KEYS = (
    "user_inter_num_interval",
    "item_inter_num_interval",
    "entity_kg_num_interval",
    "relation_kg_num_interval",
)
# Arguments of torch's clip_grad_norm_, by name.
_CLIP = {"max_norm": "float", "norm_type": "float", "error_if_nonfinite": "bool"}


def misfits(values: Mapping[str, object]) -> dict[str, str]:
    """Return ``{key: what is expected}`` of the keys whose value has not the form it needs."""
    found = {}
    for key in _INTERVAL_KEYS:
        if values.get(key) is not None and not _is_interval(values[key]):
            found[key] = "intervals such as '[5,inf)' or '[1,3];[5,8]'"
    column = values.get("val_interval")
    if isinstance(column, dict) and not all(map(_is_selection, column.values())):
        found["val_interval"] = "a list of values, or intervals such as '[3,inf)', by column"
    clip = values.get("clip_grad_norm")
    if isinstance(clip, dict) and not _is_clip(clip):
        found["clip_grad_norm"] = "{max_norm: 5}, max_norm being above 0; norm_type may follow"
    return found


def _is_interval(value: object) -> bool:
    return isinstance(value, str) and bool(_INTERVALS.fullmatch(value.replace(" ", "")))


def _is_selection(value: object) -> bool:
    return isinstance(value, list) or _is_interval(value)


def _is_clip(value: Mapping[object, object]) -> bool:
    known = all(name in _CLIP for name in value)
    norm = value.get("max_norm")
    fits = known and not any(type_fault(one, (_CLIP[str(n)],)) for n, one in value.items())
    return fits and isinstance(norm, (int, float)) and norm > 0
