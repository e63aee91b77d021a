"""Item vectors made from features: scaling, principal components, a learned map."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn

from recbole_mm.errors import ConfigError


class FeatureTable(nn.Module):
    """Item vectors made from features: ``E = F M + A V``.

    ``F`` ``(N, d_t)`` are the features of all modalities side by side, ``M`` a learned map, ``A``
    ``(N, k)`` marks items that lack modality ``k`` and ``V`` ``(k, d)`` are learned vectors for
    them. Both ``F`` and ``A`` may be propagated over a graph beforehand: propagation is linear and
    acts from the left, so ``(P F) M = P (F M)``.

    Parameters
    ----------
    features
        ``F``, rows of zeros for items without features.
    absent
        ``A``, 0 for the padding item.
    size
        Width ``d`` of the result.
    tuned
        Train ``F`` as well.
    """

    features: Tensor
    absent: Tensor

    def __init__(self, features: Tensor, absent: Tensor, size: int, tuned: bool = False) -> None:
        super().__init__()
        if tuned:
            self.features = nn.Parameter(features.clone())
        else:
            self.register_buffer("features", features, persistent=False)
        self.register_buffer("absent", absent, persistent=False)
        self.project = nn.Linear(features.shape[1], size, bias=False)
        self.missing = nn.Parameter(torch.empty(absent.shape[1], size))
        self.reset()

    def reset(self) -> None:
        """Draw the map and the missing vectors from ``U(-1/sqrt(d), 1/sqrt(d))``."""
        bound = self.missing.shape[1] ** -0.5
        nn.init.uniform_(self.project.weight, -bound, bound)
        nn.init.uniform_(self.missing, -bound, bound)

    def forward(self) -> Tensor:
        """Return the whole table ``(N, size)``."""
        mapped: Tensor = self.project(self.features)
        return torch.addmm(mapped, self.absent, self.missing)


def prepare_features(
    table: Tensor,
    present: Tensor,
    seen: Tensor,
    scaling: Literal["none", "unit", "center"] = "none",
    n_components: int = 0,
) -> Tensor:
    """Scale features; what is estimated comes from items seen in training only.

    Parameters
    ----------
    table
        Features ``(N, d_t)``.
    present
        bool ``(N,)``: items that have features.
    seen
        bool ``(N,)``: items that occur in training sessions.
    scaling
        ``"none"``; ``"unit"``: rows of length 1; ``"center"``: the mean taken off, then rows of
        length 1. Text encoders share a large common direction, which centring removes.
    n_components
        Keep this many principal components after scaling; 0 keeps all columns.

    Returns
    -------
    Tensor
        float32 ``(N, d_t)`` or ``(N, n_components)``; rows of zeros stay so.

    Raises
    ------
    ConfigError
        If more components are asked for than there are columns or items to fit on.
    """
    table = table.to(torch.float32)
    fit = present & seen
    if scaling == "center":
        mean = table[fit].mean(dim=0) if bool(fit.any()) else table.new_zeros(table.shape[1])
        # An item without features stands at the centre, whatever vector it was given.
        table = (table - mean) * present.unsqueeze(1)
    if scaling != "none":
        table = F.normalize(table, dim=1)
    if n_components:
        filled = (table != 0).any(dim=1, keepdim=True)
        table = _principal(table, fit, n_components) * filled
    return table


def _principal(table: Tensor, fit: Tensor, n_components: int) -> Tensor:
    """Project on the principal components of the rows in ``fit``."""
    limit = min(int(fit.sum()), table.shape[1])
    if n_components > limit:
        raise ConfigError(
            f"feature_pca is {n_components}, but the features allow at most {limit} components "
            f"({int(fit.sum())} training items, {table.shape[1]} columns); lower it or set it to 0"
        )
    pca = PCA(n_components, random_state=0).fit(table[fit].numpy())
    return torch.from_numpy(np.ascontiguousarray(pca.transform(table.numpy()), dtype=np.float32))
