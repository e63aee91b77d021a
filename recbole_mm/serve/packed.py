"""The data set that a packed model is built on: names and numbers, but not one session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_mm.data.card import DatasetCard
from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.data.sessions import Sessions
from recbole_mm.errors import CheckpointError
from recbole_mm.serve.catalogue import PackedColumns, packed_cells
from recbole_mm.serve.encoding import recipes

if TYPE_CHECKING:
    from recbole_mm.config import MMConfig

T = TypeVar("T")
State = dict[str, Any]
_NO_SESSIONS = Sessions(
    np.empty(0, np.int64), np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0)
)


class PackedDataset(SessionDataset):
    """What a model asks of its data set when it is built, out of a pack.

    What was counted and fitted comes back as it was kept (`Fits.fitted`); ``train_sessions`` is
    empty. A model that counts in it without `fitted` gives other scores, which packing notices.

    Parameters
    ----------
    config
        The run's configuration.
    state
        What `dataset_state` gave.
    place
        The pack, for messages.
    known_items
        Number of items, padding included, when it was packed; more behind them are new. None: all.

    Attributes
    ----------
    recipes
        ``{modality: what made its vectors}``, to encode new items alike.
    """

    def __init__(
        self, config: MMConfig, state: State, place: Path, known_items: int | None = None
    ) -> None:
        self.config, self.state = config, state
        self.dataset_name = config["dataset"]
        self.fits, self.asked_columns = state["fits"], set()
        self.known_items = len(state["train_counts"]) if known_items is None else known_items
        self.card = DatasetCard(self.dataset_name, text_fields=tuple(state["text_fields"]))
        self._set_fields(state["fields"])
        self.train_counts, self.train_sessions = state["train_counts"], _NO_SESSIONS
        self.item_features, self.recipes = _features(state["features"]), state["recipes"]
        separator = config["seq_separator"]
        self._columns = PackedColumns(place, state["types"], state["cells"], separator)
        self._set_interactions()
        feat = state["item_feat"]
        self.item_feat = None if feat is None else Interaction(feat)
        self.user_feat = None

    def _set_fields(self, fields: dict[str, State]) -> None:
        """Set names, types and sizes of the columns, as RecBole keeps them."""
        config = self.config
        self.uid_field, self.iid_field = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.label_field, self.time_field = config["LABEL_FIELD"], config["TIME_FIELD"]
        self.item_id_list_field = self.iid_field + config["LIST_SUFFIX"]
        self.item_list_length_field = config["ITEM_LIST_LENGTH_FIELD"]
        self.max_item_list_len = config["MAX_ITEM_LIST_LENGTH"]
        self.field2type = {name: FeatureType(one["type"]) for name, one in fields.items()}
        self.field2source = {name: FeatureSource(one["source"]) for name, one in fields.items()}
        self.field2seqlen = {name: one["length"] for name, one in fields.items()}
        self.field2bucketnum = {name: one["buckets"] for name, one in fields.items()}
        # RecBole counts the tokens of a column and reads none of them when it builds a model.
        self.field2id_token = {
            name: np.zeros(one["tokens"], dtype=np.int8)
            for name, one in fields.items()
            if one["tokens"]
        }

    def _set_interactions(self) -> None:
        """Give the columns of training rows, without a row."""
        none = torch.empty(0, dtype=torch.int64)
        rows = torch.empty(0, self.max_item_list_len, dtype=torch.int64)
        self.inter_feat = Interaction(
            {
                self.uid_field: none,
                self.iid_field: none,
                self.item_id_list_field: rows,
                self.item_list_length_field: none,
            }
        )

    @property
    def item_columns(self) -> PackedColumns:
        """The columns that the model reads."""
        return self._columns

    def fitted(
        self,
        name: str,
        compute: Callable[[], T],
        grow: Callable[[T], T] | None = None,
    ) -> T:
        """Return what was kept under a name, made longer where there are new items."""
        if name not in self.fits:
            raise CheckpointError(
                f"{self._columns.place} lacks '{name}', which the model counts in training "
                "sessions. The model is another one than when it was packed; pack the run again."
            )
        kept: T = self.fits[name]
        return grow(kept) if grow is not None and self.known_items < self.item_num else kept


def dataset_state(dataset: SessionDataset) -> State:
    """Return what a `PackedDataset` is made of, as a state that a checkpoint can hold."""
    if isinstance(dataset, PackedDataset):
        return dataset.state
    columns = dataset.item_columns
    names = sorted(dataset.asked_columns)
    feat = dataset.item_feat
    return {
        "fits": dict(dataset.fits),
        "train_counts": dataset.train_counts,
        "text_fields": list(dataset.card.text_fields),
        "fields": {name: _field(dataset, name) for name in dataset.field2type},
        "features": _feature_state(dataset.item_features),
        "recipes": recipes(dataset),
        "types": {name: columns.types[name] for name in names},
        "cells": packed_cells(columns, names),
        "item_feat": None if feat is None else dict(feat.interaction),
    }


def _field(dataset: SessionDataset, name: str) -> State:
    """Return what RecBole keeps of a column."""
    return {
        "type": dataset.field2type[name].value,
        "source": dataset.field2source[name].value,
        "length": int(dataset.field2seqlen[name]),
        "buckets": int(dataset.field2bucketnum.get(name, 0)),
        "tokens": len(dataset.field2id_token.get(name, ())),
    }


def _feature_state(features: ItemFeatures | None) -> State | None:
    if features is None:
        return None
    tables, masks = dict(features.tables), dict(features.masks)
    return {"tables": tables, "masks": masks, "hashes": dict(features.hashes)}


def _features(state: State | None) -> ItemFeatures | None:
    return None if state is None else ItemFeatures(state["tables"], state["masks"], state["hashes"])
