"""`history: mask`: items that the model was given are no candidates, whatever scores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from recbole.config import Config
    from recbole.data.interaction import Interaction


def is_masked(config: Config) -> bool:
    """Return whether the run strikes the items of the history out of the candidates."""
    return bool(config["history"] == "mask")


def mask_history(scores: Tensor, interaction: Interaction, items: Tensor, config: Config) -> Tensor:
    r"""Return scores as the run ranks them: with `history: mask` the history is struck out.

    .. math:: s'(j) = -\infty \text{ if } j \in \{h_1, \dots, h_t\}, \text{ else } s(j)

    The history :math:`h` of a row is what the row carries: the items of the session before the
    target, of which the newest `MAX_ITEM_LIST_LENGTH`. A target that stands in its own history is
    struck out as well, and alone has the last rank: in such a row all others with a score of
    :math:`-\infty` are lifted to the least finite number.

    Parameters
    ----------
    scores
        ``(B, n_items)``; left as they are.
    interaction
        The batch of ``B`` rows that was scored.
    items
        ``(B,)`` item id of the target of each row.
    config
        The run's configuration, or that of the loader which gave the batch.
    """
    if not is_masked(config):
        return scores
    field = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
    return strike_out(scores, interaction[field], items)


def strike_out(scores: Tensor, history: Tensor, items: Tensor) -> Tensor:
    """Strike the items of ``history`` ``(B, L)`` out, padded with 0; see :func:`mask_history`."""
    history, items = history.to(scores.device), items.to(scores.device)
    # A copy: parts of a score may share memory, and variants are made from them afterwards.
    masked = scores.scatter(1, history, -torch.inf)
    missed = target_in_history(history, items)
    masked[missed] = masked[missed].clamp(min=torch.finfo(scores.dtype).min)
    masked[missed, items[missed]] = -torch.inf
    return masked


def target_in_history(history: Tensor, items: Tensor) -> Tensor:
    """Return of which rows ``(B,)`` the target stands in the history."""
    return (history == items.unsqueeze(1)).any(dim=1)
