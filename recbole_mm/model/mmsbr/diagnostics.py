"""How the parts of a trained MMSBR fare: coverage, prices, agreement of real and pseudo vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Items among which a real vector has to find its pseudo vector.
ITEMS_COMPARED = 2000


def diagnose(model: Any, rows: Any) -> dict[str, float]:
    """Return numbers by name.

    ``share_<x>`` are shares of the items that have text, image or price; ``price_distance`` is the
    mean of ``W`` over the first batch of rows and all items, ``price_gamma`` its learned weight;
    ``<modality>_cosine`` is the mean cosine of an item's real and pseudo vector as the contrastive
    loss sees them, ``<modality>_retrieval@1`` how often the pseudo vector is the nearest one of
    those of up to 2,000 items; ``repeat_bias`` is what the session's own items get.

    Parameters
    ----------
    model
        A trained `MMSBR`; it is left in evaluation mode.
    rows
        Loader of validation rows.
    """
    model.eval()
    masks = {name: model.get_buffer(f"has_{name}") for name in model.used}
    masks["price"] = model.has_price
    found = {f"share_{name}": float(mask[1:].float().mean()) for name, mask in masks.items()}
    with torch.no_grad(), model.full_precision():
        if model.price is not None:
            found |= _price(model, next(iter(rows))[0].to(model.device))
        for name in model.pseudo:
            found |= _agreement(model, name)
    if model.settings["repeat_bias"]:
        found["repeat_bias"] = float(model.repeat_bias.detach())
    return found


def _price(model: Any, batch: Any) -> dict[str, float]:
    """Return the mean distance and the weight it has in the score."""
    tables = model.current_tables()
    distance = model.price_distance(model.encode(*model.inputs(batch), tables), tables)
    found = {"price_distance": float(distance[:, 1:].mean())}
    if hasattr(model.price_score, "log_gamma"):
        found["price_gamma"] = float(model.price_score.log_gamma.exp())
    return found


def _agreement(model: Any, name: str) -> dict[str, float]:
    """Return how well real and pseudo vectors of a modality agree."""
    pairs = model.contrast.pairs(name)
    # Evenly spread, so that the same items are compared whenever this is computed.
    step = max(len(pairs) // ITEMS_COMPARED, 1)
    rows = pairs[::step][:ITEMS_COMPARED]
    left, right = model.contrast.sides(name, model.content(name, rows), model.pseudo[name](rows))
    nearest = (left @ right.T).argmax(dim=1)
    hit = nearest == torch.arange(len(rows), device=nearest.device)
    return {
        f"{name}_cosine": float(_cosine(left, right).mean()),
        f"{name}_retrieval@1": float(hit.float().mean()),
    }


def _cosine(left: Tensor, right: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(left, right, dim=1)
