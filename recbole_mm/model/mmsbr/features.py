"""What MMSBR reads of image and text: which are used, their principal components, pseudo vectors.

A pseudo vector is a stand-in for one modality made from another one (MMSBR section "pseudo-modality
contrastive learning"). Everything estimated here is fitted on items of training sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn

from recbole_mm.errors import ConfigError, FeatureError
from recbole_mm.model.layers import TINY

MODALITIES = ("text", "image")
# Strengths of the ridge penalty; the best one is found by leaving out one training item at a time.
ALPHAS = np.logspace(-3, 4, 15)


class Vectors(NamedTuple):
    """Item vectors ``(N, d)`` and bool ``(N,)``: which items have one. Rows without are zero."""

    table: Tensor
    present: Tensor


class FeatureSpace:
    """Principal components of item vectors, and the scale they are brought to.

    ``x -> (x - mean) basis / scale``; an item without vector becomes 0, which is the mean.

    Parameters
    ----------
    vectors
        What to fit on, with ``fit``.
    fit
        bool ``(N,)``: items of training sessions.
    components
        Number of components, at most what vectors and items allow; 0 keeps the columns.
    scale
        ``"none"``; ``"rms"``: one number, so that the mean square of all coordinates is 1;
        ``"whiten"``: each coordinate has mean square 1.

    Raises
    ------
    FeatureError
        If fewer than two training items have a vector.
    """

    def __init__(self, vectors: Vectors, fit: Tensor, components: int, scale: str) -> None:
        rows = vectors.table[vectors.present & fit].double().numpy()
        if len(rows) < 2:
            raise FeatureError(
                f"{len(rows)} item(s) of the training sessions have a vector; at least two are "
                "needed. Add vectors, or switch the modality off (--use_image=false)."
            )
        self.mean = np.zeros(rows.shape[1])
        self.basis = np.eye(rows.shape[1])
        if components:
            pca = PCA(min(components, *rows.shape), random_state=0).fit(rows)
            self.mean, self.basis = pca.mean_, pca.components_.T
        elif scale != "none":
            self.mean = rows.mean(axis=0)
        square = np.square((rows - self.mean) @ self.basis).mean(axis=0)
        square = {"none": np.ones(1), "rms": square.mean(keepdims=True), "whiten": square}[scale]
        # A coordinate that never varies stays 0.
        self.scale = np.where(square > TINY**2, np.sqrt(square), 1.0)
        self.exact = not components and scale == "none"

    def __call__(self, vectors: Vectors) -> Tensor:
        """Return ``(N, components)`` float32."""
        if self.exact:
            return vectors.table.float() * vectors.present.unsqueeze(1)
        moved = (vectors.table.double().numpy() - self.mean) @ self.basis / self.scale
        return torch.from_numpy(moved).float() * vectors.present.unsqueeze(1)


def ridge_twin(source: Tensor, have_source: Tensor, target: Vectors, fit: Tensor) -> Vectors | None:
    """Predict a modality's vectors from another one by a linear map with a ridge penalty.

    Parameters
    ----------
    source
        Vectors ``(N, d_s)`` to predict from.
    have_source
        bool ``(N,)``.
    target
        The modality to be predicted, as it was read.
    fit
        bool ``(N,)``: items of training sessions.

    Returns
    -------
    Vectors or None
        A vector for every item of ``have_source``; None if fewer than two training items have both.
    """
    both = have_source & target.present & fit
    if int(both.sum()) < 2:
        return None
    inputs = source.double().numpy()
    model = RidgeCV(ALPHAS).fit(inputs[both.numpy()], target.table[both].double().numpy())
    guess = torch.from_numpy(np.asarray(model.predict(inputs))).float()
    return Vectors(guess * have_source.unsqueeze(1), have_source)


class Content(NamedTuple):
    """Prepared features of the modalities in use: real vectors, and pseudo vectors of some."""

    real: dict[str, Vectors]
    pseudo: dict[str, Vectors]


def prepare_content(
    raw: Mapping[str, Vectors], twins: Mapping[str, Vectors], fit: Tensor, config: Any
) -> Content:
    """Bring real and pseudo vectors into their spaces.

    Parameters
    ----------
    raw
        Vectors as read, by modality.
    twins
        Pseudo vectors as read, by modality; with ``pseudo: ridge`` they are made here.
    fit
        bool ``(N,)``: items of training sessions.
    config
        Switches ``pseudo``, ``pca_dim``, ``pca_shared``, ``pca_scale``.

    Raises
    ------
    FeatureError
        If a modality and its pseudo vectors differ in width but share one space.
    """
    size, scale = int(config["pca_dim"]), str(config["pca_scale"])
    spaces = {name: FeatureSpace(vectors, fit, size, scale) for name, vectors in raw.items()}
    real = {name: Vectors(spaces[name](v), v.present) for name, v in raw.items()}
    if config["pseudo"] == "ridge" and len(raw) == 2:
        twins = _ridge_twins(raw, real, fit)
    pseudo = {}
    for name, twin in twins.items():
        space = spaces[name] if config["pca_shared"] else FeatureSpace(twin, fit, size, scale)
        if config["pca_shared"] and twin.table.shape[1] != raw[name].table.shape[1]:
            raise FeatureError(
                f"pseudo_{name} has {twin.table.shape[1]} numbers per item and {name} "
                f"{raw[name].table.shape[1]}; one basis for both (pca_shared) needs the same "
                "encoder. Encode both alike, or set --pca_shared=false."
            )
        pseudo[name] = Vectors(space(twin), twin.present)
    _require_one_width(real, pseudo, config)
    return Content(real, pseudo)


def _ridge_twins(
    raw: Mapping[str, Vectors], real: Mapping[str, Vectors], fit: Tensor
) -> dict[str, Vectors]:
    """Predict each of two modalities from the other one."""
    twins = {}
    for name in raw:
        other = real[next(key for key in raw if key != name)]
        twin = ridge_twin(other.table, other.present, raw[name], fit)
        if twin is not None:
            twins[name] = twin
    return twins


def _require_one_width(
    real: Mapping[str, Vectors], pseudo: Mapping[str, Vectors], config: Any
) -> None:
    """Raise a ConfigError where vectors are compared as they are and differ in width."""
    for name, twin in pseudo.items():
        widths = real[name].table.shape[1], twin.table.shape[1]
        if config["contrast_on"] == "tables" and widths[0] != widths[1]:
            raise ConfigError(
                f"contrast_on=tables compares {name} vectors of {widths[0]} numbers with pseudo "
                f"vectors of {widths[1]}. Use contrast_on=projected or one pca_dim for both."
            )


class VectorTable(nn.Module):
    """Prepared item vectors ``(N, d)``: a buffer outside of checkpoints, or trained."""

    vectors: Tensor

    def __init__(self, vectors: Tensor, trained: bool) -> None:
        super().__init__()
        if trained:
            self.vectors = nn.Parameter(vectors.clone())
        else:
            self.register_buffer("vectors", vectors.clone(), persistent=False)

    def forward(self, rows: Tensor | slice) -> Tensor:
        """Return the vectors of some items ``(M, d)``."""
        return self.vectors[rows]
