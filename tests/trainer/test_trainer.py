from __future__ import annotations

import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer

from recbole_mm.errors import ConfigError, TrainingError
from recbole_mm.evaluation.ranking import metrics_from_ranks
from recbole_mm.files import BEST, LAST
from recbole_mm.trainer.base import MMTrainerMixin, trainer_class
from recbole_mm.trainer.checkpoint import load_checkpoint

PLAIN = SimpleNamespace(load_trainer=lambda: None)


def test_metrics_ranks_and_files_of_a_run(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer, train, valid, test = build("SASRec", epochs=3)
    score, result = trainer.fit(train, valid)
    assert len(trainer.history) == 3
    assert score == result["ndcg@20"] == max(e["valid"]["ndcg@20"] for e in trainer.history)
    assert trainer.history[trainer.best_epoch]["valid"] == result
    metrics = trainer.evaluate(test)
    assert trainer.ranks.shape == (len(test.dataset),)
    counted = metrics_from_ranks(trainer.ranks, [10, 20], ["Hit", "MRR", "NDCG"])
    assert metrics == pytest.approx(counted, abs=1e-9)
    assert all(type(value) is float for value in metrics.values())
    assert sorted(os.listdir(tmp_path)) == ["run"]
    assert sorted(os.listdir("run")) == [BEST, LAST]


def test_the_loss_is_the_mean_over_batches_and_falls(build):
    trainer, train, valid, _ = build("SASRec", epochs=3, learning_rate=0.01)
    seen = []
    loss_of = trainer.model.calculate_loss

    def remember(interaction):
        loss = loss_of(interaction)
        seen.append(loss.item())
        return loss

    trainer.model.calculate_loss = remember
    trainer.fit(train, valid)
    batches = len(train)
    assert len(seen) == 3 * batches
    losses = [epoch["loss"]["loss"] for epoch in trainer.history]
    assert losses[1] == pytest.approx(np.mean(seen[batches : 2 * batches]), rel=1e-12)
    assert losses[2] < losses[0]


def test_ranks_do_not_depend_on_the_evaluation_batch(build):
    found = []
    for size in (1, 3, 4096):
        trainer, train, valid, test = build("GRU4Rec", epochs=1, eval_batch_size=size)
        trainer.fit(train, valid)
        found.append((trainer.evaluate(test), trainer.ranks.tolist()))
    assert found[0][1] == found[1][1] == found[2][1]
    assert found[0][0] == found[1][0] == found[2][0]


class Parts(SASRec):
    loss_names = ("ce", "half")

    def start_epoch(self, epoch):
        self.started = [*getattr(self, "started", []), (epoch, self.training)]

    def calculate_loss(self, interaction):
        loss = super().calculate_loss(interaction)
        return loss, loss * 0.5


def test_loss_parts_by_name_and_the_epoch_hook(build, caplog):
    caplog.set_level(logging.INFO, "recbole_mm")
    trainer, train, valid, _ = build("SASRec", model_class=Parts, trainer=None)
    trainer.fit(train, valid)
    for epoch in trainer.history:
        assert epoch["loss"]["half"] == pytest.approx(epoch["loss"]["ce"] / 2)
    assert [epoch for epoch, _ in trainer.model.started] == [0, 1]
    line = next(m for m in caplog.messages if "training ce" in m)
    assert line.startswith("epoch 1: training ce ")
    assert not any("\x1b" in message for message in caplog.messages)


class Constant(SASRec):
    def full_sort_predict(self, interaction):
        scores = super().full_sort_predict(interaction)
        return torch.full_like(scores, 0.25)


def test_constant_scores_rank_in_the_middle(build, caplog):
    trainer, train, valid, test = build("SASRec", model_class=Constant)
    trainer.fit(train, valid)
    trainer.evaluate(test)
    n_items = test.dataset.item_num - 1
    assert set(trainer.ranks) == {1 + n_items // 2}
    assert trainer.tied == len(trainer.ranks)
    assert "share their score" in caplog.text


def test_early_stopping_is_recboles(build):
    # Equal scores: RecBole counts each as an improvement, so patience never runs out.
    trainer, train, valid, _ = build("SASRec", model_class=Constant, epochs=4, stopping_step=1)
    trainer.fit(train, valid)
    assert (len(trainer.history), trainer.best_epoch, trainer.stopped) == (4, 3, False)


class Worse(SASRec):
    """Ranks the target first in the first validation and last from then on."""

    def full_sort_predict(self, interaction):
        scores = torch.zeros(len(interaction), self.n_items)
        sign = 1.0 if self.epoch == 0 else -1.0
        scores[torch.arange(len(interaction)), interaction[self.ITEM_ID]] = sign
        return scores

    def start_epoch(self, epoch):
        self.epoch = epoch


def test_training_stops_and_keeps_the_best_epoch(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", model_class=Worse, epochs=9, stopping_step=2)
    score, result = trainer.fit(train, valid)
    assert (len(trainer.history), trainer.best_epoch, trainer.stopped) == (4, 0, True)
    assert score == 1.0 and result["mrr@10"] == 1.0
    assert load_checkpoint(tmp_path / "run" / BEST)["epoch"] == 0
    assert load_checkpoint(tmp_path / "run" / LAST)["epoch"] == 3


def test_without_validation_the_newest_weights_are_the_result(build, tmp_path):
    trainer, train, _, test = build("SASRec")
    assert trainer.fit(train) == (-np.inf, None)
    assert load_checkpoint(tmp_path / "run" / BEST)["epoch"] == 1
    assert trainer.evaluate(test)["hit@20"] >= 0


def test_no_epochs_still_leaves_a_model(build, tmp_path):
    trainer, train, valid, test = build("SASRec", epochs=3, eval_step=3)
    trainer.epochs = 0
    trainer.fit(train, valid)
    assert load_checkpoint(tmp_path / "run" / BEST)["epoch"] == -1
    assert trainer.evaluate(test)


def test_pop_trains_one_epoch_and_survives_its_checkpoint(build):
    trainer, train, valid, test = build("Pop", epochs=7, eval_step=5)
    trainer.fit(train, valid)
    assert len(trainer.history) == 1
    metrics, ranks = trainer.evaluate(test), trainer.ranks
    fresh, _, _, test = build("Pop")
    assert int(fresh.model.item_cnt.sum()) == 0
    assert fresh.evaluate(test) == metrics
    assert np.array_equal(fresh.ranks, ranks)
    counts = np.bincount(train.dataset.inter_feat["item_id"], minlength=train.dataset.item_num)
    assert fresh.model.item_cnt.flatten().tolist() == counts.tolist()


def test_what_counting_chose_on_validation_survives_its_checkpoint(build):
    trainer, train, valid, test = build("Counting")
    before = dict(trainer.model.chosen)
    trainer.fit(train, valid)
    chosen = dict(trainer.model.chosen)
    assert chosen != before  # the ring of items has a direction
    assert len(trainer.history) == 1
    metrics = trainer.evaluate(test)
    fresh, _, _, test = build("Counting")
    assert fresh.model.chosen == before
    assert fresh.evaluate(test) == metrics
    assert fresh.model.chosen == chosen


class Tuned(SASRec):
    """Notes when it may choose."""

    def tune(self, valid_data):
        assert not self.training and not torch.is_grad_enabled()
        torch.rand(3)
        self.asked = [*getattr(self, "asked", ()), len(valid_data.dataset)]


def test_a_model_chooses_once_before_the_first_validation(build, tmp_path):
    plain, train, valid, _ = build("SASRec", run_folder=tmp_path / "plain", epochs=3)
    plain.fit(train, valid)
    trainer, train, valid, _ = build("SASRec", run_folder=tmp_path / "tuned", epochs=3,
                                     model_class=Tuned)  # fmt: skip
    trainer.fit(train, valid)
    assert trainer.model.asked == [len(valid.dataset)]
    assert trainer.history == plain.history


def test_sasrecf_survives_its_checkpoint_without_its_dataset(build, tmp_path):
    trainer, train, valid, test = build("SASRecF")
    trainer.fit(train, valid)
    metrics = trainer.evaluate(test)
    stored = load_checkpoint(tmp_path / "run" / BEST)
    assert stored["other"] == {}
    assert any(key.startswith("feature_embed_layer.") for key in stored["model"])
    fresh, _, _, test = build("SASRecF", seed=99)
    assert fresh.evaluate(test, load_best_model=False) != metrics
    assert fresh.evaluate(test) == metrics


class SpoiledLoss(SASRec):
    batches = 0
    value = float("nan")

    def calculate_loss(self, interaction):
        self.batches += 1
        loss = super().calculate_loss(interaction)
        return loss * self.value if self.batches == self.at else loss


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_run(build, tmp_path, value):
    trainer, train, valid, _ = build("SASRec", model_class=SpoiledLoss, learning_rate=0.0125)
    trainer.model.value = float(value)
    trainer.model.at = len(train) + 2
    with pytest.raises(TrainingError) as caught:
        trainer.fit(train, valid)
    message = str(caught.value)
    assert f"epoch 2, batch 2 of {len(train)}" in message
    assert f"SpoiledLoss is {value}" in message
    assert "0.0125" in message and "learning_rate" in message
    assert str(tmp_path / "run" / LAST) in message
    assert load_checkpoint(tmp_path / "run" / LAST)["epoch"] == 0


class SpoiledWeight(SASRec):
    def start_epoch(self, epoch):
        self.epoch = epoch

    def calculate_loss(self, interaction):
        loss = super().calculate_loss(interaction)
        # The derivative of sqrt at 0 is infinite: the loss is finite, the next weights are not.
        weight = self.LayerNorm.bias
        return loss + torch.sqrt(weight * 0).sum() if self.epoch == 1 else loss


def test_weights_that_are_not_finite_are_never_saved(build, tmp_path):
    trainer, train, valid, _ = build("SASRec", model_class=SpoiledWeight, train_batch_size=4096)
    with pytest.raises(TrainingError, match="LayerNorm.bias of SpoiledWeight is not finite"):
        trainer.fit(train)
    assert load_checkpoint(tmp_path / "run" / LAST)["epoch"] == 0


class NeverTraining(SASRec):
    def calculate_loss(self, interaction):
        loss = super().calculate_loss(interaction)
        self.eval()
        return loss


def test_a_model_that_leaves_training_mode_is_refused(build):
    trainer, train, valid, _ = build("SASRec", model_class=NeverTraining)
    with pytest.raises(TrainingError, match="not in training mode in epoch 1, batch 1"):
        trainer.fit(train, valid)


class SpoiledScores(SASRec):
    def full_sort_predict(self, interaction):
        scores = super().full_sort_predict(interaction)
        scores[interaction[self.USER_ID] == self.session, 3] = self.value
        return scores


@pytest.mark.parametrize(
    ("value", "said"), [("nan", "1 NaN and 0 inf"), ("inf", "0 NaN and 1 inf")]
)
def test_scores_that_are_not_finite_are_refused(build, value, said):
    trainer, _, valid, _ = build("SASRec", model_class=SpoiledScores, eval_batch_size=8)
    trainer.model.value = float(value)
    trainer.model.session = int(valid.dataset.inter_feat["session_id"][9])
    with pytest.raises(TrainingError, match=f"SpoiledScores gave {said}.* for 8 rows"):
        trainer.evaluate(valid, load_best_model=False)


class Interrupted(SASRec):
    def start_epoch(self, epoch):
        if epoch == self.at:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_last_epoch_and_says_how_to_go_on(build, tmp_path, caplog):
    trainer, train, valid, _ = build("SASRec", model_class=Interrupted, epochs=5)
    trainer.model.at = 2
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(train, valid)
    assert f"--resume={tmp_path / 'run'}" in caplog.text
    assert load_checkpoint(tmp_path / "run" / LAST)["epoch"] == 1


def test_ctrl_c_before_the_first_epoch(build, caplog):
    trainer, train, valid, _ = build("SASRec", model_class=Interrupted)
    trainer.model.at = 0
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(train, valid)
    assert "nothing to resume" in caplog.text


def test_tensorboard_goes_into_the_run_folder(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer, train, valid, _ = build("SASRec", tensorboard=True)
    trainer.fit(train, valid)
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_trainers_with_a_procedure_of_their_own_are_refused():
    class OwnFit(Trainer):
        def fit(self, *args, **kwargs):
            return 0.0, {}

    class Extended(MMTrainerMixin):
        pass

    with pytest.raises(ConfigError, match="SASRec is trained by OwnFit"):
        trainer_class(SimpleNamespace(load_trainer=lambda: OwnFit), SASRec)
    assert trainer_class(SimpleNamespace(load_trainer=lambda: Extended), SASRec) is Extended
    made = trainer_class(PLAIN, SASRec)
    assert made.__name__ == "SASRecRun" and issubclass(made, MMTrainerMixin)


class Anomalies(SASRec):
    def calculate_loss(self, interaction):
        self.detecting = torch.is_anomaly_enabled()
        return super().calculate_loss(interaction)


def test_recboles_anomaly_detection_is_off_while_training(build):
    # Fails once importing RecBole's models no longer turns it on; then drop the remedy.
    assert torch.is_anomaly_enabled()
    trainer, train, valid, _ = build("SASRec", model_class=Anomalies, epochs=1)
    trainer.fit(train, valid)
    assert trainer.model.detecting is False


def test_a_long_epoch_says_a_word_now_and_then(build, monkeypatch, caplog):
    monkeypatch.setattr("recbole_mm.trainer.base._SILENCE", 0.0)
    trainer, train, valid, _ = build("SASRec", epochs=1, train_batch_size=64)
    with caplog.at_level(logging.INFO):
        trainer.fit(train, valid)
    words = [r.message for r in caplog.records if r.message.startswith("epoch 1: batch")]
    assert len(train) > 2 and len(words) == len(train) - 1
    assert words[0].startswith(f"epoch 1: batch 2 of {len(train)}, loss ")
    assert words[-1].endswith(" s left of the epoch")


def test_a_short_epoch_says_nothing_in_between(build, caplog):
    trainer, train, valid, _ = build("SASRec", epochs=1)
    with caplog.at_level(logging.INFO):
        trainer.fit(train, valid)
    assert "batch" not in caplog.text


def test_enable_amp_on_a_cpu_trains_in_bfloat16_and_evaluates_in_full(build):
    losses, weights = [], []
    for amp in (False, True):
        trainer, train, valid, _ = build("SASRec", epochs=1, enable_amp=amp)
        trainer.fit(train, valid, verbose=False)
        losses.append(trainer.history[0]["loss"]["loss"])
        weights.append(trainer.model.item_embedding.weight.dtype)
        scores = trainer.model.full_sort_predict(next(iter(valid))[0])
        assert scores.dtype == torch.float32
    assert weights == [torch.float32] * 2
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=0.01)
