"""`history: mask` in whole runs, for RecBole's models and ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mm import run
from recbole_mm.config import MMConfig
from recbole_mm.errors import TrainingError
from recbole_mm.evaluation.ranking import metrics_from_ranks
from recbole_mm.run.record import RunResult
from recbole_mm.run.report import format_result
from recbole_mm.run.studies import scores_apart
from recbole_mm.testing.case import Toy, write_toy
from recbole_mm.trainer.base import trainer_class

SMALL = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 2}
KEYS = {
    "SASRec": SMALL,
    "MDSRec": {**SMALL, "modalities": ["text"], "n_centers": 3, "n_neighbors": 4},
    "Pop": {},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_toy(folder, Toy("toy", n_items=30, n_sessions=120), ["text"])
    return folder


def keys_of(model: str, data: Path, folder: Path, **keys: object) -> dict[str, object]:
    plain = {"data_path": str(data), "run_folder": str(folder), "use_gpu": False, "epochs": 1}
    return {**plain, "eval_targets": "all_prefixes", **KEYS[model], **keys}


def trained(model: str, data: Path, folder: Path, **keys: object):
    """Return data, loaders and model, and the trainer after an epoch."""
    made = run.prepare(MMConfig(model, "toy", (), keys_of(model, data, folder, **keys)))
    trainer = trainer_class(made.spec, made.config.model_class)(made.config, made.model)
    _, valid = trainer.fit(made.train, made.valid)
    return made, trainer, valid


def slow_ranks(made: run.Prepared, masked: bool, part: str = "test") -> list[int]:
    """Rank the target of each row among the candidates that are left, row by row."""
    rows, loader = made.dataset.rows(part), getattr(made, part)
    ranks = []
    for row, target in enumerate(rows.target):
        with torch.no_grad():
            scores = made.model.eval().full_sort_predict(loader.collate_fn([row])[0]).view(-1)
        struck = {0, *rows.history[row]} if masked else {0}
        if target in struck:
            ranks.append(made.dataset.item_num - 1)
            continue
        left = scores[[item for item in range(len(scores)) if item not in struck]]
        equal = int((left == scores[target]).sum()) - 1
        ranks.append(1 + int((left > scores[target]).sum()) + (equal + 1) // 2)
    return ranks


@pytest.mark.parametrize("history", ["keep", "mask"])
@pytest.mark.parametrize("model", KEYS)
def test_ranks_equal_a_slow_loop(model: str, history: str, data: Path, tmp_path: Path) -> None:
    made, trainer, valid = trained(model, data, tmp_path / "r", history=history)
    test = trainer.evaluate(made.test)
    inside = made.dataset.rows("test").target_in_history()
    assert 0 < inside.sum() == made.dataset.counts["test_targets_in_history"]
    assert trainer.ranks.tolist() == slow_ranks(made, history == "mask")
    assert len(trainer.ranks) == len(made.dataset.rows("test"))
    if history == "mask":
        assert (trainer.ranks[inside] == made.dataset.item_num - 1).all()
    if model != "Pop":  # its scores tie, and RecBole orders ties in some way
        assert not trainer.tied
        for part, found in (("valid", valid), ("test", test)):
            ranks = np.array(slow_ranks(made, history == "mask", part))
            expected = metrics_from_ranks(ranks, [10, 20], ["Hit", "MRR", "NDCG"])
            assert found == pytest.approx(expected, abs=1e-9)


def test_the_whole_score_stands_beside_its_parts_as_it_was_tested(
    data: Path, tmp_path: Path
) -> None:
    made, trainer, _ = trained("MDSRec", data, tmp_path / "r", history="mask")
    test = trainer.evaluate(made.test)
    whole = scores_apart(made)["parts"]["test"]["whole"]
    assert np.isfinite(whole["ce"])
    assert {name: whole[name] for name in test} == pytest.approx(test, abs=1e-9)


def test_masking_changes_no_training(data: Path, tmp_path: Path) -> None:
    """But the choice of the epoch, which one epoch does not leave."""
    weights = [
        trained("SASRec", data, tmp_path / history, history=history)[0].model.state_dict()
        for history in ("keep", "mask")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_score_that_is_not_finite_is_found_under_the_mask(data: Path, tmp_path: Path) -> None:
    made, trainer, _ = trained("SASRec", data, tmp_path / "r", history="mask")

    def broken(interaction):
        scores = torch.zeros(len(interaction), made.dataset.item_num)
        return scores.scatter(1, interaction["item_id_list"][:, :1], torch.nan)

    made.model.full_sort_predict = broken
    with pytest.raises(TrainingError, match=" NaN and "):
        trainer.evaluate(made.test)


def test_result_and_text_say_that_the_history_is_masked(data: Path, tmp_path: Path) -> None:
    results = {
        history: run.run(
            "SASRec", "toy", (), keys_of("SASRec", data, tmp_path / history, history=history)
        )
        for history in ("keep", "mask")
    }
    keep, mask = (results[history].record for history in ("keep", "mask"))
    assert (keep["config"]["history"], mask["config"]["history"]) == ("keep", "mask")
    assert keep["fingerprint"]["data"] != mask["fingerprint"]["data"]
    assert keep["counts"] == mask["counts"]
    assert "HISTORY MASKED" not in format_result(results["keep"])
    shown = format_result(results["mask"])
    assert "SASRec on toy [SYNTHETIC] [HISTORY MASKED]\n" in shown
    lost = mask["counts"]["test_targets_in_history"]
    assert f"{lost} test target(s) are struck out" in shown


def test_a_result_whose_targets_all_tie_says_so(data: Path, tmp_path: Path) -> None:
    result = run.run("SASRec", "toy", (), keys_of("SASRec", data, tmp_path / "r"))
    assert "ALL TIED" not in format_result(result)
    record = {**result.record, "tied": len(result.record["ranks"]["rank"])}
    shown = format_result(RunResult(result.folder, record))  # type: ignore[arg-type]
    assert "[ALL TIED]" in shown and "every test target shares its score" in shown
