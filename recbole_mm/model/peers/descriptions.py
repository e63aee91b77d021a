"""Item vectors as the peers' adaptors read them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_mm.model.spaces import FeatureSpace, Vectors

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset


def described(vectors: Vectors, dataset: SessionDataset, name: str) -> Tensor:
    """Return a modality's vectors ``(N, w)``, centred, of mean square length 1; 0 without one.

    Mean and length are those of training items. So adapted vectors begin about as long as those by
    id. Ten times longer ones leave the ids without a say for many epochs.
    """
    seen = torch.from_numpy(dataset.train_counts > 0)
    space = FeatureSpace(vectors, seen, 0, dataset.fitted, f"space of {name}")
    return space(vectors).table / math.sqrt(vectors.table.shape[1])
