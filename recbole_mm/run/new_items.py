"""What a run with ``cold_items`` says of the items that training never held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recbole_mm.evaluation.ranking import from_ranks, metrics_from_ranks

if TYPE_CHECKING:
    from recbole_mm.run.prepared import Prepared

DIVISION = "new_items"
Groups = dict[str, dict[str, float]]


def new_item_metrics(prepared: Prepared, ranks: np.ndarray, among_new: np.ndarray) -> Groups:
    """Return the metrics of test rows whose target is a new item.

    Parameters
    ----------
    prepared
        The data, and the metrics that are asked for.
    ranks
        Ranks of all test targets among all items.
    among_new
        Ranks among the new items of those that are one, as `ranks_among` gives them.

    Returns
    -------
    dict
        ``all``: new items ranked among all items; ``new``: among the new ones alone. Empty without
        ``cold_items``, or where no test row asks for one.
    """
    held = prepared.dataset.held_out
    rows = held[prepared.dataset.rows("test").target]
    if not rows.any():
        return {}
    config = prepared.config
    metrics, cuts = from_ranks(config["metrics"]), config["topk"]
    kinds = {"all": ranks[rows], "new": among_new}
    return {
        f"among {name}": {"n": int(rows.sum()), **metrics_from_ranks(found, cuts, metrics)}
        for name, found in kinds.items()
    }
