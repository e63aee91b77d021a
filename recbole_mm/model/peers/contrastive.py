"""UniSRec's pre-training: a session against items, and against another view of itself.

Sessions of several data sets stand in one batch, so that the negatives come from all of them.
Symbols as in `recbole_mm.model.peers.unisrec`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_mm.model.layers import real_positions, unit
from recbole_mm.model.peers.settings import ContrastiveUniSRecSettings
from recbole_mm.model.peers.unisrec import UniSRec


class ContrastiveUniSRec(UniSRec):
    """``L = in_batch(h, v) + weight * in_batch(h, h')``, ``h'`` of the session with items dropped.

    Ids are not used. Prediction is UniSRec's.
    """

    Settings = ContrastiveUniSRecSettings
    settings: ContrastiveUniSRecSettings
    loss_names = ("seq_item", "seq_seq")

    def calculate_loss(self, interaction: Interaction) -> tuple[Tensor, Tensor]:
        """Return the two weighted parts."""
        item_seq, lengths = self.inputs(interaction)
        target, settings = interaction[self.ITEM_ID], self.settings
        with self.full_precision():
            ids, place = torch.unique(torch.cat([item_seq.flatten(), target]), return_inverse=True)
            vectors = self.adaptor(self.described[ids])
            places, goal = place[: -len(target)].view_as(item_seq), place[-len(target) :]
            session = unit(self.sequence(F.embedding(places, vectors), lengths))
            items = in_batch(session, unit(vectors[goal]), target, settings.temperature)
            kept, shorter = drop_items(places, lengths, settings.item_drop_ratio)
            other = unit(self.sequence(F.embedding(kept, vectors), shorter))
            sessions = in_batch(session, other, target, settings.temperature)
        return items, settings.sequence_weight * sessions


def in_batch(query: Tensor, keys: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the mean of ``-log(exp(q_i k_i / t) / sum_j exp(q_i k_j / t))``.

    Rows ``j`` with the same target as ``i`` are no negatives of it.

    Parameters
    ----------
    query, keys
        ``(B, d)``, of length 1.
    target
        ``(B,)``.
    temperature
        ``t``.
    """
    logits = query @ keys.T / temperature
    same = target.unsqueeze(1) == target.unsqueeze(0)
    own = torch.eye(len(target), dtype=torch.bool, device=target.device)
    logits = logits.masked_fill(same & ~own, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(target), device=target.device))


def drop_items(item_seq: Tensor, lengths: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Drop items of sessions at random; the first one stays.

    Parameters
    ----------
    item_seq
        ``(B, T)``.
    lengths
        ``(B,)``.
    ratio
        Probability that an item is dropped.

    Returns
    -------
    tuple
        The others in their order ``(B, T)``, filled up with 0, and how many they are ``(B,)``.
    """
    keep = torch.rand(item_seq.shape, device=item_seq.device) >= ratio
    keep[:, 0] = True
    keep &= real_positions(lengths, item_seq.shape[1])
    order = torch.argsort((~keep).to(torch.int8), dim=1, stable=True)
    left = keep.sum(dim=1)
    kept = item_seq.gather(1, order) * real_positions(left, item_seq.shape[1])
    return kept, left
