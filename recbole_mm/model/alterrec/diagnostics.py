"""How AlterRec's branches stand to each other: overlap of their rankings, sizes of vectors, scores.

Reads training and validation rows only, evenly spread ones, and draws no random number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recbole_mm.model.alterrec.negatives import top_items

if TYPE_CHECKING:
    from recbole_mm.model.alterrec.model import AlterRec

ROWS, BATCH = 2048, 256


@torch.no_grad()
def diagnostics(model: AlterRec, train_data: Any, valid_data: Any) -> dict[str, float]:
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
    model.eval()
    try:
        return {**_overlap(model, train_data.dataset), **_sizes(model, valid_data.dataset)}
    finally:
        model.train(training)


def _batches(dataset: Any, device: Any) -> list[Any]:
    """Return evenly spread rows in batches."""
    count = len(dataset)
    places = np.unique(np.linspace(0, count - 1, num=min(count, ROWS)).astype(np.int64))
    rows = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
    return [dataset[torch.from_numpy(some)].to(device) for some in rows]


def _overlap(model: AlterRec, dataset: Any) -> dict[str, float]:
    """Return the shares of training rows whose target a branch, as teacher, ranks high."""
    hits: dict[str, list[Tensor]] = {}
    p = min(int(model.settings["num_augmented_positives"]), model.n_items - 1)
    for batch in _batches(dataset, model.device):
        target = batch[model.ITEM_ID].unsqueeze(1)
        for name, scores in model.score_parts(batch).items():
            top, window = top_items(scores, p), model.sampler.in_window(scores)
            for what, items in (("top", top), ("window", window)):
                found = (items == target).any(dim=1)
                hits.setdefault(f"{name}/target_in_{what}", []).append(found)
    return {name: float(torch.cat(found).float().mean()) for name, found in hits.items()}


def _sizes(model: AlterRec, dataset: Any) -> dict[str, float]:
    """Return the lengths of vectors and the spread of scores, over validation rows."""
    found: dict[str, list[Tensor]] = {}
    tables = model.current_tables()
    for batch in _batches(dataset, model.device):
        item_seq, lengths = model.inputs(batch)
        for name in model.branches:
            branch: Any = model.branches[name]
            query = branch.query(tables[name], item_seq, lengths)
            scores = query @ tables[name][1:].T
            session = torch.linalg.vector_norm(query, dim=1) * branch.temperature
            found.setdefault(f"{name}/session_norm", []).append(session)
            found.setdefault(f"{name}/score_std", []).append(scores.std(dim=1))
    items = {f"{name}/item_norm": _mean_length(tables[name][1:]) for name in model.branches}
    return {**items, **{name: float(torch.cat(parts).mean()) for name, parts in found.items()}}


def _mean_length(vectors: Tensor) -> float:
    return float(torch.linalg.vector_norm(vectors, dim=1).mean())
