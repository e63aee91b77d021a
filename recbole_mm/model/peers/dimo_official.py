"""DIMO as its released code trains it, on a graph of training sessions.

The code is the authors' repository at commit 4ff44ea. docs/peers.md sets it beside `DIMO`.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from recbole_mm.model.peers.dimo import DIMO, Proxy, signed
from recbole_mm.model.peers.settings import OfficialDIMOSettings
from recbole_mm.model.srim.official import ReleasedContrast, ReleasedCounts, ReleasedJointInference
from recbole_mm.model.srim.terms import Step


class OfficialDIMO(ReleasedCounts, DIMO):
    """DIMO with two free tables, and the counts, losses and dropout of the released code."""

    Settings = OfficialDIMOSettings
    settings: OfficialDIMOSettings

    def build_term(self, name: str) -> nn.Module:
        """Return the auxiliary loss of that name."""
        if name == "proxy":
            return ReleasedProxy(self.settings.embedding_size)
        if name == "counterfactual":
            return ReleasedCounterfactual(self.graph, self.settings.n_neighbors)
        return ReleasedContrast(self.settings, self.graph)


class ReleasedProxy(Proxy):
    """The proxy loss as it is called: sessions and proxies change places; logarithm to base 10."""

    def forward(self, step: Step) -> Tensor:
        """Return the loss ``(B,)``."""
        (p_id, q_id), (p_content, q_content) = step.encoded["id"], step.encoded["content"]
        return self.told_apart(q_id, q_content, p_id, p_content) / math.log(10.0)


class ReleasedCounterfactual(ReleasedJointInference):
    """The loss of the item before the target, flags by neighbour lists, logarithm to base 10."""

    def forward(self, step: Step) -> Tensor:
        """Return the loss ``(B,)``."""
        return signed(step, step.target - 1, self.flag(step)) / math.log(10.0)
