"""Saving a run after every epoch and going on from there as if it had never stopped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from recbole_mm import processes
from recbole_mm.errors import CheckpointError, TrainingError
from recbole_mm.files import BEST, LAST
from recbole_mm.trainer import checkpoint
from recbole_mm.trainer.checkpoint import State

if TYPE_CHECKING:
    from recbole.data.dataloader import AbstractDataLoader, TrainDataLoader
    from recbole.model.abstract_recommender import AbstractRecommender

logger = logging.getLogger(__name__)

# Attributes of the trainer that are stored and put back by name.
_COUNTERS = (
    "cur_step",
    "stopped",
    "best_epoch",
    "best_valid_score",
    "best_valid_result",
    "history",
    "seconds",
)

# What a checkpoint must have in common with the run that reads it.
Identity = dict[str, str | int]


class Stateful(Protocol):
    """An optimiser, a schedule, or whatever else has a state of its own."""

    def state_dict(self) -> State:
        """Return the state."""

    def load_state_dict(self, state_dict: State) -> None:
        """Put a state back."""


class CheckpointMixin:
    """The part of a trainer that writes, loads and resumes checkpoints."""

    model: AbstractRecommender
    optimizer: Optimizer
    device: torch.device
    run_folder: Path
    saved_model_file: str
    start_epoch: int
    valid_metric: str
    best_epoch: int
    seconds: dict[str, float]
    earlier: float
    _identity: Identity
    _loader: TrainDataLoader | None = None
    _kept: bool = False
    _resumed: State | None = None

    def stateful(self) -> dict[str, Stateful]:
        """Return what has a state besides the model, by name.

        Each value has ``state_dict`` and ``load_state_dict``. A trainer with schedulers or more
        optimisers extends the dictionary; all of it is stored and resumed.
        """
        return {"optimizer": self.optimizer}

    def resume(self, run_folder: str | Path) -> int:
        """Continue a run after its last whole epoch; the next ``fit`` goes on from there.

        Reads ``last.safetensors``; if that is damaged, ``best.safetensors`` with a warning.

        Returns
        -------
        int
            The epoch to be trained next, counted from 0.

        Raises
        ------
        CheckpointError
            No readable checkpoint, or one of another model, optimiser or shape.
        """
        self.run_folder = Path(run_folder)
        self.saved_model_file = str(self.run_folder / BEST)
        path, state = _newest(self.run_folder)
        self._apply(path, state, None)
        self._load_stateful(state["stateful"])
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.earlier = float(self.seconds.get("total", 0.0))
        self.start_epoch = state["epoch"] + 1
        self._kept = Path(self.saved_model_file).exists()
        self._resumed = state
        logger.info(f"resuming {self.run_folder} with epoch {self.start_epoch + 1}")
        return self.start_epoch

    def load_model(self, path: str | Path, data: AbstractDataLoader | None = None) -> None:
        """Load the weights of a checkpoint into the model.

        Parameters
        ----------
        path
            The checkpoint.
        data
            A loader whose items must be those of the checkpoint; ``None`` checks shapes only.

        Raises
        ------
        CheckpointError
            Missing or damaged file, other model, other items, or weights that do not fit.
        """
        self._apply(path, checkpoint.load_checkpoint(path), data)

    def _apply(self, path: str | Path, state: State, data: AbstractDataLoader | None) -> None:
        """Put a checkpoint's weights into the model if it is a checkpoint of this model."""
        expected = self._identify(data)
        weights = state.get("model", {})
        differences = _identity_differences(state.get("identity", {}), expected)
        differences += checkpoint.state_differences(self.model.state_dict(), weights)
        if differences:
            raise _mismatch(path, differences)
        self.model.load_state_dict(weights)
        self.model.load_other_parameter(to_device(state["other"], self.device))

    def _identify(self, data: AbstractDataLoader | None) -> Identity:
        """Return what a checkpoint must have in common with this model and these items."""
        identity: Identity = {"model": type(self.model).__name__}
        if data is not None:
            dataset = data.dataset
            tokens = dataset.field2id_token[dataset.iid_field]
            identity["items"] = len(tokens)
            identity["vocabulary"] = checkpoint.vocabulary_hash(tokens)
        return identity

    def _meet(self, train_data: TrainDataLoader) -> None:
        """Take note of the training data; finish a resume that has been waiting for it."""
        self._loader = train_data
        self._identity = {
            **self._identify(train_data),
            "train_rows": len(train_data.dataset),
            "valid_metric": self.valid_metric,
        }
        state, self._resumed = self._resumed, None
        if state is None:
            return
        differences = _identity_differences(state["identity"], self._identity)
        if differences:
            raise _mismatch(self.run_folder, differences)
        if state["loader"] is not None:
            train_data.generator.set_state(state["loader"])
        # Last of all: nothing may draw a number between here and the first batch.
        checkpoint.set_rng_state(state["rng"])

    def _save(self, epoch: int, best: bool) -> None:
        """Write ``last.safetensors`` and, if ``best``, first the same as ``best.safetensors``.

        In this order a process killed in between resumes an epoch earlier and does it again.
        """
        self._check_weights(epoch)
        if best:
            self.best_epoch, self._kept = epoch, True
        if processes.leads():
            data = checkpoint.to_bytes(self._state(epoch))
            for name in (BEST, LAST) if best else (LAST,):
                checkpoint.write_checkpoint(self.run_folder / name, data)
        processes.wait()

    def amend_best(self) -> None:
        """Write what was changed in the model after training into ``best.safetensors``."""
        path = self.run_folder / BEST
        if processes.leads():
            state = checkpoint.load_checkpoint(path)
            model = {"model": self.model.state_dict(), "other": other_parameters(self.model)}
            checkpoint.save_checkpoint(path, {**state, **model})
        processes.wait()

    def _state(self, epoch: int) -> State:
        """Return everything that the rest of the training depends on."""
        generator = getattr(self._loader, "generator", None)
        return {
            **{name: getattr(self, name) for name in _COUNTERS},
            "identity": self._identity,
            "epoch": epoch,
            "model": self.model.state_dict(),
            "other": other_parameters(self.model),
            "stateful": {
                name: {"class": type(thing).__name__, "state": thing.state_dict()}
                for name, thing in self.stateful().items()
            },
            "rng": checkpoint.rng_state(),
            "loader": None if generator is None else generator.get_state(),
        }

    def _load_stateful(self, states: Mapping[str, State]) -> None:
        things = self.stateful()
        found = {name: entry["class"] for name, entry in states.items()}
        expected = {name: type(thing).__name__ for name, thing in things.items()}
        if found != expected:
            raise CheckpointError(
                f"the checkpoint in {self.run_folder} was trained with {found}, this run has "
                f"{expected}. Resume with the same learner, or start a new run."
            )
        for name, thing in things.items():
            try:
                thing.load_state_dict(states[name]["state"])
            except (ValueError, KeyError) as error:
                raise CheckpointError(
                    f"the {name} stored in {self.run_folder} does not fit: {error}. "
                    "Resume with the configuration of the run, or start a new run."
                ) from error

    def _check_weights(self, epoch: int) -> None:
        """Refuse to write weights that are not finite over a good checkpoint."""
        for name, weight in self.model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise TrainingError(
                    f"the weight {name} of {type(self.model).__name__} is not finite after epoch "
                    f"{epoch + 1} (learning rate {self._learning_rate()}). {self._last_good()} "
                    "Try a smaller learning_rate or clip_grad_norm={max_norm: 5}."
                )

    def _learning_rate(self) -> str:
        rates = {float(group["lr"]) for group in self.optimizer.param_groups}
        return ", ".join(f"{rate:g}" for rate in sorted(rates))

    def _last_good(self) -> str:
        last = self.run_folder / LAST
        return f"The last good checkpoint is {last}." if last.exists() else "No checkpoint yet."


def _newest(folder: Path) -> tuple[Path, State]:
    """Return the newest checkpoint of a run folder that can be read, and its content."""
    last, best = folder / LAST, folder / BEST
    try:
        return last, checkpoint.load_checkpoint(last)
    except CheckpointError as error:
        if not best.exists():
            raise
        logger.warning(f"{error} Falling back to {best}.")
    return best, checkpoint.load_checkpoint(best)


def _identity_differences(found: Mapping[str, object], expected: Identity) -> list[str]:
    return [
        f"{key}: checkpoint {_brief(found.get(key))}, here {_brief(value)}"
        for key, value in expected.items()
        if found.get(key) != value
    ]


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


def _mismatch(path: str | Path, differences: list[str]) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {path} belongs to another run:\n  "
        + "\n  ".join(differences)
        + "\nUse the model, data and configuration (config.yaml) of the run that wrote it."
    )


def other_parameters(model: AbstractRecommender) -> State:
    """Return what the model declares besides its weights, as Pop does with its counts.

    Modules are left out: SASRecF and its like declare a layer whose weights are in the state
    dictionary already and whose other content comes from the data when the model is built.
    """
    declared = model.other_parameter() or {}
    for name, value in declared.items():
        if isinstance(value, nn.Module) and all(value is not part for part in model.modules()):
            raise CheckpointError(f"other_parameter {name!r} is a module outside of the model.")
    return {name: value for name, value in declared.items() if not isinstance(value, nn.Module)}


def to_device(value: object, device: torch.device) -> object:
    """Move the tensors of a nested state to a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(item, device) for item in value)
    return value
