"""MMSBR on files: what stands in validation and test sessions must not reach the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mm.config import MMConfig
from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.model.mmsbr.model import MMSBR
from recbole_mm.registry import resolve

SMALL = {
    "embedding_size": 8, "n_heads": 2, "n_tokens": 2, "n_pivots": 2, "pca_dim": 3, "use_gpu": False,
}  # fmt: skip
N_SESSIONS = 80
FIRST_LATE = int(0.7 * N_SESSIONS)
# Items that occur late only: all that is known of them must leave the others alone.
LATE = [f"z{k}" for k in range(5)]
Sessions = list[list[str]]


def make_sessions() -> Sessions:
    rng = np.random.default_rng(0)
    sessions = [[f"i{k:02d}" for k in rng.integers(0, 30, rng.integers(2, 7))] for _ in range(80)]
    for number, item in enumerate(LATE):
        sessions[FIRST_LATE + 4 * number][0] = item
    return sessions


def scrambled(sessions: Sessions) -> Sessions:
    """Deal the items of the late sessions anew; every item still occurs as often."""
    rng = np.random.default_rng(5)
    late = sessions[FIRST_LATE:]
    items = rng.permutation([item for one in late for item in one])
    cuts = np.cumsum([len(one) for one in late])[:-1]
    return sessions[:FIRST_LATE] + [list(part) for part in np.split(items, cuts)]


def write(folder: Path, sessions: Sessions, factor: float = 1.0, reverse: bool = False) -> Path:
    """Write the data set; ``factor`` multiplies the prices of the late items."""
    rows = [
        f"s{k:03d}\t{item}\t{1_700_000_000 + 1000 * k + place}"
        for k, session in enumerate(sessions)
        for place, item in enumerate(session)
    ]
    (folder / "toy").mkdir(parents=True)
    text = "\n".join(rows[::-1] if reverse else rows)
    (folder / "toy" / "toy.inter").write_text(
        f"session_id:token\titem_id:token\ttimestamp:float\n{text}\n"
    )
    items = [
        f"{item}\t${(1 + number * 7 % 31) * (factor if item in LATE else 1):.2f}\tkind{number % 3}"
        for number, item in enumerate([f"i{k:02d}" for k in range(30)] + LATE)
    ]
    text = "\n".join(items[::-1] if reverse else items)
    (folder / "toy" / "toy.item").write_text(
        f"item_id:token\tprice:token\tcategory:token\n{text}\n"
    )
    return folder


def vector(token: str, size: int, scale: float) -> torch.Tensor:
    """A vector of its own for every token, whatever its number."""
    generator = torch.Generator().manual_seed(sum(map(ord, token)) + size)
    return torch.randn(size, generator=generator) * (scale if token in LATE else 1.0)


def load(folder: Path, scale: float = 1.0, **keys: object) -> tuple[MMSBR, SessionDataset]:
    config = MMConfig("MMSBR", "toy", (), {"data_path": str(folder), **SMALL, **keys})
    dataset = SessionDataset(config)
    tokens = dataset.field2id_token["item_id"]
    mask = torch.tensor([token not in ("[PAD]", "i03") for token in tokens])
    tables = {
        name: torch.stack([vector(token, size, scale) for token in tokens]) * mask.unsqueeze(1)
        for name, size in (("text", 6), ("image", 5))
    }
    dataset.item_features = ItemFeatures(
        tables, dict.fromkeys(tables, mask), dict.fromkeys(tables, "0" * 64)
    )
    copies = dataset.build()
    torch.manual_seed(1)
    return resolve("MMSBR").load(config["preset"])(config, copies[0]), dataset


def state(model: MMSBR) -> dict[str, torch.Tensor]:
    """All that the model derives from data, and its first tables."""
    tables = model.eval().item_tables()
    return {**dict(model.named_buffers()), **dict(model.named_parameters()), **tables}


@pytest.mark.parametrize("preset", ["sound", "official"])
def test_scrambled_validation_and_test_sessions_change_nothing(tmp_path, preset):
    sessions = make_sessions()
    here, dataset = load(write(tmp_path / "a", sessions), preset=preset)
    scramble = write(tmp_path / "b", scrambled(sessions), reverse=True)
    there, changed = load(scramble, preset=preset)
    assert len(dataset.train_sessions) == FIRST_LATE
    assert dataset.fingerprint() != changed.fingerprint()
    left, right = state(here), state(there)
    assert left.keys() == right.keys() and "price.levels" in left
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize("pca_dim", [3, 0])
def test_statistics_come_from_training_items(tmp_path, pca_dim):
    """Prices and vectors of items that occur late only move nothing of the others."""
    sessions = make_sessions()
    here, dataset = load(write(tmp_path / "a", sessions), pca_dim=pca_dim)
    there, _ = load(write(tmp_path / "b", sessions, factor=50.0), scale=50.0, pca_dim=pca_dim)
    seen = torch.from_numpy(dataset.train_counts > 0)
    assert int((~seen[1:]).sum()) == len(LATE)
    for get in (
        lambda model: model.price.levels,
        lambda model: model.real["text"].vectors,
        lambda model: model.real["image"].vectors,
        lambda model: model.pseudo["text"].vectors,
        lambda model: model.pseudo["image"].vectors,
    ):
        assert torch.equal(get(here)[seen], get(there)[seen])
        assert not torch.equal(get(here)[~seen], get(there)[~seen])


def test_columns_come_from_the_item_file(tmp_path):
    model, dataset = load(write(tmp_path / "a", make_sessions()), price_levels=9)
    ids = dataset.field2token_id["item_id"]
    # kind0 holds 1, 22, 12, 2, 23, 13, 3, 24, 14, 4 of the training items, from 1 to 24 dollars.
    assert model.price.levels[ids["i00"]] == 1
    assert model.price.levels[ids["i21"]] == 10
    assert model.price.categories[ids["i00"]] == model.price.categories[ids["i03"]] == 1
    # i30 does not exist; z1 costs 19 dollars and is of kind1.
    assert model.price.categories[ids["z1"]] == 2
