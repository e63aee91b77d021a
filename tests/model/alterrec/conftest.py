"""A small AlterRec, and its scores derived a second time: position by position, in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_mm.model.alterrec.model import AlterRec
from recbole_mm.model.alterrec.official import OfficialAlterRec

N_ITEMS = 9
TRAIN = [[1, 2, 3], [1, 2], [2, 2, 4], [5, 3, 6, 1], [7, 5]]
TEST = [[3, 4, 8], [6, 2]]
SMALL = {
    "hidden_size": 4, "inner_size": 6, "n_heads": 2, "n_layers": 2,
    "hard_negative_start_rank": 2, "hard_negative_end_rank": 6,
}  # fmt: skip


@pytest.fixture
def dataset(make_dataset):
    torch.manual_seed(11)
    # Item 8 occurs in no training session; item 6 has no text.
    return make_dataset(TRAIN, N_ITEMS, TEST, {"text": torch.randn(N_ITEMS, 5)}, missing=[6])


@pytest.fixture
def bare(make_dataset):
    """The same sessions without features."""
    return make_dataset(TRAIN, N_ITEMS, TEST)


@pytest.fixture
def build(settings, dataset):
    def make(preset="sound", data=None, seed=3, **changes):
        torch.manual_seed(seed)
        kind = OfficialAlterRec if preset == "official" else AlterRec
        model = kind(settings("AlterRec", preset, **{**SMALL, **changes}), data or dataset)
        # Larger than the first weights, so that order and masks matter.
        for weight in model.parameters():
            torch.nn.init.normal_(weight)
        model.branches.id.items.table.weight.data[0].zero_() if "id" in model.branches else None
        return model

    return make


@pytest.fixture
def alone():
    """Return each branch's scores of items 1 to 8, at the released temperatures."""
    return np_scores


def np_norm(vector, weights, name, eps):
    spread = np.sqrt(((vector - vector.mean()) ** 2).mean() + eps)
    return (vector - vector.mean()) / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def np_linear(vector, weights, name):
    return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]


def np_items(name, weights, features, settings):
    rows = [np.zeros(settings.hidden_size)]
    for item in range(1, N_ITEMS):
        if name == "id":
            row = weights["id.items.table.weight"][item]
        else:
            row = np.maximum(np_linear(features[item], weights, "text.items.project"), 0)
        rows.append(np_norm(row, weights, f"{name}.items.norm", 1e-5))
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


def np_session(name, session, table, weights, settings):
    vectors = [table[item] for item in session]
    if settings.of_branch(name).session_encoder == "mean":
        return sum(vectors) / len(vectors)
    base = f"{name}.session."
    states = [
        np_norm(vector + weights[f"{base}positions.weight"][place], weights, f"{base}norm", 1e-6)
        for place, vector in enumerate(vectors)
    ]
    for layer in range(settings.n_layers):
        block = f"{base}encoder.layer.{layer}."
        attended = [
            np_attention(states, i, weights, f"{block}multi_head_attention", settings.n_heads)
            for i in range(len(states))
        ]
        states = []
        for one in attended:
            inner = np.maximum(np_linear(one, weights, f"{block}feed_forward.dense_1"), 0)
            out = np_linear(inner, weights, f"{block}feed_forward.dense_2")
            states.append(np_norm(out + one, weights, f"{block}feed_forward.LayerNorm", 1e-6))
    return states[-1]


def np_scores(model, data, rows):
    """Return each branch's scores of items 1 to 8, ``{"id": (B, V), "text": (B, V)}``."""
    weights = {
        name.removeprefix("branches."): value.double().numpy()
        for name, value in model.state_dict().items()
    }
    features = data.item_features.table("text").double().numpy()
    pairs = zip(rows["item_id_list"].tolist(), rows["item_length"].tolist(), strict=True)
    sessions = [items[:length] for items, length in pairs]
    settings, found = model.settings, {}
    for name, temperature in (("id", 1.0), ("text", 0.07)):
        table = np_items(name, weights, features, settings)
        queries = [np_session(name, one, table, weights, settings) for one in sessions]
        found[name] = np.stack([table[1:] @ query / temperature for query in queries])
    return found
