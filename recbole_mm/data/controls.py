"""Item vectors that carry nothing of their item: what a model does without knowing its content."""

from __future__ import annotations

import numpy as np

from recbole_mm.errors import FeatureError

SOURCES = ("real", "random", "shuffled")


def check_source(source: str) -> None:
    """Raise a FeatureError for a word that is no source of features."""
    if source not in SOURCES:
        raise FeatureError(f"feature_source is {source!r}, expected one of {', '.join(SOURCES)}.")


def replaced(
    table: np.ndarray, mask: np.ndarray, order: np.ndarray, source: str, modality: str, seed: int
) -> np.ndarray:
    """Return a table in which items with a vector of their own have another one.

    Parameters
    ----------
    table
        ``(n_items, d)`` float32, real vectors.
    mask
        ``(n_items,)`` bool, the items that have one. Only these rows change.
    order
        Rows of the items sorted by token: the numbering of items must not change what is drawn.
    source
        ``random``: normal numbers, each row as long as the real one, drawn anew per modality.
        ``shuffled``: real vectors of other items. Each item gets a random key, the same for every
        modality, and within a modality vectors go round in the order of the keys' ranks. So two
        modalities of the same items are permuted alike, and an item receives all of another item:
        vectors of one item (text and pseudo text) still belong together, only not to it.
    modality
        Name of the modality.
    seed
        Seed of the run.
    """
    check_source(source)
    if source == "real":
        return table
    changed = table.copy()
    present = order[mask[order]]
    if source == "random":
        rng = np.random.default_rng([seed, *modality.encode()])
        drawn = rng.standard_normal((len(present), table.shape[1]))
        wanted = np.linalg.norm(table[present].astype(np.float64), axis=1)
        changed[present] = drawn * (wanted / np.linalg.norm(drawn, axis=1))[:, None]
    else:
        keys = np.random.default_rng(seed).random(len(order))
        changed[present] = table[present[np.argsort(keys[mask[order]])]]
    return changed
