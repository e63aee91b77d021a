"""The training of AlterRec: turns, learning rates, checkpoints."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest
import torch

from recbole_mm.errors import CheckpointError
from recbole_mm.files import LAST
from recbole_mm.trainer.alterrec import AlterRecTrainer
from recbole_mm.trainer.checkpoint import load_checkpoint

SCRIPT = Path(__file__).with_name("alterrec_run.py")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("alterrec_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build(script, tmp_path):
    def make(**overrides):
        return script.build(tmp_path / "run", **overrides)

    return make


def weights(trainer, branch=None):
    """Return copies of a branch's weights, or of all."""
    module = trainer.model if branch is None else trainer.model.branches[branch]
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def trained(trainer):
    """Return the records of the trained epochs; epoch 0 is the untrained model."""
    return [record for record in trainer.history if record["epoch"]]


def same(one, two):
    return all(torch.equal(value, two[name]) for name, value in one.items())


def moments(trainer, branch):
    """Return copies of what Adam keeps for a branch."""
    state = trainer.optimizers[branch].state_dict()["state"]
    return [value.clone() for entry in state.values() for value in entry.values()]


def test_only_the_branch_whose_turn_it_is_moves(build):
    trainer, train, _ = build(epochs=8)
    assert isinstance(trainer, AlterRecTrainer)
    turns = []
    trainer._begin(train)
    for epoch in range(8):
        before = {name: (weights(trainer, name), moments(trainer, name)) for name in ("id", "text")}
        trainer._train(train, epoch, False)
        moved = [n for n in before if not same(weights(trainer, n), before[n][0])]
        turns += moved
        idle = "text" if moved == ["id"] else "id"
        kept = zip(moments(trainer, idle), before[idle][1], strict=True)
        assert all(torch.equal(now, then) for now, then in kept)
    # Bit by bit, and nothing but its own optimiser knows a branch.
    assert turns == ["id", "id", "text", "text"] * 2


def test_each_branch_has_its_own_rates(build):
    trainer, train, valid = build(
        epochs=12, lr_gamma=0.1, id_lr_step_size=2, text_lr_step_size=5, positive_augmentation=False
    )
    trainer.fit(train, valid)
    records = trained(trainer)
    found = [record["learning_rate"] for record in records]
    expected = [1e-3, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-3, 1e-3, 1e-5, 1e-5, 1e-3, 1e-4]
    assert found == pytest.approx(expected)
    assert [record["branch"] for record in records] == (["id"] * 2 + ["text"] * 2) * 3
    assert [record["negatives"] for record in records] == ["uniform"] * 4 + ["hard"] * 8
    assert all(set(record["loss"]) == {"main"} for record in records)
    stored = load_checkpoint(trainer.run_folder / LAST)["history"]
    assert stored == trainer.history


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, (0.001, 0.001)),
        ({"learning_rate": 0.02}, (0.02, 0.02)),
        ({"learning_rate": 0.02, "text_learning_rate": 0.005}, (0.02, 0.005)),
        ({"id_learning_rate": 0.3, "text_learning_rate": 0.4}, (0.3, 0.4)),
    ],
)
def test_learning_rates(build, keys, expected):
    trainer, _, _ = build(**keys)
    found = [trainer.optimizers[name].param_groups[0]["lr"] for name in ("id", "text")]
    assert tuple(found) == expected


def test_every_weight_has_exactly_one_optimiser(build):
    trainer, _, _ = build(weight_decay=0.25, learner="adamw")
    owned = []
    for optimizer in trainer.optimizers.values():
        assert isinstance(optimizer, torch.optim.AdamW)
        assert optimizer.param_groups[0]["weight_decay"] == 0.25
        owned += [id(weight) for weight in optimizer.param_groups[0]["params"]]
    assert sorted(owned) == sorted(id(weight) for weight in trainer.model.parameters())


def test_clipping_sees_the_present_branch_only(build, monkeypatch):
    trainer, train, _ = build(epochs=3, positive_augmentation=False)
    seen = []

    def noted(parameters, max_norm):
        found = {
            name.split(".")[1]
            for name, weight in trainer.model.named_parameters()
            if weight.grad is not None and bool(weight.grad.any())
        }
        assert max_norm == 0.5
        seen.append(sorted(found))

    monkeypatch.setattr("recbole.trainer.trainer.clip_grad_norm_", noted)
    trainer._begin(train)
    for epoch in range(3):
        trainer._train(train, epoch, False)
    # Two epochs of the ID branch leave a gradient behind; it must not count in the third.
    assert seen == [["id"]] * (2 * len(train)) + [["text"]] * len(train)


def test_a_single_branch_has_one_optimiser(build):
    trainer, train, valid = build(preset="no_id", positive_augmentation=False, epochs=2)
    trainer.fit(train, valid)
    assert list(trainer.stateful()) == ["text_optimizer", "text_schedule"]
    assert [record["branch"] for record in trained(trainer)] == ["text", "text"]


def test_patience_below_two_cycles_is_announced(build, caplog):
    caplog.set_level(logging.WARNING, "recbole_mm")
    build(stopping_step=7)
    assert "stopping_step=7 waits 7 epochs, less than two turns of both branches (8" in caplog.text
    caplog.clear()
    build(stopping_step=8)
    build(stopping_step=4, eval_step=2, epochs=9)
    build(stopping_step=1, preset="no_text", positive_augmentation=False)
    assert not caplog.records


# Resume


def test_twelve_epochs_are_seven_and_five_in_a_new_process(
    script, start, finish, differences, states, tmp_path
):
    # Epochs 7 and 8 are one block of the text branch: the first part stops in its middle.
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    script.main(f"{whole},12", f"{halves},7")
    stopped = load_checkpoint(halves / LAST)
    assert (stopped["epoch"], stopped["history"][-1]["branch"]) == (6, "text")
    assert differences(states(whole), states(halves)) != []
    finish(start(SCRIPT, f"{halves},12,resume"))
    assert differences(states(whole), states(halves)) == []
    ended = load_checkpoint(halves / LAST)
    assert list(ended["stateful"]) == [
        "id_optimizer", "text_optimizer", "id_schedule", "text_schedule",
    ]  # fmt: skip
    assert [ended["stateful"][f"{n}_schedule"]["state"]["last_epoch"] for n in ("id", "text")] == [
        6, 6,
    ]  # fmt: skip


def test_other_branches_cannot_be_resumed(build, tmp_path):
    trainer, train, valid = build(epochs=1)
    trainer.fit(train, valid)
    other, _, _ = build(preset="no_id", positive_augmentation=False)
    with pytest.raises(CheckpointError, match=r"branches\.id"):
        other.resume(tmp_path / "run")
