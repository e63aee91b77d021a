"""SRIM on files: what stands in validation and test sessions must not reach the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mm.config import MMConfig
from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.model.srim.model import SRIM
from recbole_mm.model.srim.terms import Step

SMALL = {"embedding_size": 8, "n_heads": 2, "use_gpu": False}
Sessions = list[list[str]]


def make_sessions(n: int = 80) -> Sessions:
    rng = np.random.default_rng(0)
    return [[f"i{k:02d}" for k in rng.integers(0, 30, rng.integers(2, 7))] for _ in range(n)]


def write(folder: Path, sessions: Sessions, reverse: bool = False) -> Path:
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
    return folder


def load(folder: Path, **keys: object) -> tuple[SRIM, SessionDataset, list[SessionDataset]]:
    config = MMConfig("SRIM", "toy", (), {"data_path": str(folder), **SMALL, **keys})
    dataset = SessionDataset(config)
    # A vector of its own for every token, whatever its number.
    tokens = dataset.field2id_token["item_id"]
    table = torch.stack([torch.randn(5, generator=_seed(token)) for token in tokens])
    mask = torch.tensor([token not in ("[PAD]", "i03") for token in tokens])
    dataset.item_features = ItemFeatures(
        {"text": table * mask.unsqueeze(1)}, {"text": mask}, {"text": "0" * 64}
    )
    copies = dataset.build()
    torch.manual_seed(1)
    return config.spec.load(config["preset"])(config, copies[0]), dataset, copies


def _seed(token: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(map(ord, token)))


def state(model: SRIM, train: SessionDataset) -> dict[str, torch.Tensor]:
    """All that the model derives from sessions, its flags and its item tables."""
    rows = train.inter_feat
    step = Step(rows["item_id_list"], rows["item_id"], rows["session_id"], {}, {})
    flag = model.terms["joint"].flag(step)
    return {**dict(model.named_buffers()), **model.eval().item_tables(), "flag": flag}


def scrambled(sessions: Sessions, first: int) -> Sessions:
    """Deal the items of the sessions from ``first`` on anew; every item still occurs as often."""
    rng = np.random.default_rng(5)
    lengths = [len(one) for one in sessions[first:]]
    items = rng.permutation([item for one in sessions[first:] for item in one])
    cuts = np.cumsum(lengths)[:-1]
    return sessions[:first] + [list(part) for part in np.split(items, cuts)]


@pytest.mark.parametrize("preset", ["sound", "paper", "official"])
def test_scrambled_validation_and_test_sessions_change_nothing(tmp_path, preset):
    sessions = make_sessions()
    first = int(0.7 * len(sessions))
    here, dataset, copies = load(write(tmp_path / "a", sessions), preset=preset)
    other = scrambled(sessions, first)
    there, changed, others = load(write(tmp_path / "b", other, reverse=True), preset=preset)

    assert len(dataset.train_sessions) == first
    assert dataset.fingerprint() != changed.fingerprint()
    left, right = state(here, copies[0]), state(there, others[0])
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def test_the_leaky_preset_does_see_them(tmp_path):
    sessions = make_sessions()
    here, *_ = load(write(tmp_path / "a", sessions), preset="official_leaky")
    there, *_ = load(write(tmp_path / "b", scrambled(sessions, 56)), preset="official_leaky")
    assert here.leaky and (here.graph.counts != there.graph.counts).nnz > 0


def test_only_the_leaky_graph_holds_test_targets(tmp_path):
    sessions = make_sessions(20)
    sessions[19] = ["i01", "i98", "i99"]
    folder = write(tmp_path / "a", sessions)
    for preset, met in (("official_leaky", 1), ("official", 0), ("sound", 0)):
        model, dataset, _ = load(folder, preset=preset)
        ids = dataset.field2token_id["item_id"]
        assert model.graph.counts[ids["i98"], ids["i99"]] == met
        assert model.graph.counts[ids["i01"], ids["i98"]] == met
