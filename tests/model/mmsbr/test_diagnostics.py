"""What a run says of the parts of a trained MMSBR."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize


@pytest.mark.parametrize("preset", ["sound", "official"])
def test_diagnostics_by_hand(build, make_data, preset):
    data = make_data(missing=(6, 9))
    model = build(preset, data).train()
    rows = data.held_out_rows()
    found = model.diagnostics(None, [(rows, None)])
    assert found["share_text"] == found["share_image"] == pytest.approx(9 / 11)
    assert found["share_price"] == pytest.approx(10 / 11)
    with torch.no_grad():
        tables = model.item_tables()
        query = model.encode(*model.inputs(rows), tables)
        apart = query[:, None, 8:] - tables["price"][None, 1:]
        distance = apart.square().sum(dim=-1).mean().item()
        pairs = torch.tensor([item for item in range(1, 12) if item not in (6, 9)])
        left, right = model.real["text"](pairs), model.pseudo["text"](pairs)
        cosine = cosine_similarity(left, right)
        products = left @ right.T
        if preset == "sound":
            products = normalize(left) @ normalize(right).T
    assert found["price_distance"] == pytest.approx(distance, rel=1e-4)
    assert found["text_cosine"] == pytest.approx(cosine.mean().item(), rel=1e-4, abs=1e-6)
    hits = (products.argmax(dim=1) == torch.arange(len(pairs))).float().mean().item()
    assert found["text_retrieval@1"] == pytest.approx(hits)
    assert ("price_gamma" in found) == (preset == "sound")
    assert ("repeat_bias" in found) == (preset == "sound")


def test_diagnostics_of_what_is_there(build, make_data):
    data = make_data(("text",), price=False)
    found = build(data=data).diagnostics(None, [(data.held_out_rows(), None)])
    assert found == {"share_text": pytest.approx(10 / 11), "share_price": 0.0, "repeat_bias": 0.0}
