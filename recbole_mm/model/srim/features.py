"""Item vectors made from features: scaling, principal components, a learned map."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
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


# What is fitted on training items, by name: "mean" ``(d_t,)``, "principal" and its "origin".
Space = dict[str, NDArray[np.float32]]
Scaling = Literal["none", "unit", "center"]


def prepare_features(
    table: Tensor,
    present: Tensor,
    seen: Tensor,
    scaling: Scaling = "none",
    n_components: int = 0,
    space: Space | None = None,
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
    space
        What `fit_space` gives, where it is known already.

    Returns
    -------
    Tensor
        float32 ``(N, d_t)`` or ``(N, n_components)``; rows of zeros stay so.

    Raises
    ------
    ConfigError
        If more components are asked for than there are columns or items to fit on.
    """
    if space is None:
        space = fit_space(table, present, seen, scaling, n_components)
    table = _scaled(table, present, scaling, space)
    if n_components:
        filled = (table != 0).any(dim=1, keepdim=True)
        pca = PCA(n_components)
        pca.mean_, pca.components_ = space["origin"], space["principal"]
        moved = pca.transform(table.numpy())
        table = torch.from_numpy(np.ascontiguousarray(moved, dtype=np.float32)) * filled
    return table


def fit_space(
    table: Tensor, present: Tensor, seen: Tensor, scaling: Scaling, n_components: int
) -> Space:
    """Return the mean and the principal components of the training items; see the above.

    Raises
    ------
    ConfigError
        If more components are asked for than there are columns or items to fit on.
    """
    fit, space = present & seen, {}
    if scaling == "center":
        mean = table[fit].float().mean(dim=0) if bool(fit.any()) else torch.zeros(table.shape[1])
        space["mean"] = mean.numpy()
    if n_components:
        pca = _principal(_scaled(table, present, scaling, space), fit, n_components)
        space |= {"origin": pca.mean_, "principal": pca.components_}
    return space


def _scaled(table: Tensor, present: Tensor, scaling: Scaling, space: Space) -> Tensor:
    """Take the mean off and bring rows to length 1, as far as asked for."""
    table = table.to(torch.float32)
    if scaling == "center":
        # An item without features stands at the centre, whatever vector it was given.
        table = (table - torch.from_numpy(space["mean"])) * present.unsqueeze(1)
    return table if scaling == "none" else F.normalize(table, dim=1)


def _principal(table: Tensor, fit: Tensor, n_components: int) -> PCA:
    """Find the principal components of the rows in ``fit``."""
    limit = min(int(fit.sum()), table.shape[1])
    if n_components > limit:
        raise ConfigError(
            f"feature_pca is {n_components}, but the features allow at most {limit} components "
            f"({int(fit.sum())} training items, {table.shape[1]} columns); lower it or set it to 0"
        )
    return PCA(n_components, random_state=0).fit(table[fit].numpy())
