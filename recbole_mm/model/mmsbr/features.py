"""What MMSBR reads of image and text: principal components, pseudo vectors, and their tables.

A pseudo vector is a stand-in for one modality made from another one (MMSBR section "pseudo-modality
contrastive learning"). Everything estimated here is fitted on items of training sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from recbole_mm.data.fits import Fitted, at_once
from recbole_mm.errors import FeatureError
from recbole_mm.model.spaces import FeatureSpace, Vectors

# Strengths of the ridge penalty; the best one is found by leaving out one training item at a time.
ALPHAS = np.logspace(-3, 4, 15)


class Content(NamedTuple):
    """Prepared features of the modalities in use: real vectors, and pseudo vectors of some."""

    real: dict[str, Vectors]
    pseudo: dict[str, Vectors]


def prepare_content(
    raw: Mapping[str, Vectors],
    twins: Mapping[str, Vectors] | None,
    fit: Tensor,
    components: int,
    fitted: Fitted = at_once,
) -> Content:
    """Bring real vectors, and pseudo vectors in the basis of the real ones, into their spaces.

    Parameters
    ----------
    raw
        Vectors as read, by modality.
    twins
        Pseudo vectors as read, by modality; None predicts them by `ridge_twins`.
    fit
        bool ``(N,)``: items of training sessions.
    components
        Most components of each modality; 0 keeps the columns.
    fitted
        Keeps what is fitted, see `recbole_mm.data.fits.Fits`.

    Raises
    ------
    FeatureError
        If a modality and its pseudo vectors differ in width.
    """
    spaces = {
        name: FeatureSpace(vectors, fit, components, fitted, f"space of {name}")
        for name, vectors in raw.items()
    }
    real = {name: spaces[name](vectors) for name, vectors in raw.items()}
    if twins is None:
        twins = ridge_twins(raw, real, fit, fitted)
    for name, twin in twins.items():
        if twin.table.shape[1] != raw[name].table.shape[1]:
            raise FeatureError(
                f"pseudo_{name} has {twin.table.shape[1]} numbers per item and {name} "
                f"{raw[name].table.shape[1]}; they share one basis, which needs the same "
                "encoder. Encode both alike, or set --pseudo=ridge."
            )
    return Content(real, {name: spaces[name](twin) for name, twin in twins.items()})


def ridge_twins(
    raw: Mapping[str, Vectors],
    real: Mapping[str, Vectors],
    fit: Tensor,
    fitted: Fitted = at_once,
) -> dict[str, Vectors]:
    """Predict each of two modalities as it was read, ``raw``, from the other one's space, ``real``.

    Empty if there are not two of them, or fewer than two training items have both.
    """
    if len(raw) != 2:
        return {}
    text, image = raw
    pairs = ((text, real[image]), (image, real[text]))
    twins = {
        name: ridge_twin(other, raw[name], fit, fitted, f"twin of {name}") for name, other in pairs
    }
    return {name: twin for name, twin in twins.items() if twin is not None}


def ridge_twin(
    source: Vectors,
    target: Vectors,
    fit: Tensor,
    fitted: Fitted = at_once,
    name: str = "twin",
) -> Vectors | None:
    """Predict a modality's vectors from another one by a linear map with a ridge penalty.

    Parameters
    ----------
    source
        Vectors ``(N, d_s)`` to predict from.
    target
        The modality to be predicted, as it was read.
    fit
        bool ``(N,)``: items of training sessions.
    fitted, name
        Keeps what is fitted, see `recbole_mm.data.fits.Fits`, and under which name.

    Returns
    -------
    Vectors or None
        A vector for every item of ``source``; None if fewer than two training items have both.
    """
    both = source.present & target.present & fit
    if int(both.sum()) < 2:
        return None
    inputs = source.table.double().numpy()

    def fit_ridge() -> dict[str, NDArray[np.float64]]:
        made = RidgeCV(ALPHAS).fit(inputs[both.numpy()], target.table[both].double().numpy())
        return {"coef": made.coef_, "intercept": made.intercept_}

    found, model = fitted(name, fit_ridge), RidgeCV(ALPHAS)
    model.coef_, model.intercept_ = found["coef"], found["intercept"]
    guess = torch.from_numpy(np.asarray(model.predict(inputs))).float()
    return Vectors(guess * source.present.unsqueeze(1), source.present)


class ItemVectors(nn.Module):
    """A table of item vectors: given rows ``(M,)``, the vectors ``(M, width)`` that are read."""

    width: int
    vectors: Tensor


class ProjectedVectors(ItemVectors):
    """A learned projection of frozen item vectors, ``x P``; checkpoints hold ``P`` alone.

    Parameters
    ----------
    table
        ``(N, w)``.
    size
        Width ``d`` of the result.
    """

    def __init__(self, table: Tensor, size: int) -> None:
        super().__init__()
        self.width = size
        self.register_buffer("vectors", table, persistent=False)
        self.map = nn.Linear(table.shape[1], size, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the projected vectors of some items ``(M, d)``."""
        projected: Tensor = self.map(self.vectors[rows])
        return projected
