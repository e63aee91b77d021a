"""A run with `cold_items`: rows filled after training, metrics of new targets by hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mm.evaluation.ranking import metrics_from_ranks
from recbole_mm.run import format_result, run
from recbole_mm.run.prepared import prepare
from recbole_mm.serve.load import read_run
from recbole_mm.testing.case import SMALL, write_toy
from recbole_mm.trainer.checkpoint import load_checkpoint


@pytest.fixture(scope="module", params=["neighbours", "zero"])
def finished(request, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp(request.param)
    write_toy(folder, SMALL, ["text"])
    keys = {
        "data_path": str(folder), "run_folder": str(folder / "run"), "use_gpu": False, "epochs": 2,
        "hidden_size": 16, "inner_size": 16, "n_layers": 1, "train_batch_size": 64,
        "cold_items": 0.3, "new_item_ids": request.param,
    }  # fmt: skip
    before = Path.cwd()
    os.chdir(folder)
    try:
        return run("AlterRec", SMALL.name, (), keys)
    finally:
        os.chdir(before)


def test_metrics_of_new_targets_by_hand(finished) -> None:
    """Sort the scores of each row once over all items and once over the new ones."""
    restored = read_run(finished.folder)
    prepared = prepare(restored.config)
    held, rows = prepared.dataset.held_out, prepared.dataset.rows("test")
    ranks: dict[str, list[int]] = {"among all": [], "among new": []}
    for history, length, target in zip(rows.history, rows.length, rows.target, strict=True):
        if not held[target]:
            continue
        batch = restored.scorer.rows([history[:length].tolist()])
        scores = restored.scorer.scores(batch)[0].numpy()
        above = scores > scores[target]
        ranks["among all"].append(1 + int(above.sum()))
        ranks["among new"].append(1 + int((above & held).sum()))
    groups = finished.record["slices"]["new_items"]
    for name, found in ranks.items():
        assert groups[name]["n"] == len(found) > 0
        expected = metrics_from_ranks(np.array(found), [10, 20], ["hit", "mrr", "ndcg"])
        assert {k: v for k, v in groups[name].items() if k != "n"} == pytest.approx(expected)
    floor = finished.record["floor"]["slices"]["new_items"]
    assert floor["among new"]["n"] == len(ranks["among new"])
    assert "test targets are new items; among new: hit@10" in format_result(finished)


def test_rows_of_new_items_are_filled_in_the_checkpoint(finished) -> None:
    weights = load_checkpoint(finished.folder / "best.safetensors")["model"]
    table = weights["branches.id.items.table.weight"]
    prepared = prepare(read_run(finished.folder).config)
    held = torch.from_numpy(prepared.dataset.held_out)
    described = prepared.dataset.item_features.mask("text")
    if finished.record["config"]["new_item_ids"] == "zero":
        assert not table[held].any()
        return
    vectors = prepared.dataset.item_features.table("text")
    unit = torch.nn.functional.normalize(vectors, dim=1)
    known = torch.nonzero(described & torch.from_numpy(prepared.dataset.train_counts > 0))[:, 0]
    for item in torch.nonzero(held & described)[:, 0].tolist():
        nearest = known[torch.argsort(unit[known] @ unit[item], descending=True)[:10]]
        torch.testing.assert_close(table[item], table[nearest].mean(dim=0))
    assert not table[held & ~described].any()
