"""How the parts of a trained MMSBR fare: coverage, prices, agreement of real and pseudo vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_mm.model.mmsbr.contrast import PseudoContrast
from recbole_mm.model.mmsbr.price import PricePreference, PriceScore
from recbole_mm.model.mmsbr.settings import MMSBRSettings

# Items among which a real vector has to find its pseudo vector.
ITEMS_COMPARED = 2000


class Model(Protocol):
    """What is asked of an `MMSBR`."""

    settings: MMSBRSettings
    used: tuple[str, ...]
    has_price: Tensor
    real: nn.ModuleDict
    pseudo: nn.ModuleDict
    contrast: PseudoContrast | None
    price: PricePreference | None
    repeat_bias: nn.Parameter

    def has(self, name: str) -> Tensor:
        """Return which items have a modality, bool ``(N,)``."""

    def distances(self, interaction: Interaction) -> Tensor:
        """Return ``W`` of sessions and items, ``(B, N)``."""


def diagnose(
    model: Model, train_data: object, valid_data: Iterable[tuple[Interaction, ...]]
) -> dict[str, float]:
    """Return numbers by name.

    ``share_<x>`` are shares of the items that have text, image or price; ``price_distance`` is the
    mean of ``W`` over the first batch of rows and all items, ``price_gamma`` its learned weight;
    ``<modality>_cosine`` is the mean cosine of an item's real and pseudo vector as the contrastive
    loss sees them, ``<modality>_retrieval@1`` how often the pseudo vector is the nearest one of
    those of up to 2,000 items; ``repeat_bias`` is what the session's own items get.

    Parameters
    ----------
    model
        A trained `MMSBR` in evaluation mode, without gradients.
    train_data
        Loader of training rows, not read.
    valid_data
        Loader of validation rows.
    """
    masks = {name: model.has(name) for name in model.used}
    masks["price"] = model.has_price
    found = {f"share_{name}": float(mask[1:].float().mean()) for name, mask in masks.items()}
    if model.price is not None:
        found |= _price(model, model.price, next(iter(valid_data))[0])
    if model.contrast is not None:
        for name in model.pseudo:
            found |= _agreement(model, model.contrast, name)
    if model.settings.repeat_bias:
        found["repeat_bias"] = float(model.repeat_bias.detach())
    return found


def _price(model: Model, price: PricePreference, batch: Interaction) -> dict[str, float]:
    """Return the mean distance and the weight it has in the score."""
    apart = model.distances(batch.to(price.levels.device))
    found = {"price_distance": float(apart[:, 1:].mean())}
    if isinstance(price.score, PriceScore):
        found["price_gamma"] = float(price.score.log_gamma.exp())
    return found


def _agreement(model: Model, contrast: PseudoContrast, name: str) -> dict[str, float]:
    """Return how well real and pseudo vectors of a modality agree."""
    pairs = contrast.pairs(name)
    # Evenly spread, so that the same items are compared whenever this is computed.
    step = max(len(pairs) // ITEMS_COMPARED, 1)
    rows = pairs[::step][:ITEMS_COMPARED]
    left, right = contrast.sides(model.real[name](rows), model.pseudo[name](rows))
    nearest = (left @ right.T).argmax(dim=1)
    hit = nearest == torch.arange(len(rows), device=nearest.device)
    return {
        f"{name}_cosine": float(F.cosine_similarity(left, right).mean()),
        f"{name}_retrieval@1": float(hit.float().mean()),
    }
