"""Interest of a session in MMSBR: what its item vectors come to."""

from __future__ import annotations

from torch import Tensor, nn

from recbole_mm.model.layers import last_position, masked_mean


class GatedSum(nn.Module):
    """``s = sum_j beta_j H_j`` with a gate per position, without softmax (released code).

    ``beta_j = w . sigmoid(A_1 H_j + a_1 + A_2 mean(H)) + w_0``.

    Parameters
    ----------
    size
        Width ``d``.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.item = nn.Linear(size, size)
        self.mean = nn.Linear(size, size, bias=False)
        self.gate = nn.Linear(size, 1)

    def reset(self) -> None:
        """Draw what is last so that scores of normed vectors start with a spread of about 1."""
        nn.init.xavier_uniform_(self.gate.weight, gain=self.gate.in_features**-0.5)

    def forward(self, items: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """Return ``(B, d)`` of item vectors ``(B, n, d)``, lengths ``(B,)``, bool ``(B, n)``."""
        mean = masked_mean(items, mask)
        asked = self.item(items) + self.mean(mean).unsqueeze(1)
        gate = self.gate(asked.sigmoid()) * mask.unsqueeze(-1)
        summed: Tensor = (gate * items).sum(dim=1)
        return summed


class Interest(GatedSum):
    """``s = W (sum_j beta_j H_j + H_last) + b``: the last item counts, and a map follows (ours).

    Without the map a session would rank highest the items it holds already.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.map = nn.Linear(size, size)

    def reset(self) -> None:
        """Draw the map like the gate."""
        super().reset()
        nn.init.xavier_uniform_(self.map.weight, gain=self.map.in_features**-0.5)

    def forward(self, items: Tensor, lengths: Tensor, mask: Tensor) -> Tensor:
        """Return ``(B, d)``; arguments as in `GatedSum`."""
        summed = super().forward(items, lengths, mask)
        mapped: Tensor = self.map(summed + last_position(items, lengths))
        return mapped
