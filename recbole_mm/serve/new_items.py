"""Items that were not there in training: ranked by their content, beside the known ones.

The model is built again on a longer catalogue. What it fitted in training stays as it was (means,
principal components, price levels, words); it is applied to the new rows. What it learned by item
id it cannot know: such rows are filled by a policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_mm.data.item_columns import USUAL_FIELDS
from recbole_mm.errors import DataError, FeatureError
from recbole_mm.evaluation.new_items import POLICIES, filled_rows, nearest_known
from recbole_mm.model.parts.late_model import with_late_parts
from recbole_mm.serve.catalogue import Catalogue
from recbole_mm.serve.packed import PackedDataset, dataset_state
from recbole_mm.serve.restored import Restored
from recbole_mm.trainer.state import other_parameters, to_device

if TYPE_CHECKING:
    from recbole.model.abstract_recommender import AbstractRecommender

State = dict[str, Any]


@dataclass(frozen=True, eq=False)
class NewItems:
    """New items in order.

    Attributes
    ----------
    ids
        Item ids, none of them known.
    columns
        Cells by column of ``.item``, such as ``title`` or ``price``; None where there is no value.
    vectors
        ``{modality: (M, d) float32}``.
    present
        ``{modality: (M,) bool}``: which of them have a vector.
    """

    ids: list[str]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    present: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


def with_new_items(known: Restored, new: NewItems, policy: str = "neighbours") -> Restored:
    """Return a model that also ranks new items.

    Parameters
    ----------
    known
        The trained model; it stays as it is.
    new
        The items.
    policy
        Rows learned by item id: ``neighbours``, the mean of those of the ten known items nearest by
        content, or ``zero``.

    Raises
    ------
    DataError
        An id is known already or stands twice, or the policy is unknown.
    FeatureError
        Vectors have another width than those of training.
    """
    if policy not in POLICIES:
        raise DataError(f"new_item_ids is {policy!r}, expected {' or '.join(POLICIES)}.")
    _check_ids(known.items, new.ids)
    state = _longer(dataset_state(known.dataset), new, known.config["ITEM_ID_FIELD"])
    before = len(known.items)
    dataset = PackedDataset(known.config, state, known.place, before)
    model_class = with_late_parts(known.config.model_class, known.config["score_parts"])
    model = model_class(known.config, dataset).to(known.config["device"])
    _take_over(model, known.model, dataset, before, policy)
    tokens = [*known.items.tokens, *new.ids]
    items = Catalogue(tokens, [*known.items.titles, *_titles(new)], dataset.train_counts)
    return Restored(known.config, model, dataset, items, known.place)


def _check_ids(items: Catalogue, ids: Sequence[str]) -> None:
    if not ids:
        raise DataError("there are no new items; expected one row per item.")
    seen: set[str] = set()
    for token in ids:
        if token in items.index or token in seen or not token:
            why = "known already" if token in items.index else "there twice" if token else "empty"
            raise DataError(f"the new item id {token!r} is {why}; expected ids of their own.")
        seen.add(token)


def _longer(state: State, new: NewItems, item_field: str) -> State:
    """Return the state of a data set with new items behind the known ones."""
    more = len(new)
    fields = {name: dict(one) for name, one in state["fields"].items()}
    fields[item_field]["tokens"] += more
    cells = {
        name: [*old, *new.columns.get(name, [None] * more)] for name, old in state["cells"].items()
    }
    feat = state["item_feat"]
    if feat is not None:
        feat = {name: _padded(column, more) for name, column in feat.items()}
        feat[item_field] = torch.arange(fields[item_field]["tokens"])
    return {
        **state,
        "fields": fields,
        "cells": cells,
        "item_feat": feat,
        "train_counts": np.pad(state["train_counts"], (0, more)),
        "features": _longer_features(state["features"], new),
    }


def _padded(column: Tensor, more: int) -> Tensor:
    """Return a column with zeros behind it: values that no item of training has."""
    return torch.cat([column, column.new_zeros(more, *column.shape[1:])])


def _longer_features(state: State | None, new: NewItems) -> State | None:
    """Return tables and masks with the new vectors behind the known ones."""
    if state is None:
        return None
    tables, masks, more = {}, {}, len(new)
    for name, table in state["tables"].items():
        vectors = new.vectors.get(name, np.zeros((more, table.shape[1]), np.float32))
        if vectors.shape != (more, table.shape[1]):
            raise FeatureError(
                f"the {name} vectors of the new items have the shape {vectors.shape}, expected "
                f"({more}, {table.shape[1]}): encode them by the encoder of the training data."
            )
        present = new.present.get(name, np.zeros(more, dtype=bool))
        rows = torch.from_numpy(vectors * present[:, None]).to(table.dtype)
        tables[name] = torch.cat([table, rows])
        masks[name] = torch.cat([state["masks"][name], torch.from_numpy(present)])
    return {**state, "tables": tables, "masks": masks}


def _take_over(
    model: AbstractRecommender,
    known: AbstractRecommender,
    dataset: PackedDataset,
    before: int,
    policy: str,
) -> None:
    """Give a longer model what the known one learned."""
    near = nearest_known(dataset.item_features, dataset.train_counts, before, policy)
    learned = {name for name, _ in model.named_parameters()}
    weights = model.state_dict()
    for name, old in known.state_dict().items():
        fresh = weights[name]
        if fresh.shape == old.shape:
            weights[name] = old
        elif name in learned and old.is_floating_point():
            weights[name] = filled_rows(old, before, near)
        else:
            # What was fitted was grown when the model was built, see `Fits.fitted`.
            weights[name] = torch.cat([old, fresh[len(old) :]])
    model.load_state_dict(weights)
    other = {name: _longer_value(value, dataset) for name, value in other_parameters(known).items()}
    model.load_other_parameter(to_device(other, model.device))


def _longer_value(value: Any, dataset: PackedDataset) -> Any:
    """Return what a model declares beside its weights, with zeros for new items, as Pop counts."""
    if isinstance(value, Tensor) and value.ndim and len(value) == dataset.known_items:
        return _padded(value, dataset.item_num - dataset.known_items)
    return value


def _titles(new: NewItems) -> list[str]:
    """Return the column ``title``, or else the first usual text column that is there."""
    for name in ("title", *USUAL_FIELDS):
        if name in new.columns:
            return [str(cell or "") for cell in new.columns[name]]
    return [""] * len(new)
