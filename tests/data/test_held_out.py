"""`cold_items`: which items are drawn, and that training never sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recbole.data import data_preparation

from recbole_mm.config import MMConfig
from recbole_mm.data.held_out import draw_items, without_items
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.data.sessions import Sessions
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.testing.case import SMALL, write_toy


def test_sessions_without_items_by_hand() -> None:
    sessions = Sessions(
        np.array([7, 8, 9]), np.array([0, 3, 5, 8]), np.array([1, 2, 3, 2, 4, 4, 4, 1]),
        np.arange(8.0),
    )  # fmt: skip
    rest = without_items(sessions, np.array([False, False, True, False, False]))
    # Session 8 keeps one item and is left out.
    assert rest.session.tolist() == [7, 9]
    assert rest.offsets.tolist() == [0, 2, 5]
    assert rest.items.tolist() == [1, 3, 4, 4, 1]
    assert rest.time.tolist() == [0, 2, 5, 6, 7]


def test_the_draw_hangs_on_the_seed_alone() -> None:
    held = draw_items(101, 0.1, 2020)
    assert held.sum() == 10 and not held[0]
    assert (held == draw_items(101, 0.1, 2020)).all() and (held != draw_items(101, 0.1, 7)).any()
    assert not draw_items(101, 0.0, 2020).any()


def build(folder: Path, **keys: object) -> tuple[SessionDataset, list]:
    if not (folder / SMALL.name).is_dir():
        write_toy(folder, SMALL, ["text"])
    config = MMConfig("SASRec", SMALL.name, (), {"data_path": str(folder), **keys})
    dataset = SessionDataset(config)
    return dataset, data_preparation(config, dataset)


def test_training_never_sees_them_and_the_rest_stays(tmp_path: Path) -> None:
    plain, _ = build(tmp_path)
    cold, (train, _, _) = build(tmp_path, cold_items=0.2)
    held = np.flatnonzero(cold.held_out)
    assert len(held) == cold.counts["held_out_items"] == 12
    assert not np.isin(cold.train_sessions.items, held).any()
    rows = train.dataset.inter_feat
    for column in ("item_id", "item_id_list"):
        assert not np.isin(rows[column].numpy(), held).any()
    assert not cold.train_counts[held].any() and plain.train_counts[held].all()
    assert cold.tokens(np.arange(61)) == plain.tokens(np.arange(61))
    for part in ("valid", "test"):
        assert (cold.rows(part).target == plain.rows(part).target).all()
        assert (cold.rows(part).history == plain.rows(part).history).all()
    assert np.isin(cold.rows("test").target, held).any()
    lost = int(np.isin(plain.train_sessions.items, held).sum())
    assert cold.counts["held_out_interactions"] == lost
    assert cold.fingerprint() != plain.fingerprint()


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="split by whole sessions"):
        build(tmp_path, cold_items=0.1, split_by="leave_one_out")
    with pytest.raises(ConfigError, match="cold_items"):
        build(tmp_path, cold_items=0.9)
