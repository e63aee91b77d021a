"""SessionDataset: the one dataset class that every model, ours or stock, is run on.

The protocol decides the rows, never the model. Three things differ from RecBole's
``SequentialDataset``:

* whole sessions go to one part; RecBole's ratio splits cut inside sessions;
* times are compared as float64. RecBole's float32 rounds today's epoch seconds to steps of 128 s;
* ids are numbered in the sorted order of their tokens, and items come from ``.inter`` alone (with
  ``candidates: features`` also from feature files), so that neither the order of the rows nor what
  a model reads changes the candidates.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from recbole.config import Config
from recbole.data.dataset.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_mm.data.card import DatasetCard, load_dataset_card
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.fits import Fits
from recbole_mm.data.given import read_parts, split_path
from recbole_mm.data.held_out import hold_out
from recbole_mm.data.item_columns import ItemColumns
from recbole_mm.data.loading import Loading
from recbole_mm.data.sessions import (
    Rows,
    Sessions,
    Split,
    concatenate,
    group_sessions,
    make_rows,
    split_given,
    split_leave_one_out,
    split_whole,
)
from recbole_mm.errors import DataError

if TYPE_CHECKING:
    from recbole_mm.data.features import ItemFeatures

logger = logging.getLogger(__name__)

# Names that are Python objects at once.
_NAMES = 1 << 16


class SessionDataset(Fits, Loading):
    """Sessions, split as the protocol says.

    Attributes
    ----------
    card
        What ``dataset.json`` says about the data.
    split
        The three parts as sessions (set by :meth:`build`).
    train_sessions
        ``split.train``: all that graphs and other statistics may see.
    train_counts
        ``(n_items,)`` int64: how often an item occurs in ``train_sessions``.
    item_features
        Pretrained vectors aligned with the item ids, or None if the model uses none.
    held_out
        ``(n_items,)`` bool: items that ``cold_items`` keeps out of training.
    item_columns
        The columns of the ``.item`` file by item id.
    counts
        What was dropped, cut and cold, by name.
    """

    split: Split
    train_sessions: Sessions
    train_counts: np.ndarray
    held_out: np.ndarray
    asked_columns: set[str]

    def __init__(self, config: Config, files: FeatureFiles | None = None) -> None:
        self._files = files or feature_files(config)
        self.card: DatasetCard = load_dataset_card(config["data_path"])
        self.item_features: ItemFeatures | None = None
        self.counts: dict[str, int] = {}
        self.fits, self.asked_columns = {}, set()
        self._only_features: set[str] = set()
        self._rows: dict[str, Rows] = {}
        super().__init__(config)
        # Copies for the three parts must not keep what was read of the feature files.
        del self._files

    # Splitting.

    def build(self) -> list[Dataset]:
        """Split the sessions and return the training, validation and test data sets.

        The three copies share every attribute but ``inter_feat``.

        Raises
        ------
        DataError
            If the protocol does not fit the data (made-up times, an empty part).
        """
        sessions = self._sessions()
        split = self._split(sessions)
        self.split, self.held_out = hold_out(self.config, split, self.item_num, self.counts)
        self.train_sessions = self.split.train
        self.train_counts = np.bincount(self.train_sessions.items, minlength=self.item_num)
        self._rows = self._make_rows()
        Dataset._change_feat_format(self)
        self._set_list_fields()
        self._log_counts()
        return [self.copy(self._interaction(rows)) for rows in self._rows.values()]

    def _sessions(self) -> Sessions:
        """Collect the sessions of two or more items."""
        frame = self.inter_feat
        columns = (
            frame[name].to_numpy() for name in (self.uid_field, self.iid_field, self.time_field)
        )
        sessions = group_sessions(*columns)
        long_enough = sessions.lengths() > 1
        self.counts["sessions"] = len(sessions)
        self.counts["sessions_of_one_item"] = int((~long_enough).sum())
        if not long_enough.any():
            raise DataError(
                f"{self.dataset_name}: no session has two items, so there is nothing to predict. "
                f"Is USER_ID_FIELD={self.uid_field} the column that names the session?"
            )
        return sessions.take(np.flatnonzero(long_enough))

    def _split(self, sessions: Sessions) -> Split:
        split_by, ratio = self.config["split_by"], self.config["split_ratio"]
        if split_by == "leave_one_out":
            return split_leave_one_out(sessions)
        if split_by == "given":
            path = split_path(self.dataset_path, self.dataset_name)
            return split_given(sessions, read_parts(path, self.session_tokens(sessions.session)))
        if split_by == "session_time":
            self._refuse_made_up_times(sessions)
            return split_whole(sessions, ratio, np.arange(len(sessions)))
        # Draw over the sessions in the order of their tokens: the file's order must not matter.
        draw = np.random.default_rng(self.config["split_seed"]).permutation(len(sessions))
        return split_whole(sessions, ratio, np.argsort(sessions.session)[draw])

    def _times_are_made_up(self, sessions: Sessions) -> bool:
        """Tell whether times are a position inside the session, or one and the same for all."""
        positional = np.array_equal(sessions.last_time, sessions.lengths())
        constant = len(np.unique(sessions.last_time)) == 1
        return self.card.timestamps == "positional" or positional or constant

    def _refuse_made_up_times(self, sessions: Sessions) -> None:
        if self._times_are_made_up(sessions):
            raise DataError(
                f"{self.dataset_name}: {self.time_field} is only a position inside the session, so "
                "a split by time would be meaningless. Use --split_by=session_random or "
                "--split_by=leave_one_out."
            )

    def _make_rows(self) -> dict[str, Rows]:
        """Make the rows of the three parts and count what was cut and what is cold."""
        eval_targets = self.config["eval_targets"] if self.split.whole else "last"
        targets = {"train": "all_prefixes" if self.config["train_prefixes"] else "last"}
        length = self.config["MAX_ITEM_LIST_LENGTH"]
        rows = {}
        for name, part in self.split.parts().items():
            made = make_rows(part, targets.get(name, eval_targets), length)
            cold = self.train_counts[made.target] == 0
            self.counts[f"{name}_sessions"] = len(part)
            self.counts[f"{name}_truncated_histories"] = made.truncated
            if name != "train":
                self.counts[f"{name}_cold_targets"] = int(cold.sum())
                made = made.take(~cold) if self.config["cold_targets"] == "drop" else made
                self.counts[f"{name}_targets_in_history"] = int(made.target_in_history().sum())
            self.counts[f"{name}_rows"] = len(made)
            rows[name] = made
        self.counts["items"] = self.item_num - 1
        self.counts["items_unseen_in_training"] = int((self.train_counts[1:] == 0).sum())
        return rows

    def _set_list_fields(self) -> None:
        """Register ``item_id_list`` and ``item_length``, the fields that sequential models read."""
        self.item_id_list_field = self.iid_field + self.config["LIST_SUFFIX"]
        source, width = FeatureSource.INTERACTION, self.max_item_list_len
        self.set_field_property(self.item_id_list_field, FeatureType.TOKEN_SEQ, source, width)
        self.set_field_property(self.item_list_length_field, FeatureType.TOKEN, source, 1)

    def _interaction(self, rows: Rows) -> Interaction:
        columns = {
            self.uid_field: rows.session,
            self.iid_field: rows.target,
            self.item_id_list_field: rows.history,
            self.item_list_length_field: rows.length,
        }
        return Interaction({name: torch.from_numpy(column) for name, column in columns.items()})

    def _log_counts(self) -> None:
        logger.info(
            "%s: %s", self.dataset_name, ", ".join(f"{k} {v}" for k, v in self.counts.items())
        )
        lost = [self.counts[f"{part}_targets_in_history"] for part in ("valid", "test")]
        if self.config["history"] == "mask" and any(lost):
            logger.warning(
                "history: mask strikes out the target of %d validation and %d test row(s), because "
                "it stands in the history; they can only be missed. history: keep ranks it.", *lost
            )  # fmt: skip
        if not self.split.whole and not self._times_are_made_up(self.split.test):
            logger.warning(
                "leave_one_out looks into the future: %.1f %% of the test targets are items that "
                "training holds only after the test event. --split_by=session_time does not.",
                100 * self.future_share(),
            )

    # What runs, tables and models ask for.

    def rows(self, part: str) -> Rows:
        """Return the rows of ``train``, ``valid`` or ``test``."""
        return self._rows[part]

    @property
    def item_columns(self) -> ItemColumns:
        """The columns of the ``.item`` file by internal item id."""
        path = Path(self.dataset_path, f"{self.dataset_name}.item")
        tokens = self.field2id_token[self.iid_field]
        separator = self.config["seq_separator"]
        return ItemColumns(path, self.iid_field, tokens, separator, self.asked_columns)

    def tokens(self, ids: np.ndarray) -> list[str]:
        """Return the item tokens of internal ids."""
        return [str(token) for token in self.field2id_token[self.iid_field][ids]]

    def session_tokens(self, ids: np.ndarray) -> list[str]:
        """Return the session tokens of internal session ids."""
        return [str(token) for token in self.field2id_token[self.uid_field][ids]]

    def future_share(self) -> float:
        """Return the share of test targets that training holds at later times only."""
        first = np.full(self.item_num, np.inf)
        np.minimum.at(first, self.train_sessions.items, self.train_sessions.time)
        test = self.split.test
        seen = first[test.items[test.offsets[1:] - 1]]
        return float((np.isfinite(seen) & (seen > test.last_time)).mean())

    def leaky_sessions(self, targets: bool) -> Sessions:
        """Return the sessions of all parts. LEAKY: only to show what published codes did.

        Parameters
        ----------
        targets
            False leaves the target, the last item, of validation and test sessions out.
        """
        parts = [self.split.test]
        if self.split.whole:
            parts = [self.split.valid, self.split.test]
        if not targets:
            parts = [part.cut(np.arange(len(part)), part.lengths() - 1) for part in parts]
        return concatenate([self.split.train, *parts] if self.split.whole else parts)

    def fingerprint(self) -> str:
        """Return the SHA-256 of candidates, training sessions, evaluation rows, `history: mask`.

        Two runs may stand in one table only if this agrees. It does not depend on how the training
        sessions are cut into rows, because papers differ in that and it changes no candidate.
        """
        digest = hashlib.sha256()
        for field in (self.iid_field, self.uid_field):
            names = self.field2id_token[field]
            for start in range(0, len(names), _NAMES):
                digest.update(b"\n" if start else b"")
                digest.update("\n".join(map(str, names[start : start + _NAMES])).encode())
        train = self.train_sessions
        arrays = [train.session, train.offsets, train.items]
        for part in ("valid", "test"):
            rows = self._rows[part]
            arrays += [rows.session, rows.target, rows.history]
        for array in arrays:
            digest.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        if self.config["history"] == "mask":
            digest.update(b"history: mask")
        return digest.hexdigest()


def feature_files(config: Config) -> FeatureFiles:
    """Return the feature files of a configuration's data set: ``feature_path``, ``data_path``."""
    folders = [config[key] for key in ("feature_path", "data_path") if config[key]]
    return FeatureFiles(config["dataset"], folders)
