"""DIMO: ID and modality effects told apart (Zhang et al., SIGIR 2024, arXiv 2404.12969).

SRIM was made from it: two branches over one co-occurrence graph, whose scores are summed. The
attention maps keys and values too, and two of the auxiliary losses are others. Symbols as in
`recbole_mm.model.srim.model`: ``p`` is a branch's session mean (its *proxy*), ``q`` the session
vector after attention. What differs from the released code: docs/peers.md.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_mm.model import layers
from recbole_mm.model.peers.settings import DIMOSettings
from recbole_mm.model.srim.model import SRIM
from recbole_mm.model.srim.terms import JointInference, PairMaps, Step


class DIMO(SRIM):
    """Two branches over one graph, full attention, and losses that hold the branches apart.

    ``score(b, j) = q_id . Z_id[j] + q_content . Z_content[j]``, trained with
    ``main + w_co co + w_proxy proxy + w_counterfactual counterfactual``.

    Parameters
    ----------
    config
        The keys of `DIMOSettings`.
    dataset
        Gives ``train_sessions`` and, for the content branch, ``item_features``.

    Raises
    ------
    ConfigError
        If settings contradict each other, or the features have too few principal components.
    FeatureError
        If a modality's features are missing.
    """

    Settings: ClassVar[type[DIMOSettings]] = DIMOSettings
    settings: DIMOSettings

    def _loss_weights(self) -> dict[str, float]:
        """Return the weights of the auxiliary losses that are on."""
        settings, both = self.settings, len(self.branches) == 2
        weights = {
            "co": settings.w_co if "id" in self.branches else 0.0,
            "proxy": settings.w_proxy if both else 0.0,
            "counterfactual": settings.w_counterfactual if both else 0.0,
        }
        return {name: weight for name, weight in weights.items() if weight}

    def build_term(self, name: str) -> nn.Module:
        """Return the auxiliary loss of that name."""
        if name == "proxy":
            return Proxy(self.settings.embedding_size)
        if name == "counterfactual":
            return Counterfactual(self.graph)
        return super().build_term(name)


class Proxy(nn.Module):
    """Draw a branch's session to its own proxy, against the session of the other branch.

    Parameters
    ----------
    size
        Width ``d`` of a branch.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        # The numbers are the released code's; its sixth map is not used.
        self.maps = PairMaps("1234578", size, bias=True)

    def forward(self, step: Step) -> Tensor:
        """Return the loss ``(B,)``."""
        (p_id, q_id), (p_content, q_content) = step.encoded["id"], step.encoded["content"]
        return self.told_apart(q_id, p_id, q_content, p_content)

    def told_apart(
        self, q_id: Tensor, p_id: Tensor, q_content: Tensor, p_content: Tensor
    ) -> Tensor:
        """Return ``-log e^a / (e^a + e^b) - log e^c / (e^c + e^d)``, ``(B,)``.

        ``a = cos(M1 q_id, M2 p_id)``, ``b = cos(M3 q_id, M4 q_content)``,
        ``c = cos(M4 q_content, M5 p_content)``, ``d = cos(M7 q_content, M8 q_id)``.
        """
        cosine = self.maps.cosine
        own_id, other_id = cosine("1", q_id, "2", p_id), cosine("3", q_id, "4", q_content)
        own_content = cosine("4", q_content, "5", p_content)
        other_content = cosine("7", q_content, "8", q_id)
        return F.softplus(other_id - own_id) + F.softplus(other_content - own_content)


class Counterfactual(JointInference):
    """Let the target be told by ids where it went with an item of the session, else by content.

    ``-f log e^u / (e^u + e^v)`` with the cosines ``u``, ``v`` of session and target in the ID and
    the content branch; ``f`` is 1 if the target met another item of the session in another
    training session, else -1.
    """

    def forward(self, step: Step) -> Tensor:
        """Return the loss ``(B,)``, from ``-log(1 + e^2)`` to ``log(1 + e^2)``."""
        return signed(step, step.target, self.flag(step))


def signed(step: Step, item: Tensor, flag: Tensor) -> Tensor:
    """Return the loss of `Counterfactual` for items and flags ``(B,)``."""
    like = {
        branch: layers.cosine(session.after, layers.gather_rows(step.tables[branch], item))
        for branch, session in step.encoded.items()
    }
    by_id = F.softplus(like["content"] - like["id"])
    return torch.where(flag, by_id, -by_id)
