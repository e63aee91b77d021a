"""The contract suite itself: an honest toy passes, each broken one is caught by name."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.errors import ConfigError, MMError
from recbole_mm.registry import register_model, unregister_model
from recbole_mm.testing import CHECKS, ContractError, Overfit, check_model

WIDTH = 16
GUIDE = Path(__file__).parents[1] / "docs" / "adding_a_model.md"


class Honest(SequentialRecommender):
    """Scores by the mapped mean of the session's item vectors."""

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.items = nn.Embedding(self.n_items, WIDTH, padding_idx=0)
        self.project = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.1)

    def table(self) -> Tensor:
        return self.items.weight

    def encode(self, item_seq: Tensor, lengths: Tensor, table: Tensor) -> Tensor:
        real = (item_seq > 0).unsqueeze(-1)
        mean = (self.dropout(table[item_seq]) * real).sum(dim=1) / lengths.unsqueeze(1)
        return self.project(mean)

    def score(self, interaction: Any) -> Tensor:
        table = self.table()
        query = self.encode(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], table)
        return query @ table.T

    def calculate_loss(self, interaction: Any) -> Tensor:
        return F.cross_entropy(self.score(interaction)[:, 1:], interaction[self.ITEM_ID] - 1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        return self.score(interaction)

    def predict(self, interaction: Any) -> Tensor:
        target = interaction[self.ITEM_ID].unsqueeze(1)
        return self.score(interaction).gather(1, target).squeeze(1)


class ReadsTheTarget(Honest):
    def full_sort_predict(self, interaction: Any) -> Tensor:
        hint = F.one_hot(interaction[self.ITEM_ID], self.n_items)
        return self.score(interaction) + 1e-4 * hint


class LeaksPaddingColumns(Honest):
    def encode(self, item_seq: Tensor, lengths: Tensor, table: Tensor) -> Tensor:
        real = (item_seq > 0).unsqueeze(-1)
        return self.project((self.dropout(table[item_seq]) * real).mean(dim=1))


class LeaksThePaddingVector(Honest):
    def encode(self, item_seq: Tensor, lengths: Tensor, table: Tensor) -> Tensor:
        summed = self.dropout(self.items(item_seq)).sum(dim=1)
        return self.project(summed / lengths.unsqueeze(1))


class StaysInEvaluationMode(Honest):
    def calculate_loss(self, interaction: Any) -> Tensor:
        loss = super().calculate_loss(interaction)
        self.eval()
        return loss


class NeverReturnsToTraining(Honest):
    """The habit of some released codes: ``eval()`` once, ``train()`` never again."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.evaluated = False

    def train(self, mode: bool = True) -> Honest:
        self.evaluated = getattr(self, "evaluated", False) or not mode
        return super().train(not self.evaluated)


class PredictsInTrainingMode(Honest):
    def full_sort_predict(self, interaction: Any) -> Tensor:
        self.train()
        return super().full_sort_predict(interaction)


class NeverDropsTheCache(Honest):
    kept: Tensor | None = None

    def table(self) -> Tensor:
        if self.training:
            return super().table()
        if self.kept is None:
            self.kept = super().table().detach().clone()
        return self.kept


class DropsTheCacheInTrainOnly(NeverDropsTheCache):
    def train(self, mode: bool = True) -> Honest:
        self.kept = None
        return super().train(mode)


class DropsTheCacheInLoadOnly(NeverDropsTheCache):
    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        self.kept = None
        return super().load_state_dict(*args, **kwargs)


class DropsGradients(Honest):
    def encode(self, item_seq: Tensor, lengths: Tensor, table: Tensor) -> Tensor:
        real = (item_seq > 0).unsqueeze(-1)
        mean = (table[item_seq] * real).sum(dim=1) / lengths.unsqueeze(1)
        return F.linear(mean, self.project.weight, self.project.bias.detach())


class DependsOnTheBatch(Honest):
    def full_sort_predict(self, interaction: Any) -> Tensor:
        table = self.score(interaction)
        return table - 0.01 * table[:1]


class FailsOnOneRow(Honest):
    def encode(self, item_seq: Tensor, lengths: Tensor, table: Tensor) -> Tensor:
        return super().encode(item_seq, lengths, table).squeeze()


class FailsOnOneItem(Honest):
    def encode(self, item_seq: Tensor, lengths: Tensor, table: Tensor) -> Tensor:
        return super().encode(item_seq, lengths, table) / (lengths - 1).unsqueeze(1)


class FlattensWrongly(Honest):
    def full_sort_predict(self, interaction: Any) -> Tensor:
        return self.score(interaction)[:, 1:]


class PredictsSomethingElse(Honest):
    def predict(self, interaction: Any) -> Tensor:
        return 1.001 * super().predict(interaction)


class DividesByZero(Honest):
    def calculate_loss(self, interaction: Any) -> Tensor:
        return super().calculate_loss(interaction) * torch.tensor(torch.inf)


class IgnoresTheSeed(Honest):
    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.draws = torch.Generator()
        self.draws.seed()

    def calculate_loss(self, interaction: Any) -> Tensor:
        return super().calculate_loss(interaction) * torch.rand(1, generator=self.draws).item()


class HidesState(Honest):
    """Scores by a count that is neither a parameter nor a buffer nor declared."""

    count = 0

    def calculate_loss(self, interaction: Any) -> Tensor:
        self.count += 1
        return super().calculate_loss(interaction)

    def table(self) -> Tensor:
        return super().table() * (1 + 0.01 * self.count)


class CountsUnseen(Honest):
    """Counts in the training sessions when it is built, and lets nobody keep it."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        counts = torch.from_numpy(dataset.train_sessions.items).bincount(minlength=self.n_items)
        self.register_buffer("popularity", counts.float(), persistent=False)

    def score(self, interaction: Any) -> Tensor:
        return super().score(interaction) + self.popularity


class SeesTheTestSessions(Honest):
    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        items = torch.from_numpy(dataset.leaky_sessions(targets=True).items)
        inputs = torch.from_numpy(dataset.leaky_sessions(targets=False).items)
        targets = items.bincount(minlength=self.n_items) - inputs.bincount(minlength=self.n_items)
        self.register_buffer("popularity", targets.float(), persistent=False)

    def score(self, interaction: Any) -> Tensor:
        return super().score(interaction) + self.popularity


class SquaresTheItems(Honest):
    def table(self) -> Tensor:
        items = super().table()
        return torch.softmax(items @ items.T, dim=1) @ items


class CannotLearn(Honest):
    def encode(self, item_seq: Tensor, lengths: Tensor, table: Tensor) -> Tensor:
        return self.project(torch.ones(len(item_seq), WIDTH))


class DividesByTheNormOfFeatures(Honest):
    modalities = ("text",)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        text = dataset.item_features.table("text")
        self.register_buffer("text", text / text.norm(dim=1, keepdim=True))
        self.map = nn.Linear(text.shape[1], WIDTH)

    def table(self) -> Tensor:
        return super().table() + self.map(self.text).nan_to_num(torch.inf)

    def calculate_loss(self, interaction: Any) -> Tensor:
        table = super().table() + self.map(self.text.nan_to_num(0.0))
        query = self.encode(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], table)
        return F.cross_entropy((query @ table.T)[:, 1:], interaction[self.ITEM_ID] - 1)


BROKEN = [
    (ReadsTheTarget, "target_unread"),
    (LeaksPaddingColumns, "padding_columns"),
    (LeaksThePaddingVector, "padding_item"),
    (StaysInEvaluationMode, "train_mode"),
    (NeverReturnsToTraining, "train_mode"),
    (PredictsInTrainingMode, "train_mode"),
    (NeverDropsTheCache, "cache"),
    (DropsTheCacheInTrainOnly, "cache"),
    (DropsTheCacheInLoadOnly, "cache"),
    (DropsGradients, "gradients"),
    (DependsOnTheBatch, "batch_neighbours"),
    (FailsOnOneRow, "batch_of_one"),
    (FailsOnOneItem, "session_of_one"),
    (FlattensWrongly, "scores"),
    (PredictsSomethingElse, "predict_agrees"),
    (DividesByZero, "epochs"),
    (IgnoresTheSeed, "same_seed"),
    (HidesState, "save_load"),
    (CountsUnseen, "pack"),
    (SeesTheTestSessions, "no_test_information"),
    (SquaresTheItems, "no_dense_square"),
    (CannotLearn, "overfits"),
    (DividesByTheNormOfFeatures, "missing_features"),
]


@pytest.fixture
def register() -> Iterator[Any]:
    names = []

    def add(cls: type) -> str:
        names.append(cls.__name__)
        register_model(cls.__name__, modalities=getattr(cls, "modalities", ()))(cls)
        return cls.__name__

    yield add
    for name in names:
        unregister_model(name)


def test_an_honest_model_passes_every_check(register: Any) -> None:
    passed = check_model(register(Honest), overfit=Overfit(learning_rate=0.02))
    expected = [*CHECKS]
    place = expected.index("missing_features")
    expected[place] = "missing_features (the model reads no feature files)"
    assert passed == expected


@pytest.mark.parametrize(("cls", "check"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_model_is_caught_by_name(register: Any, cls: type, check: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_model(register(cls), checks=[check], overfit=Overfit(epochs=20))
    assert isinstance(caught.value, MMError)
    assert caught.value.check == check
    assert f"{cls.__name__} fails the check '{check}': {caught.value.seen}" in str(caught.value)
    assert caught.value.expected in str(caught.value)


def test_every_check_has_a_model_that_breaks_it() -> None:
    assert {check for _, check in BROKEN} == set(CHECKS)


def test_a_broken_model_fails_the_whole_suite_too(register: Any) -> None:
    with pytest.raises(ContractError) as caught:
        check_model(register(ReadsTheTarget))
    assert caught.value.check == "target_unread"


def test_a_class_needs_no_name() -> None:
    assert check_model(Honest, checks=["scores", "gradients"]) == ["scores", "gradients"]


def test_excluded_checks_are_not_run_and_keep_their_reason(register: Any) -> None:
    passed = check_model(
        register(ReadsTheTarget), checks=["target_unread", "scores"],
        exclude={"target_unread": "shown on purpose"},
    )  # fmt: skip
    assert passed == ["target_unread (shown on purpose)", "scores"]


def test_unknown_check_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown check 'gradient'. Did you mean 'gradients'?"):
        check_model("SASRec", checks=["gradient"])


def test_unknown_key_stays_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="hiden_size"):
        check_model("SASRec", {"hiden_size": 16}, checks=["scores"])


def test_the_guide_to_adding_a_model_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    files = re.findall(r"`(\w+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in files] == ["mean_text.py", "mean_text.yaml", "check_mean_text.py"]
    for name, content in files:
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "mean_text", None)
    del sys.modules["mean_text"]  # so that the guide's module goes again with the test
    runpy.run_path(str(tmp_path / "check_mean_text.py"), run_name="__main__")
    unregister_model("MeanText")
    passed = capfd.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in passed] == list(CHECKS)
    # The model has no table of item vectors, so there is no padding vector to change.
    assert [line for line in passed if " " in line] == [
        "padding_item (the model has no item table with a row for the padding item)"
    ]
