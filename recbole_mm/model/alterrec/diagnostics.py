"""How AlterRec's branches stand to each other: overlap of their rankings, sizes of vectors, scores.

Reads training and validation rows only, evenly spread ones, and draws no random number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_mm.model.alterrec.branches import Branch
from recbole_mm.model.alterrec.negatives import NegativeSampler, top_items
from recbole_mm.model.alterrec.settings import AlterRecSettings

if TYPE_CHECKING:
    from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
    from recbole.data.dataset import Dataset

ROWS, BATCH = 2048, 256


class Alternating(Protocol):
    """What is read of `recbole_mm.model.alterrec.model.AlterRec`."""

    ITEM_ID: str
    n_items: int
    device: torch.device
    training: bool
    settings: AlterRecSettings
    sampler: NegativeSampler
    branches: nn.ModuleDict

    def train(self, mode: bool = True) -> object:
        """Switch between training and evaluation."""

    def network(self, name: str) -> Branch:
        """Return a network by name."""

    def current_tables(self) -> Mapping[str, Tensor]:
        """Return the item vectors ``(N, d)`` of each network."""

    def inputs(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """Return item ids ``(B, T)`` and lengths ``(B,)``."""

    def score_parts(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the scores ``(B, N)`` of each network."""


@torch.no_grad()
def diagnose(
    model: Alternating, train_data: AbstractDataLoader, valid_data: AbstractDataLoader
) -> dict[str, float]:
    """Return shares, lengths and spreads by name.

    ``<branch>/target_in_top``: share of training rows whose target is among the branch's best
    ``num_augmented_positives`` items. ``<branch>/target_in_window``: share whose target lies in the
    window from which the other branch would take its hard negatives. ``<branch>/item_norm`` and
    ``<branch>/session_norm``: mean lengths of item and session vectors. ``<branch>/score_std``:
    standard deviation of a session's scores over the items, what ``fusion_weight`` really weighs.

    Parameters
    ----------
    model
        In whatever mode; it is put back.
    train_data, valid_data
        Loaders; at most 2,048 rows of each are read.
    """
    training = model.training
    model.train(False)
    try:
        return {**_overlap(model, train_data.dataset), **_sizes(model, valid_data.dataset)}
    finally:
        model.train(training)


def _batches(dataset: Dataset, device: torch.device) -> list[Interaction]:
    """Return evenly spread rows in batches."""
    count = len(dataset)
    places = np.unique(np.linspace(0, count - 1, num=min(count, ROWS)).astype(np.int64))
    rows = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
    return [dataset[torch.from_numpy(some)].to(device) for some in rows]


def _overlap(model: Alternating, dataset: Dataset) -> dict[str, float]:
    """Return the shares of training rows whose target a branch, as teacher, ranks high."""
    hits: dict[str, list[Tensor]] = {}
    p = min(model.settings.num_augmented_positives, model.n_items - 1)
    for batch in _batches(dataset, model.device):
        target = batch[model.ITEM_ID].unsqueeze(1)
        for name, scores in model.score_parts(batch).items():
            top, window = top_items(scores, p), model.sampler.in_window(scores)
            for what, items in (("top", top), ("window", window)):
                found = (items == target).any(dim=1)
                hits.setdefault(f"{name}/target_in_{what}", []).append(found)
    return {name: float(torch.cat(found).float().mean()) for name, found in hits.items()}


def _sizes(model: Alternating, dataset: Dataset) -> dict[str, float]:
    """Return the lengths of vectors and the spread of scores, over validation rows."""
    found: dict[str, list[Tensor]] = {}
    tables = model.current_tables()
    for batch in _batches(dataset, model.device):
        item_seq, lengths = model.inputs(batch)
        for name in model.branches:
            branch = model.network(name)
            query = branch.query(tables[name], item_seq, lengths)
            scores = query @ tables[name][1:].T
            session = torch.linalg.vector_norm(query, dim=1) * branch.temperature
            found.setdefault(f"{name}/session_norm", []).append(session)
            found.setdefault(f"{name}/score_std", []).append(scores.std(dim=1))
    items = {f"{name}/item_norm": _mean_length(tables[name][1:]) for name in model.branches}
    return {**items, **{name: float(torch.cat(parts).mean()) for name, parts in found.items()}}


def _mean_length(vectors: Tensor) -> float:
    return float(torch.linalg.vector_norm(vectors, dim=1).mean())
