"""What the checks of a model share: small data written to a folder, and runs of the model on it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType
from torch import Tensor, nn
from torch.optim import Optimizer

from recbole_mm import registry
from recbole_mm.config import MMConfig
from recbole_mm.data.atomic import write_atomic
from recbole_mm.data.card import DatasetCard
from recbole_mm.data.itememb import itememb_path, write_itememb
from recbole_mm.run.prepared import Prepared, needed_modalities, prepare
from recbole_mm.trainer.base import MMTrainerMixin, trainer_class

MAX_LENGTH = 8
# Items 0, 12, 24, ... have no features, no class and no price.
UNDESCRIBED = 12
_TRAINED = 0.7
_WIDTH = 12


# Weights, and what a model declares besides, modules left out.
Snapshot = tuple[dict[str, Tensor], dict[str, object]]
# What calculate_loss gives (one loss or its parts) or full_sort_predict (scores).
Given = Tensor | tuple[Tensor, ...]


class Failed(Exception):  # noqa: N818 (not an error of its own: check_model turns it into one)
    """A check failed; carries what was seen and what was expected."""


@dataclass(frozen=True)
class Overfit:
    """How hard a model tries to learn 50 sessions by heart.

    Attributes
    ----------
    learning_rate
        Of Adam.
    epochs
        Most passes over the 50 sessions.
    hit
        Share of the sessions whose target must come first.
    """

    learning_rate: float = 0.01
    epochs: int = 200
    hit: float = 0.99


@dataclass(frozen=True)
class Toy:
    """A generated data set: which one, and how large.

    Attributes
    ----------
    shuffled_evaluation
        Give the sessions of validation and test other items, out of the same multiset.
    """

    name: str
    n_items: int = 60
    n_sessions: int = 300
    shuffled_evaluation: bool = False


SMALL = Toy("toy")
OTHER_TEST = Toy("toy_other_test", shuffled_evaluation=True)
WIDE = Toy("toy_wide", n_items=1000, n_sessions=500)


def write_toy(folder: Path, toy: Toy, modalities: Sequence[str]) -> None:
    """Write a data set of short sessions with real times, item columns and feature files.

    An item is followed by one of three successors of its own four times out of five.
    """
    random = np.random.default_rng(7)
    sessions = [_session(random, toy.n_items) for _ in range(toy.n_sessions)]
    if toy.shuffled_evaluation:
        first = int(_TRAINED * len(sessions))
        late = random.permutation(np.concatenate(sessions[first:]))
        cuts = np.cumsum([len(session) for session in sessions[first:]])[:-1]
        sessions[first:] = np.split(late, cuts)
    inter = pd.DataFrame(
        [
            (f"s{number:04d}", f"i{item:04d}", 1.6e9 + 3600 * number + 60 * place)
            for number, session in enumerate(sessions)
            for place, item in enumerate(session)
        ],
        columns=["session_id", "item_id", "timestamp"],
    )
    types = {"session_id": "token", "item_id": "token", "timestamp": "float"}
    write_atomic(folder / toy.name / f"{toy.name}.inter", inter, types)
    _write_items(folder / toy.name, toy, modalities)
    DatasetCard(toy.name, timestamps="real", synthetic=True).save(folder / toy.name)


def _session(random: np.random.Generator, n_items: int) -> np.ndarray:
    """Draw one session of two to seven items."""
    items = [int(random.integers(n_items))]
    for _ in range(int(random.integers(1, MAX_LENGTH - 1))):
        successor = (7 * items[-1] + 1 + int(random.integers(3))) % n_items
        stray = int(random.integers(n_items))
        items.append(successor if random.random() < 0.8 else stray)
    return np.array(items)


def _write_items(folder: Path, toy: Toy, modalities: Sequence[str]) -> None:
    """Write the item columns and one feature file per modality, with gaps."""
    random = np.random.default_rng(8)
    tokens = [f"i{item:04d}" for item in range(toy.n_items)]
    described = [number for number in range(toy.n_items) if number % UNDESCRIBED]
    kinds = [f"kind{n % 5} kind{n % 7}" if n % UNDESCRIBED else "" for n in range(toy.n_items)]
    prices = [1.0 + 13 * n % 29 if n % UNDESCRIBED else np.nan for n in range(toy.n_items)]
    items = pd.DataFrame({"item_id": tokens, "class": kinds, "price": prices})
    types = {"item_id": "token", "class": "token_seq", "price": "float"}
    write_atomic(folder / f"{toy.name}.item", items, types)
    for modality in modalities:
        vectors = random.standard_normal((len(described), _WIDTH)).astype(np.float32)
        path = itememb_path(folder, toy.name, modality)
        write_itememb(path, modality, [tokens[number] for number in described], vectors)


class Fields(NamedTuple):
    """Names of the columns of a row."""

    session: str
    target: str
    history: str
    length: str


@dataclass
class Fit:
    """A model that was trained, and what was seen while it was.

    Attributes
    ----------
    losses
        One tuple of parts per batch, of all epochs.
    training
        ``model.training`` before and after each ``calculate_loss``.
    evaluating
        ``model.training`` before and after each ``full_sort_predict``.
    error
        What the trainer raised, or None.
    """

    prepared: Prepared
    trainer: MMTrainerMixin
    losses: list[tuple[float, ...]] = field(default_factory=list)
    training: list[bool] = field(default_factory=list)
    evaluating: list[bool] = field(default_factory=list)
    error: Exception | None = None

    @property
    def model(self) -> AbstractRecommender:
        """The trained model."""
        return self.prepared.model


@dataclass
class Case:
    """One model under test.

    Attributes
    ----------
    model
        Its name or class.
    overrides
        Configuration keys of the caller.
    folder
        Folder for data and runs.
    known_unused
        Patterns of parameter names that may stay without gradient.
    overfit
        How hard the check "overfits" tries.
    """

    model: str | type
    overrides: Mapping[str, object]
    folder: Path
    known_unused: Sequence[str] = ()
    overfit: Overfit = Overfit()
    _runs: int = 0

    def config(self, toy: Toy, **changes: object) -> MMConfig:
        """Return the configuration of a short run on a data set, with a run folder of its own."""
        self._runs += 1
        base = {
            "data_path": str(self.folder),
            "run_folder": str(self.folder / f"run{self._runs}"),
            "use_gpu": False,
            "epochs": 2,
            "train_batch_size": 64,
            "eval_batch_size": 32,
            "MAX_ITEM_LIST_LENGTH": MAX_LENGTH,
        }
        return MMConfig(self.model, toy.name, (), {**base, **self.overrides, **changes})

    def prepare(self, toy: Toy = SMALL, **changes: object) -> Prepared:
        """Write the data set if need be; build data, loaders and model."""
        config = self.config(toy, **changes)
        if not (self.folder / toy.name).is_dir():
            write_toy(self.folder, toy, needed_modalities(config, ("text", "image")))
        return prepare(config)

    def fit(self, toy: Toy = SMALL, **changes: object) -> Fit:
        """Train from scratch with the package's trainer, validating after each epoch."""
        prepared = self.prepare(toy, **changes)
        trainer = trainer_class(prepared.spec, type(prepared.model))(
            prepared.config, prepared.model
        )
        made = Fit(prepared, trainer)
        _watch(prepared.model, "calculate_loss", made.training, made.losses)
        _watch(prepared.model, "full_sort_predict", made.evaluating)
        try:
            trainer.fit(prepared.train, prepared.valid, verbose=False)
        except Exception as error:
            made.error = error
        return made

    @cached_property
    def first(self) -> Fit:
        """A run of two epochs, whatever became of it."""
        return self.fit()

    @property
    def trained(self) -> Fit:
        """The same run; raises what the trainer raised."""
        if self.first.error is not None:
            raise self.first.error
        return self.first

    @property
    def learns(self) -> bool:
        """Whether the model is trained by gradients at all."""
        return getattr(self.first.model, "type", None) != ModelType.TRADITIONAL

    @property
    def fields(self) -> Fields:
        """Names of the columns."""
        data = self.trained.prepared.dataset
        history, length = data.item_id_list_field, data.item_list_length_field
        return Fields(data.uid_field, data.iid_field, history, length)

    def twin(self, model: AbstractRecommender | None = None) -> AbstractRecommender:
        """Return a new model object with the weights of ``model`` (default: the trained one)."""
        prepared = self.trained.prepared
        source = prepared.model if model is None else model
        made = type(source)(prepared.config, prepared.train.dataset).to(prepared.config["device"])
        restore(made, snapshot(source))
        return made.eval()

    def batch(self, rows: Interaction | None = None) -> Interaction:
        """Return an evaluation batch as the loader makes it (default: of validation rows)."""
        prepared = self.trained.prepared
        rows = self.rows() if rows is None else rows
        part = prepared.valid.dataset.copy(rows)
        loader = type(prepared.valid)(prepared.config, part, prepared.valid._sampler)
        return next(iter(loader))[0]

    def rows(self, count: int = 32) -> Interaction:
        """Return the first validation rows."""
        return self.trained.prepared.valid.dataset.inter_feat[:count]

    def train_batches(self, rows: Interaction | None = None) -> list[Interaction]:
        """Return training batches as the loader makes them (default: of all training rows)."""
        prepared = self.trained.prepared
        dataset = prepared.train.dataset
        part = dataset if rows is None else dataset.copy(rows)
        return list(type(prepared.train)(prepared.config, part, prepared.train._sampler, True))


def _watch(
    model: AbstractRecommender,
    method: str,
    modes: list[bool],
    results: list[tuple[float, ...]] | None = None,
) -> None:
    """Note ``model.training`` before and after each call of a method, and what it returns."""
    original: Callable[[Interaction], Given] = getattr(model, method)

    def noted(interaction: Interaction) -> Given:
        modes.append(bool(model.training))
        result = original(interaction)
        modes.append(bool(model.training))
        if results is not None:
            parts = result if isinstance(result, tuple) else (result,)
            results.append(tuple(float(part.detach()) for part in parts))
        return result

    setattr(model, method, noted)


def snapshot(model: AbstractRecommender) -> Snapshot:
    """Return copies of a model's weights and of what it declares besides them."""
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    other = model.other_parameter() or {}
    plain = {name: value for name, value in other.items() if not isinstance(value, nn.Module)}
    return weights, copy.deepcopy(plain)


def restore(model: AbstractRecommender, state: Snapshot) -> None:
    """Put a snapshot into a model."""
    model.load_state_dict(state[0])
    model.load_other_parameter(copy.deepcopy(state[1]))


def scores(model: AbstractRecommender, batch: Interaction) -> Tensor:
    """Return the model's scores as a new tensor ``(B, n_items)``."""
    with torch.no_grad():
        return model.full_sort_predict(batch).detach().clone().view(len(batch), -1)


def total(loss: Given) -> Tensor:
    """Return the sum of the parts that ``calculate_loss`` gave."""
    parts = loss if isinstance(loss, tuple) else (loss,)
    return torch.stack([part.reshape(()) for part in parts]).sum()


def changed(batch: Interaction, **columns: Tensor) -> Interaction:
    """Return the batch with some columns replaced."""
    return Interaction({**batch.interaction, **columns})


def backward(loss: Tensor) -> None:
    """Compute gradients without anomaly detection, which RecBole's SINE turns on for everybody."""
    with torch.autograd.set_detect_anomaly(False):
        torch.autograd.backward(loss)


def step(model: AbstractRecommender, batch: Interaction, optimizer: Optimizer) -> float:
    """Make one training step and return the loss."""
    optimizer.zero_grad()
    loss = total(model.calculate_loss(batch))
    backward(loss)
    optimizer.step()
    return float(loss.detach())


def spec_name(model: str | type) -> str:
    """Return the name a model goes by in messages."""
    return registry.spec_of(model).name
