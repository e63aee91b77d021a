from __future__ import annotations

import logging
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.trainer import Trainer

from recbole_mm.errors import CheckpointError
from recbole_mm.files import BEST, LAST
from recbole_mm.trainer.base import MMTrainerMixin
from recbole_mm.trainer.checkpoint import load_checkpoint

SCRIPT = Path(__file__).with_name("toy_run.py")


def test_six_epochs_are_three_and_three_in_a_new_process(
    toy, start, finish, differences, states, toy_data, tmp_path
):
    # BERT4Rec draws its masks from Python's generator, SASRec its dropout from torch's; GRU4Rec's
    # batches come by length.
    models = ("SASRec", "BERT4Rec", "GRU4Rec")
    whole = {model: tmp_path / f"{model}-whole" for model in models}
    parts = {model: tmp_path / f"{model}-parts" for model in models}
    halves = [f"{model},{parts[model]},3" for model in models]
    toy.main(toy_data, *(f"{model},{whole[model]},6" for model in models), *halves)
    for model in models:
        assert load_checkpoint(parts[model] / LAST)["epoch"] == 2
        assert differences(states(whole[model]), states(parts[model])) != []
    finish(start(SCRIPT, toy_data, *(f"{model},{parts[model]},6,resume" for model in models)))
    for model in models:
        assert differences(states(whole[model]), states(parts[model])) == []
        ranks = [np.load(folder[model] / "ranks.npy") for folder in (whole, parts)]
        assert np.array_equal(*ranks)
        assert len(load_checkpoint(parts[model] / LAST)["history"]) == 6


def test_the_comparison_sees_one_bit(differences):
    state = {"a": [torch.zeros(2), {"b": 1}], "rng": np.arange(3)}
    other = {"a": [torch.zeros(2), {"b": 1}], "rng": np.arange(3)}
    assert differences(state, other) == []
    other["a"][0][1] = 1e-38
    other["rng"][0] = 1
    assert differences(state, other) == ["/a/0", "/rng"]


def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(
    toy, start, differences, states, toy_data, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    victim = start(SCRIPT, toy_data, f"SASRec,{killed},16")
    while not (killed / LAST).exists() and victim.poll() is None:
        time.sleep(0.005)
    time.sleep(random.Random(4).uniform(0.0, 0.1))
    victim.kill()
    victim.communicate()
    assert 0 <= load_checkpoint(killed / LAST)["epoch"] < 15
    toy.main(toy_data, f"SASRec,{killed},16,resume", f"SASRec,{whole},16")
    assert differences(states(whole), states(killed)) == []


def test_resume_puts_back_counters_and_goes_on(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", epochs=2)
    trainer.fit(train, valid)
    again, train, valid, _ = build("SASRec", epochs=4)
    assert again.resume(tmp_path / "run") == 2
    for name in ("cur_step", "best_valid_score", "best_valid_result", "best_epoch", "history"):
        assert getattr(again, name) == getattr(trainer, name)
    spent = trainer.seconds["train"]
    assert again.seconds["train"] == spent
    again.fit(train, valid)
    assert [epoch["epoch"] for epoch in again.history] == [1, 2, 3, 4]
    assert again.seconds["train"] > spent


def test_a_finished_run_is_not_trained_further(build, tmp_path):
    trainer, train, valid, test = build("SASRec", epochs=2)
    result = trainer.fit(train, valid)
    metrics = trainer.evaluate(test)
    before = (tmp_path / "run" / LAST).read_bytes()
    again, train, valid, test = build("SASRec", epochs=2)
    again.resume(tmp_path / "run")
    assert again.fit(train, valid) == result
    assert (tmp_path / "run" / LAST).read_bytes() == before
    assert again.evaluate(test) == metrics


def test_a_run_that_stopped_early_stays_stopped(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", epochs=2)
    trainer.fit(train, valid)
    trainer.stopped = True
    trainer._save(1, best=False)
    again, train, valid, _ = build("SASRec", epochs=9)
    again.resume(tmp_path / "run")
    again.fit(train, valid)
    assert len(again.history) == 2


def test_a_damaged_last_falls_back_to_best(build, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "recbole_mm")
    trainer, train, valid, _ = build("SASRec", epochs=3)
    trainer.fit(train, valid)
    folder = tmp_path / "run"
    (folder / LAST).write_bytes((folder / LAST).read_bytes()[:-9])
    again, _, _, _ = build("SASRec", epochs=3)
    assert again.resume(folder) == trainer.best_epoch + 1
    assert "Falling back" in caplog.text
    assert sorted(os.listdir(folder)) == [BEST, LAST]
    (folder / BEST).unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        again.resume(folder)


def test_nothing_to_resume(build, tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the checkpoint .*No such file"):
        build("SASRec")[0].resume(tmp_path / "elsewhere")


def test_another_models_checkpoint_names_the_keys(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", epochs=1)
    trainer.fit(train, valid)
    other, _, _, test = build("GRU4Rec")
    with pytest.raises(CheckpointError) as caught:
        other.evaluate(test)
    message = str(caught.value)
    assert "model: checkpoint SASRec, here GRU4Rec" in message
    assert "missing: emb_dropout" in message or "missing: gru_layers" in message
    assert "unexpected: position_embedding.weight" in message


def test_another_shape_names_both_shapes(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", epochs=1)
    trainer.fit(train, valid)
    other, _, _, test = build("SASRec", inner_size=6)
    with pytest.raises(CheckpointError, match=r"\(model \(6, 8\), checkpoint \(8, 8\)\)"):
        other.evaluate(test)


def test_other_items_are_refused_even_if_there_are_as_many(build, toy, tmp_path):
    trainer, train, valid, test = build("SASRec", epochs=1)
    trainer.fit(train, valid)
    trainer.evaluate(test)
    folder = tmp_path / "renamed"
    toy.write_data(folder, name="j")
    other, train, valid, test = toy.build("SASRec", folder, tmp_path / "run")
    with pytest.raises(CheckpointError, match="vocabulary: checkpoint"):
        other.evaluate(test)
    other.resume(tmp_path / "run")
    with pytest.raises(CheckpointError, match="vocabulary: checkpoint"):
        other.fit(train, valid)


def test_other_training_rows_or_metric_are_refused(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", epochs=1)
    trainer.fit(train, valid)
    other, train, valid, _ = build("SASRec", train_prefixes=False, valid_metric="MRR@10")
    other.resume(tmp_path / "run")
    with pytest.raises(CheckpointError) as caught:
        other.fit(train, valid)
    assert "train_rows: checkpoint" in str(caught.value)
    assert "valid_metric: checkpoint ndcg@20, here mrr@10" in str(caught.value)


def test_another_optimiser_is_refused(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", epochs=1)
    trainer.fit(train, valid)
    other, _, _, _ = build("SASRec", learner="sgd")
    with pytest.raises(CheckpointError, match="'optimizer': 'Adam'.*'optimizer': 'SGD'"):
        other.resume(tmp_path / "run")


class Scheduled(MMTrainerMixin, Trainer):
    """A later trainer's way to add state: one more entry of stateful()."""

    def __init__(self, config, model):
        super().__init__(config, model)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=1, gamma=0.5)

    def stateful(self):
        return {**super().stateful(), "scheduler": self.scheduler}

    def _train_epoch(self, *args, **kwargs):
        total = super()._train_epoch(*args, **kwargs)
        self.scheduler.step()
        return total


def test_schedulers_are_resumed(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", trainer=Scheduled, learning_rate=0.08, epochs=2)
    trainer.fit(train, valid)
    again, train, valid, _ = build("SASRec", trainer=Scheduled, learning_rate=0.08, epochs=3)
    again.resume(tmp_path / "run")
    assert again.scheduler.last_epoch == 2
    again.fit(train, valid)
    assert again.optimizer.param_groups[0]["lr"] == 0.01
    plain, _, _, _ = build("SASRec")
    with pytest.raises(CheckpointError, match="scheduler"):
        plain.resume(tmp_path / "run")
