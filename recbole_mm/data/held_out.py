"""Items that training never sees, to measure what a model says of new ones: ``cold_items``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from recbole.config import Config

from recbole_mm.data.sessions import Sessions, Split
from recbole_mm.errors import DataError


def draw_items(n_items: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Return which items are held out, bool ``(n_items,)``; padding never is.

    Parameters
    ----------
    n_items
        Items with padding, numbered in the order of their tokens: the draw hangs on nothing else.
    share
        Share of the items, rounded to whole ones.
    seed
        Seed of the draw.
    """
    held = np.zeros(n_items, dtype=bool)
    draw = np.random.default_rng([seed, 1]).permutation(n_items - 1)
    held[1 + draw[: round(share * (n_items - 1))]] = True
    return held


def without_items(sessions: Sessions, held: NDArray[np.bool_]) -> Sessions:
    """Return sessions without some items; those of fewer than two items then are left out."""
    keep = ~held[sessions.items]
    owner = np.repeat(np.arange(len(sessions)), sessions.lengths())
    lengths = np.bincount(owner[keep], minlength=len(sessions))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    rest = Sessions(sessions.session, offsets, sessions.items[keep], sessions.time[keep])
    return rest.take(np.flatnonzero(lengths > 1))


def hold_out(
    config: Config, split: Split, n_items: int, counts: dict[str, int]
) -> tuple[Split, NDArray[np.bool_]]:
    """Take a share of the items out of the training sessions.

    Validation and test sessions stay as they are: there a new item is a target, and stands in
    histories, like any other.

    Parameters
    ----------
    config
        Read are ``cold_items``, the share, and ``split_seed``.
    split
        Whole sessions in three parts.
    n_items
        Number of items with padding.
    counts
        Takes the numbers of items and of interactions that are held out.

    Raises
    ------
    DataError
        The split continues sessions of training, or no training session is left.
    """
    share = float(config["cold_items"])
    held = draw_items(n_items, share, config["split_seed"])
    if not held.any():
        return split, held
    if not split.whole:
        raise DataError(
            "cold_items needs a split by whole sessions; with leave_one_out each test session goes "
            "on from training. Use --split_by=session_time or session_random."
        )
    train = without_items(split.train, held)
    if not len(train):
        raise DataError(f"cold_items = {share} leaves no training session of two items; lower it.")
    counts["held_out_items"] = int(held.sum())
    counts["held_out_interactions"] = int(held[split.train.items].sum())
    return replace(split, train=train), held
