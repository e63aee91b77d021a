"""Item vectors as models read them: centred, cut to principal components, brought to one scale."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from recbole_mm.data.fits import Fitted, at_once
from recbole_mm.errors import FeatureError
from recbole_mm.model.layers import TINY


class Vectors(NamedTuple):
    """Item vectors ``(N, d)`` and bool ``(N,)``: which items have one. Rows without are zero."""

    table: Tensor
    present: Tensor


class FeatureSpace:
    """Principal components of item vectors, and the scale they are brought to.

    ``x -> (x - mean) basis / scale``, where one number makes the mean square of all coordinates 1;
    an item without vector becomes 0, which is the mean.

    Parameters
    ----------
    vectors
        What to fit on, with ``fit``.
    fit
        bool ``(N,)``: items of training sessions.
    components
        Number of components, at most what vectors and items allow; 0 keeps the columns.
    fitted, name
        Keeps what is fitted, see `recbole_mm.data.fits.Fits`, and under which name.

    Raises
    ------
    FeatureError
        If fewer than two training items have a vector.
    """

    def __init__(
        self,
        vectors: Vectors,
        fit: Tensor,
        components: int,
        fitted: Fitted = at_once,
        name: str = "space",
    ) -> None:
        found = fitted(name, lambda: self._fit(vectors, fit, components))
        self.mean, self.basis, self.scale = found["mean"], found["basis"], found["scale"]

    @staticmethod
    def _fit(vectors: Vectors, fit: Tensor, components: int) -> dict[str, NDArray[np.float64]]:
        """Return mean, basis and scale."""
        rows = vectors.table[vectors.present & fit].double().numpy()
        if len(rows) < 2:
            raise FeatureError(
                f"{len(rows)} item(s) of the training sessions have a vector; at least two are "
                "needed. Add vectors, or leave the modality out."
            )
        mean, basis = rows.mean(axis=0), np.eye(rows.shape[1])
        if components:
            pca = PCA(min(components, *rows.shape), random_state=0).fit(rows)
            mean, basis = pca.mean_, pca.components_.T
        square = np.square((rows - mean) @ basis).mean(axis=0).mean(keepdims=True)
        # Vectors that never vary stay 0.
        scale = np.where(square > TINY**2, np.sqrt(square), 1.0)
        return {"mean": mean, "basis": basis, "scale": scale}

    def __call__(self, vectors: Vectors) -> Vectors:
        """Return vectors ``(N, components)``, float32."""
        moved = (vectors.table.double().numpy() - self.mean) @ self.basis / self.scale
        table = torch.from_numpy(moved).float() * vectors.present.unsqueeze(1)
        return Vectors(table, vectors.present)
