"""Interest of a session in MMSBR: what its item vectors come to."""

from __future__ import annotations

from torch import Tensor, nn

from recbole_mm.model.layers import PositionWeights, ResidualMap, last_position, masked_mean
from recbole_mm.model.mmsbr.settings import MMSBRSettings


class GatedSum(nn.Module):
    """``s = sum_j beta_j H_j`` with a gate per position, without softmax (released code).

    ``beta_j = w . sigmoid(A_1 H_j + a_1 + A_2 mean(H)) + w_0``.

    Parameters
    ----------
    settings
        ``embedding_size``, the width ``d``; a subclass reads more.
    n_positions
        Items of the longest session.
    """

    def __init__(self, settings: MMSBRSettings, n_positions: int) -> None:
        super().__init__()
        size = settings.embedding_size
        self.item = nn.Linear(size, size)
        self.mean = nn.Linear(size, size, bias=False)
        self.gate = nn.Linear(size, 1)

    def reset(self) -> None:
        """Draw what is last so that scores of normed vectors start with a spread of about 1."""
        nn.init.xavier_uniform_(self.gate.weight, gain=self.gate.in_features**-0.5)

    def placed(self, mask: Tensor) -> Tensor | float:
        """Return what a position adds to its gate, ``(B, n, 1)``; the gate knows no positions."""
        return 0.0

    def forward(self, items: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """Return ``(B, d)`` of item vectors ``(B, n, d)``, lengths ``(B,)``, bool ``(B, n)``."""
        mean = masked_mean(items, mask)
        asked = self.item(items) + self.mean(mean).unsqueeze(1)
        gate = (self.gate(asked.sigmoid()) + self.placed(mask)) * mask.unsqueeze(-1)
        summed: Tensor = (gate * items).sum(dim=1)
        return summed


class Interest(GatedSum):
    """``s = W (sum_j beta_j H_j + H_last) + b``: the last item counts, and a map follows (ours).

    Without the map a session would rank highest the items it holds already. With
    ``position_weights`` the gates know where an item stands.
    """

    def __init__(self, settings: MMSBRSettings, n_positions: int) -> None:
        super().__init__(settings, n_positions)
        size = settings.embedding_size
        residual = settings.session_map == "residual"
        self.map: nn.Module = ResidualMap(size) if residual else nn.Linear(size, size)
        self.positions = PositionWeights(n_positions) if settings.position_weights else None

    def placed(self, mask: Tensor) -> Tensor | float:
        """Return the learned weights of the positions, 0 before training."""
        return 0.0 if self.positions is None else self.positions(mask).unsqueeze(-1)

    def reset(self) -> None:
        """Draw the map like the gate, or set what it adds to 0."""
        super().reset()
        if isinstance(self.map, nn.Linear):
            nn.init.xavier_uniform_(self.map.weight, gain=self.map.in_features**-0.5)
        elif isinstance(self.map, ResidualMap):
            self.map.reset()

    def forward(self, items: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """Return ``(B, d)``; arguments as in `GatedSum`."""
        summed = super().forward(items, lengths, mask)
        mapped: Tensor = self.map(summed + last_position(items, lengths))
        return mapped
