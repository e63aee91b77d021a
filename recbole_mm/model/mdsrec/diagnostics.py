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

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_mm.graph.nearest import nearest_items, overlap
from recbole_mm.model.layers import length, unit

# Items that stand for all in comparisons of graphs.
_SAMPLE = 2000


@torch.no_grad()
def diagnose(model: Any, valid_data: Any) -> dict[str, float]:
    """Return the numbers above, as far as the settings have them; the model is in evaluation mode.

    Parameters
    ----------
    model
        A `recbole_mm.model.mdsrec.model.MDSRec`.
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


def _graphs(model: Any) -> Iterator[tuple[str, float]]:
    """Compare neighbours with and without injection, and across modalities."""
    step = max(1, (model.n_items - 1) // _SAMPLE)
    rows = np.arange(1, model.n_items, step)
    lists = {kind: _others(graph.neighbours, rows) for kind, graph in model.graphs.items()}
    for kind, near in lists.items():
        features = model.features.table(kind).cpu()
        raw = nearest_items(features, max(near.shape[1], 1), torch.from_numpy(rows))
        yield f"graph_kept_{kind}", overlap(raw[:, : near.shape[1]], near)
    for one, other in combinations(lists, 2):
        yield f"graph_overlap_{one}_{other}", overlap(lists[one], lists[other])


def _others(neighbours: Tensor, rows: np.ndarray) -> np.ndarray:
    """Return the neighbours of some items without the item itself, ``(R, n)``."""
    near = neighbours.cpu().numpy()[rows]
    own = near == rows[:, None]
    if own.any():
        # Put the item itself behind the others and cut the column off.
        order = np.argsort(own, axis=1, kind="stable")
        near = np.take_along_axis(np.where(own, 0, near), order, axis=1)
        near = near[:, :-1]
    return near


def _relations(model: Any, valid_data: Any) -> dict[str, float]:
    """Look at the choice of centres in the validation rows."""
    sums: dict[str, float] = {}
    rows = 0
    for batch in valid_data if len(model.pools) else ():
        interaction = batch[0].to(model.device)
        rows += len(interaction)
        encoded = model.sessions(*model.inputs(interaction), model.current_tables())
        for kind in model.pools:
            session, centers = encoded[kind]
            share = model.relation(session, centers)
            entropy = torch.special.entr(share).sum()
            names = (f"relation_entropy_{kind}", f"center_cosine_{kind}")
            for name, value in zip(names, (entropy, _likeness(centers).sum()), strict=True):
                sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / rows for name, value in sums.items()}


def _likeness(centers: Tensor) -> Tensor:
    """Return the mean cosine of different centres ``(B, k, d)`` per row; NaN for a single one."""
    count = centers.shape[1]
    squared: Tensor = unit(centers).sum(dim=1).square().sum(dim=1)
    return (squared - count) / (count * (count - 1)) if count > 1 else squared * torch.nan
