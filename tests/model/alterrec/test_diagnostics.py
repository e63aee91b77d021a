"""What AlterRec tells about its branches, against sums written out."""

from __future__ import annotations

import pytest
import torch

from recbole_mm.model.alterrec.diagnostics import diagnose


class Loader:
    """What diagnostics read of a loader."""

    def __init__(self, rows):
        self.dataset = rows


def test_diagnostics_by_hand(build, dataset):
    model = build(hard_negative_ratio=1.0).train()
    model.start_epoch(6)  # a hard turn of the text branch
    before = torch.get_rng_state()
    train, valid = dataset.inter_feat, dataset.held_out_rows()
    found = diagnose(model, Loader(train), Loader(valid))
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


def test_more_asked_for_than_there_are_items_takes_all(build, dataset):
    rows = Loader(dataset.inter_feat), Loader(dataset.held_out_rows())
    found = diagnose(build(num_augmented_positives=100), *rows)
    assert found["id/target_in_top"] == found["text/target_in_top"] == 1.0
