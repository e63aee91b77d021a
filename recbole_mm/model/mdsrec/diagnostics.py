"""Numbers that tell whether MDSRec's graphs, centres and injection do anything.

By name, with ``<m>`` a modality:

``injection_ratio``
    Median of ``|Z_i| / |W_i|``: how far co-occurring items drown an item's own vector.
``graph_kept_<m>``
    Share of the neighbours by features alone that injection leaves in place.
``graph_overlap_<m>_<n>``
    Share of neighbours that two modalities have in common.
``relation_entropy_<m>``
    Mean entropy of the choice of centres in nats; ``ln k`` says that nothing is chosen.
``center_cosine_<m>``
    Mean cosine between the centres of a session; near 1 they are all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Protocol

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_mm.graph.nearest import nearest_items, overlap
from recbole_mm.model.layers import length, unit
from recbole_mm.model.mdsrec.graphs import Injection

# Items that stand for all in comparisons of graphs.
_SAMPLE = 2000

Batches = Iterable[tuple[Interaction, ...]]


class Diagnosed(Protocol):
    """What is read of a `recbole_mm.model.mdsrec.model.MDSRec`."""

    n_items: int
    device: torch.device
    item_embedding: nn.Embedding
    injection: Injection | None
    pools: nn.ModuleDict

    def eval(self) -> object:
        """Leave training mode."""

    def feature(self, modality: str) -> tuple[Tensor, Tensor]:
        """Return a modality's features ``(N, d_m)`` and mask ``(N,)``."""

    def neighbours(self) -> dict[str, Tensor]:
        """Return each modality's neighbours ``(N, H)``."""

    def inputs(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """Return item ids ``(B, T)`` and lengths ``(B,)``."""

    def current_tables(self) -> Mapping[str, Tensor]:
        """Return the item tables."""

    def sessions(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return each stream's session vectors ``(B, d)`` and centres ``(B, k, d)``."""

    def relation(self, session: Tensor, centers: Tensor) -> Tensor:
        """Return how much each centre concerns each session ``(B, k)``."""


@torch.no_grad()
def diagnose(model: Diagnosed, train_data: Batches, valid_data: Batches) -> dict[str, float]:
    """Return the numbers above, as far as the settings have them.

    Parameters
    ----------
    model
        It is left in evaluation mode.
    train_data
        Not read.
    valid_data
        RecBole's loader of validation rows.
    """
    model.eval()
    found = dict(_graphs(model))
    if model.injection is not None:
        table = model.item_embedding.weight
        ratio = length(model.injection(table)) / length(table)
        found["injection_ratio"] = float(ratio[1:].median())
    return {**found, **_relations(model, valid_data)}


def _graphs(model: Diagnosed) -> Iterator[tuple[str, float]]:
    """Compare neighbours with and without injection, and across modalities."""
    step = max(1, (model.n_items - 1) // _SAMPLE)
    rows = np.arange(1, model.n_items, step)
    # The first neighbour is the item itself.
    lists = {kind: near.cpu().numpy()[rows, 1:] for kind, near in model.neighbours().items()}
    for kind, near in lists.items():
        features = model.feature(kind)[0].cpu()
        raw = nearest_items(features, max(near.shape[1], 1), torch.from_numpy(rows))
        yield f"graph_kept_{kind}", overlap(raw[:, : near.shape[1]], near)
    for one, other in combinations(lists, 2):
        yield f"graph_overlap_{one}_{other}", overlap(lists[one], lists[other])


def _relations(model: Diagnosed, valid_data: Batches) -> dict[str, float]:
    """Look at the choice of centres in the validation rows."""
    sums: dict[str, float] = {}
    rows = 0
    for batch in valid_data if len(model.pools) else ():
        interaction = batch[0].to(model.device)
        rows += len(interaction)
        encoded = model.sessions(*model.inputs(interaction), model.current_tables())
        for kind, (session, centers) in encoded.items():
            if centers is None:
                continue
            entropy = torch.special.entr(model.relation(session, centers)).sum()
            names = (f"relation_entropy_{kind}", f"center_cosine_{kind}")
            for name, value in zip(names, (entropy, _likeness(centers).sum()), strict=True):
                sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / rows for name, value in sums.items()}


def _likeness(centers: Tensor) -> Tensor:
    """Return the mean cosine of different centres ``(B, k, d)`` per row; NaN for a single one."""
    count = centers.shape[1]
    squared: Tensor = unit(centers).sum(dim=1).square().sum(dim=1)
    return (squared - count) / (count * (count - 1)) if count > 1 else squared * torch.nan
