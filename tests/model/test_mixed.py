"""Mixed precision on a CPU: it reaches what docs/scale.md says, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recbole_mm.testing.case import SMALL, Case, backward, total, write_toy

REACHED = {"SRIM": {}, "MDSRec": {"modalities": ["text"]}}
NOT_REACHED = {"AlterRec": {}, "MMSBR": {"use_price": False}, "UniSRec": {}, "NFRec": {}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("toy")
    write_toy(made, SMALL, ["text"])
    return made


@pytest.mark.parametrize("name", [*REACHED, *NOT_REACHED])
def test_losses_and_gradients_are_near_and_in_float32(folder: Path, name: str) -> None:
    keys = {**REACHED, **NOT_REACHED}[name]
    prepared = Case(name, keys, folder).prepare()
    model, batch = prepared.model.eval(), next(iter(prepared.train))
    found = []
    for mixed in (False, True):
        torch.manual_seed(1)
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", enabled=mixed):
            loss = total(model.calculate_loss(batch))
        backward(loss)
        weights = [weight.grad for weight in model.parameters() if weight.grad is not None]
        found.append((loss.detach(), torch.cat([one.flatten().clone() for one in weights])))
    (plain, gradient), (other, others) = found
    assert other.dtype == others.dtype == torch.float32
    assert torch.equal(gradient, others) == (name in NOT_REACHED)
    torch.testing.assert_close(other, plain, rtol=0.01, atol=0.0)
    assert torch.nn.functional.cosine_similarity(gradient, others, dim=0) > 0.999
