"""The auxiliary losses of SRIM: alignment, joint inference, co-occurrence.

Each maps a training step to one value per row or item; the equations are in
`recbole_mm.model.srim.losses`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_mm.collectives import batch_rows, distinct, own_rows
from recbole_mm.graph.cooccurrence import ItemGraph
from recbole_mm.graph.pairs import cooccurrence_flags, sample_strangers, top_neighbours
from recbole_mm.model import layers
from recbole_mm.model.srim import losses
from recbole_mm.model.srim.attention import Session
from recbole_mm.model.srim.settings import SRIMSettings

CO = {"infonce": losses.co_infonce, "ratio": losses.co_ratio}


class Step(NamedTuple):
    """What the auxiliary losses see of a training step.

    Attributes
    ----------
    item_seq, target, session
        Input items ``(B, T)``, target items and session ids ``(B,)``.
    encoded
        The session vectors of each branch.
    tables
        The propagated item table ``(N, d)`` of each branch.
    """

    item_seq: Tensor
    target: Tensor
    session: Tensor
    encoded: Mapping[str, Session]
    tables: Mapping[str, Tensor]


class PairMaps(nn.ModuleDict):
    """Linear maps by their number in an equation, and the cosine of two mapped vectors."""

    def __init__(self, numbers: str, size: int, bias: bool) -> None:
        super().__init__({number: nn.Linear(size, size, bias) for number in numbers})

    def cosine(self, left: str, x: Tensor, right: str, y: Tensor) -> Tensor:
        """Return the cosine ``(B,)`` of two vectors ``(B, d)``, each under its map."""
        return layers.cosine(self[left](x), self[right](y))


class ContrastAlignment(nn.Module):
    """Alignment of the two branches by contrast inside the batch (ours)."""

    def __init__(self, settings: SRIMSettings) -> None:
        super().__init__()
        size = settings.embedding_size
        self.temperature, self.rows = settings.align_temperature, settings.align_rows
        self.maps = nn.ModuleDict(
            {branch: nn.Linear(size, size, bias=False) for branch in ("id", "content")}
        )

    def forward(self, step: Step) -> Tensor:
        """Return the loss ``(B,)``."""
        left, right = (
            batch_rows(maps(step.encoded[branch].after)) for branch, maps in self.maps.items()
        )
        target = batch_rows(step.target)
        parts = math.ceil(len(target) / self.rows) if self.rows else 1
        if parts == 1:
            return own_rows(losses.align_infonce(left, right, target, self.temperature))
        # Every parts-th row, because batches by length may come sorted.
        found = torch.empty_like(left[:, 0])
        for part in (slice(first, None, parts) for first in range(parts)):
            given = left[part], right[part], target[part]
            found[part] = losses.align_infonce(*given, self.temperature)
        return own_rows(found)


class PaperAlignment(nn.Module):
    """Alignment inside and across the branches (SRIM eq. 9-11)."""

    def __init__(self, settings: SRIMSettings) -> None:
        super().__init__()
        self.maps = PairMaps("123456", settings.embedding_size, bias=False)

    def forward(self, step: Step) -> Tensor:
        """Return the loss ``(B,)``."""
        (p_id, q_id), (p_content, q_content) = step.encoded["id"], step.encoded["content"]
        return losses.align_paper(
            inside_id=self.maps.cosine("1", p_id, "2", q_id),
            inside_content=self.maps.cosine("5", p_content, "6", q_content),
            across=self.maps.cosine("3", p_id, "4", p_content),
        )


ALIGN = {"infonce": ContrastAlignment, "paper": PaperAlignment}


class JointInference(nn.Module):
    """Let the ID branch lead where the target is known to go with the session (eq. 12-13).

    It is known to if it met another item of the session in another training session.

    Parameters
    ----------
    graph
        The co-occurrence graph that says so.
    """

    def __init__(self, graph: ItemGraph) -> None:
        super().__init__()
        self.pairs = graph.pairs()
        self.own = graph.own()

    def flag(self, step: Step) -> Tensor:
        """Return where the ID branch leads, bool ``(B,)``."""
        return cooccurrence_flags(step.item_seq, step.target, self.pairs, step.session, self.own)

    def forward(self, step: Step) -> Tensor:
        """Return the loss ``(B,)``."""
        like = {
            branch: layers.cosine(
                session.before, layers.gather_rows(step.tables[branch], step.target)
            )
            for branch, session in step.encoded.items()
        }
        return losses.joint(like["id"], like["content"], self.flag(step))


class CooccurrenceContrast(nn.Module):
    """Draw items to their frequent partners and away from strangers (eq. 17 and its contrast).

    Parameters
    ----------
    settings
        Form, weights and numbers of partners and items.
    graph
        The co-occurrence graph.
    """

    neighbours: Tensor
    weight: Tensor

    def __init__(self, settings: SRIMSettings, graph: ItemGraph) -> None:
        super().__init__()
        self.form = CO[settings.co]
        self.n_neighbors, self.n_samples = settings.n_neighbors, settings.co_samples
        self.pairs = graph.pairs()
        ids, counts = map(torch.from_numpy, top_neighbours(graph.counts, self.n_neighbors))
        weight = counts if settings.co_pos_weight == "count" else (counts > 0).float()
        weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(1.0)
        self.register_buffer("neighbours", ids, persistent=False)
        self.register_buffer("weight", weight, persistent=False)

    def anchors(self, step: Step) -> Tensor:
        """Return the items ``(M,)`` to look at: the batch's, and random ones; with partners."""
        anchors = distinct(torch.cat([step.item_seq.flatten(), step.target]))
        more = torch.randint(1, len(self.neighbours), (self.n_samples,), device=anchors.device)
        anchors = torch.cat([anchors, more])
        # The padding item has no partner either.
        return anchors[self.neighbours[anchors, 0] != 0]

    def strangers(self, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids ``(M, l)`` of items that the anchors never met, and which of them count."""
        return sample_strangers(anchors, self.n_neighbors, self.pairs)

    def forward(self, step: Step) -> Tensor:
        """Return the loss of each anchor ``(M,)`` in the ID branch; a 0 if there is none."""
        anchors, table = self.anchors(step), step.tables["id"]
        if not len(anchors):
            return table.new_zeros(1)
        strangers, valid = self.strangers(anchors)
        anchor = layers.unit(layers.gather_rows(table, anchors))
        near = (anchor * layers.unit(self._partners(anchors, table))).sum(dim=1)
        # Dividing products by norms, not vectors, spares two passes over (M, l, d).
        products = torch.einsum("md,mld->ml", anchor, layers.gather_rows(table, strangers))
        far = products / layers.length(table)[strangers]
        return self.form(near, far, valid)

    def _partners(self, anchors: Tensor, table: Tensor) -> Tensor:
        """Return the weighted mean ``(M, d)`` of the anchors' partners."""
        return F.embedding_bag(
            self.neighbours[anchors],
            table,
            mode="sum",
            per_sample_weights=self.weight[anchors],
            padding_idx=0,
        )
