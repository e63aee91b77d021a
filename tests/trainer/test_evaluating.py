"""Studies of the score during training change nothing of the training."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from recbole.model.sequential_recommender import SASRec

from recbole_mm.files import BEST, LAST
from recbole_mm.trainer.checkpoint import load_checkpoint


class Noisy(SASRec):
    """Draws from every generator whenever it is looked at, as a careless model might."""

    looks = 0

    def score_parts(self, interaction):
        assert not self.training
        type(self).looks += 1
        torch.rand(3), np.random.rand(3), random.random()
        return {"own": self.full_sort_predict(interaction)}

    def full_sort_predict(self, interaction):
        return super().full_sort_predict(interaction)


def fit(build, folder, **keys):
    trainer, train, valid, _ = build(model_class=Noisy, run_folder=folder, stopping_step=99, **keys)
    trainer.fit(train, valid)
    return trainer


def weights(folder, name=LAST):
    return load_checkpoint(folder / name)["model"]


def test_a_run_with_parts_trains_the_same_weights_bit_by_bit(build, tmp_path):
    runs = {}
    for mode in ("none", "final", "epoch"):
        runs[mode] = fit(build, tmp_path / mode, epochs=3, part_metrics=mode)
    for name in (BEST, LAST):
        plain, studied = weights(tmp_path / "none", name), weights(tmp_path / "epoch", name)
        assert plain.keys() == studied.keys()
        assert all(torch.equal(plain[key], studied[key]) for key in plain)
    states = [load_checkpoint(tmp_path / mode / LAST) for mode in ("none", "epoch")]
    for key in ("cur_step", "best_epoch", "best_valid_score", "best_valid_result"):
        assert states[0][key] == states[1][key]
    assert torch.equal(states[0]["rng"]["torch"], states[1]["rng"]["torch"])
    assert torch.equal(states[0]["loader"], states[1]["loader"])
    assert runs["none"].history == runs["final"].history
    kept = [{k: v for k, v in e.items() if k != "parts"} for e in runs["epoch"].history]
    assert kept[1:] == runs["none"].history


def test_epoch_0_is_the_untrained_model(build, tmp_path):
    trainer, train, valid, _ = build(run_folder=tmp_path / "a", epochs=1, part_metrics="epoch",
                                     model_class=Noisy)  # fmt: skip
    untrained = trainer.evaluate(valid, load_best_model=False)
    trainer.fit(train, valid)
    first = trainer.history[0]
    assert (first["epoch"], first["loss"], first["valid"]) == (0, {}, untrained)
    assert list(first["parts"]) == ["whole", "own"]
    assert first["parts"]["own"]["ndcg@20"] == pytest.approx(untrained["ndcg@20"], abs=1e-12)
    assert trainer.best_epoch == 0  # of training, counted from 0
    assert trainer.seconds["studies"] > 0


def test_parts_survive_a_resume(build, tmp_path):
    straight = fit(build, tmp_path / "straight", epochs=4, part_metrics="epoch")
    fit(build, tmp_path / "parts", epochs=2, part_metrics="epoch")
    trainer, train, valid, _ = build(model_class=Noisy, run_folder=tmp_path / "parts", epochs=4,
                                     stopping_step=99, part_metrics="epoch")  # fmt: skip
    trainer.resume(tmp_path / "parts")
    trainer.fit(train, valid)
    assert trainer.history == straight.history
    assert [epoch["epoch"] for epoch in trainer.history] == [0, 1, 2, 3, 4]
    one, two = weights(tmp_path / "straight"), weights(tmp_path / "parts")
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(("mode", "eval_step", "expected"), [
    ("none", 1, []), ("final", 1, []), ("epoch", 2, [0, 2]), ("epoch", 1, [0, 1, 2, 3]),
])  # fmt: skip
def test_parts_are_looked_at_as_often_as_asked(build, tmp_path, mode, eval_step, expected):
    Noisy.looks = 0
    trainer = fit(build, tmp_path / "run", epochs=3, part_metrics=mode, eval_step=eval_step)
    assert [e["epoch"] for e in trainer.history if "parts" in e] == expected
    assert bool(Noisy.looks) == bool(expected)


def test_models_that_only_count_have_no_epoch_0(build, tmp_path):
    trainer, train, valid, _ = build("Pop", tmp_path / "pop", part_metrics="epoch", epochs=1)
    trainer.fit(train, valid)
    assert [epoch["epoch"] for epoch in trainer.history] == [1]


def test_models_without_parts_have_epoch_0_too(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", tmp_path / "run", part_metrics="epoch", epochs=1)
    trainer.fit(train, valid)
    assert [epoch["epoch"] for epoch in trainer.history] == [0, 1]
    assert not any("parts" in epoch for epoch in trainer.history)
