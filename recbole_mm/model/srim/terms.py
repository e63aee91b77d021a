"""The auxiliary losses of SRIM as modules: alignment, joint inference, co-occurrence.

Each reads its switches from the model's configuration (properties/model/SRIM.yaml) and returns one
value per row or item; the equations are in `recbole_mm.model.losses`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_mm.graph import cooccurrence as graphs
from recbole_mm.model import layers, losses

CO = {"infonce": losses.co_infonce, "expratio": losses.co_expratio, "ratio": losses.co_ratio}
# The learned maps of each alignment, by their number in the paper or the released code.
ALIGN_MAPS = {"paper": "123456", "code": "1234578", "code_slots": "1234578", "infonce": "34"}


class Session(NamedTuple):
    """Session vectors of one branch, ``(B, d)`` each: before and after attention."""

    before: Tensor
    after: Tensor


Sessions = Mapping[str, Session]


class Alignment(nn.Module):
    """Alignment inside and across the branches (SRIM eq. 9-11 and variants).

    Parameters
    ----------
    config
        Switches ``align``, ``align_temperature``.
    size
        Width ``d``.
    """

    def __init__(self, config: Mapping[str, Any], size: int) -> None:
        super().__init__()
        self.form = str(config["align"])
        self.temperature = float(config["align_temperature"])
        bias = self.form in ("code", "code_slots")
        self.maps = nn.ModuleDict(
            {number: nn.Linear(size, size, bias=bias) for number in ALIGN_MAPS[self.form]}
        )

    def forward(self, sessions: Sessions, target: Tensor) -> Tensor:
        """Return the loss ``(B,)`` of sessions with targets ``(B,)``."""
        (p_id, q_id), (p_content, q_content) = sessions["id"], sessions["content"]
        if self.form == "infonce":
            left, right = self.maps["3"](q_id), self.maps["4"](q_content)
            return losses.align_infonce(left, right, target, self.temperature)
        if self.form == "paper":
            return losses.align_paper(
                inside_id=self._like("1", p_id, "2", q_id),
                inside_content=self._like("5", p_content, "6", q_content),
                across=self._like("3", p_id, "4", p_content),
            )
        slots = (q_id, p_id, q_content, p_content)
        if self.form == "code_slots":
            # The released code's call hands the vectors over in this order, not in the one above.
            slots = (q_id, q_content, p_id, p_content)
        s1, s2, s3, s4 = slots
        return losses.align_code(
            self._like("1", s1, "2", s2),
            self._like("3", s1, "4", s3),
            self._like("4", s3, "5", s4),
            self._like("7", s3, "8", s1),
        )

    def _like(self, left: str, x: Tensor, right: str, y: Tensor) -> Tensor:
        """Return the cosine ``(B,)`` of two mapped vectors ``(B, d)``."""
        return layers.cosine(self.maps[left](x), self.maps[right](y))


class JointInference(nn.Module):
    """Let the ID branch lead where the target is known to go with the session (eq. 12-13).

    Parameters
    ----------
    config
        Switches ``flag_rule``, ``n_neighbors``, ``joint_sign``, ``joint_label_shift``,
        ``joint_session``.
    graph
        The co-occurrence graph that decides the flag.
    """

    neighbours: Tensor

    def __init__(self, config: Mapping[str, Any], graph: graphs.ItemGraph) -> None:
        super().__init__()
        self.rule = str(config["flag_rule"])
        self.sign = float(config["joint_sign"])
        self.shift = int(config["joint_label_shift"])
        self.position = 0 if config["joint_session"] == "pre" else 1
        if self.rule == "topl":
            ids, _ = graphs.top_neighbours(graph.counts, int(config["n_neighbors"]))
            self.register_buffer("neighbours", torch.from_numpy(ids), persistent=False)
        else:
            self.pairs = graph.pairs()
            self.own = graph.own() if self.rule == "loo" else None

    def flag(self, item_seq: Tensor, target: Tensor, session: Tensor) -> Tensor:
        """Return the flags, bool ``(B,)``, of inputs ``(B, T)``, targets, session ids ``(B,)``."""
        if self.rule == "topl":
            return graphs.neighbour_flags(item_seq, target, self.neighbours)
        return graphs.cooccurrence_flags(item_seq, target, self.pairs, session, self.own)

    def forward(
        self, sessions: Sessions, target: Tensor, flag: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the loss ``(B,)``; ``tables`` are the branches' propagated item tables."""
        likes = [
            layers.cosine(
                sessions[branch][self.position],
                layers.gather_rows(tables[branch], target + self.shift),
            )
            for branch in ("id", "content")
        ]
        return losses.joint(likes[0], likes[1], flag, self.sign)


class CooccurrenceContrast(nn.Module):
    """Draw items to their frequent partners and away from strangers (eq. 17 and variants).

    Parameters
    ----------
    config
        Switches ``co``, ``co_log10``, ``co_pos_weight``, ``co_neg``, ``co_anchors``,
        ``co_samples``, ``co_isolated``, ``n_neighbors``.
    graph
        The co-occurrence graph.
    """

    neighbours: Tensor
    weight: Tensor
    strangers: Tensor

    def __init__(self, config: Mapping[str, Any], graph: graphs.ItemGraph) -> None:
        super().__init__()
        self.config = config
        self.length = int(config["n_neighbors"])
        self.pairs = graph.pairs()
        ids, counts = map(torch.from_numpy, graphs.top_neighbours(graph.counts, self.length))
        weight = counts if config["co_pos_weight"] == "count" else (counts > 0).float()
        weight = weight / weight.sum(dim=1, keepdim=True).clamp_min(1.0)
        self.register_buffer("neighbours", ids, persistent=False)
        self.register_buffer("weight", weight, persistent=False)
        if config["co_neg"] == "fixed":
            strangers = torch.from_numpy(graphs.first_strangers(graph.counts, self.length))
            self.register_buffer("strangers", strangers, persistent=False)

    def anchors(self, item_seq: Tensor, target: Tensor) -> Tensor:
        """Return the items ``(M,)`` to look at in this step."""
        config, n_items = self.config, len(self.neighbours)
        if config["co_anchors"] == "all":
            anchors = torch.arange(n_items, device=target.device)
        else:
            anchors = torch.unique(torch.cat([item_seq.flatten(), target]))
            if config["co_anchors"] == "sample":
                size = (int(config["co_samples"]),)
                more = torch.randint(1, n_items, size, device=target.device)
                anchors = torch.cat([anchors, more])
        keep = anchors != 0
        if config["co_isolated"] == "skip":
            keep &= self.neighbours[anchors, 0] != 0
        return anchors[keep]

    def forward(self, anchors: Tensor, table: Tensor) -> Tensor:
        """Return the loss of the anchors ``(M,)``, given the ID branch's table ``(N, d)``."""
        if not len(anchors):
            return table.new_zeros(1)
        if self.config["co_neg"] == "fixed":
            strangers = self.strangers[anchors]
            valid = strangers != 0
        else:
            strangers, valid = graphs.sample_strangers(anchors, self.length, self.pairs)
        anchor = layers.unit(layers.gather_rows(table, anchors))
        mean = F.embedding_bag(
            self.neighbours[anchors],
            table,
            mode="sum",
            per_sample_weights=self.weight[anchors],
            padding_idx=0,
        )
        near = (anchor * layers.unit(mean)).sum(dim=1)
        # Dividing products by norms, not vectors, spares two passes over (M, l, d).
        products = torch.einsum("md,mld->ml", anchor, layers.gather_rows(table, strangers))
        far = products / layers.length(table)[strangers]
        loss = CO[self.config["co"]](near, far, valid)
        return loss / math.log(10.0) if self.config["co_log10"] else loss
