"""Vectors that say nothing of their item: random ones, and those of other items."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mm.compare.results import Attempt, Row, check_comparable
from recbole_mm.data.controls import replaced
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.itememb import write_itememb
from recbole_mm.errors import FeatureError
from recbole_mm.run import run

N = 30
NAMES = [f"i{k:02d}" for k in range(N)]
TOKENS = ["[PAD]", *NAMES, "missing"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(N, 4)) * rng.uniform(0.1, 10, (N, 1))
    for modality in ("text", "pseudo_text"):
        write_itememb(tmp_path / f"d.{modality}.itememb", modality, NAMES, vectors)
    # Half of the items only.
    write_itememb(tmp_path / "d.image.itememb", "image", NAMES[::2], vectors[::2])
    return tmp_path


def load(folder: Path, source: str, seed: int = 1, tokens=TOKENS, missing="zero") -> ItemFeatures:
    modalities = ("text", "pseudo_text", "image")
    return ItemFeatures.load(FeatureFiles("d", [folder]), tokens, modalities, missing, source, seed)


def permutation(features: ItemFeatures, real: ItemFeatures, modality: str) -> dict[int, int]:
    """Return whose vector each item has."""
    table, known = features.table(modality), real.table(modality)
    rows = torch.nonzero(real.mask(modality)).ravel().tolist()
    return {row: next(r for r in rows if torch.equal(table[row], known[r])) for row in rows}


def test_random_rows_keep_length_and_nothing_else(folder: Path) -> None:
    real, other = load(folder, "real"), load(folder, "random")
    torch.testing.assert_close(other.table("text").norm(dim=1), real.table("text").norm(dim=1))
    unit = torch.nn.functional.normalize
    cosine = (unit(other.table("text")) * unit(real.table("text"))).sum(1)[1:-1]
    assert cosine.abs().max() < 0.999 and cosine.mean().abs() < 0.4
    assert torch.equal(other.mask("text"), real.mask("text"))
    # Row 0 is padding, the last item has no vector.
    assert other.table("text")[[0, -1]].abs().sum() == 0
    # The twin is drawn for itself.
    assert not torch.allclose(other.table("text"), other.table("pseudo_text"))


def test_random_numbers_are_normal() -> None:
    table = np.ones((5001, 8), dtype=np.float32)
    mask = np.ones(5001, dtype=bool)
    mask[0] = False
    drawn = replaced(table, mask, np.arange(1, 5001), "random", "text", 0)[1:]
    # Unit-length-scaled normal rows: mean 0, second moment |row|^2 / d = 1.
    assert abs(drawn.mean()) < 0.02 and abs((drawn**2).mean() - 1) < 1e-4
    assert abs(drawn[:, 0] @ drawn[:, 1]) / 5000 < 0.05


def test_shuffled_is_a_permutation_and_the_same_for_twins(folder: Path) -> None:
    real, other = load(folder, "real"), load(folder, "shuffled")
    of_text = permutation(other, real, "text")
    assert sorted(of_text.values()) == list(range(1, N + 1))
    assert sum(row == source for row, source in of_text.items()) < 6
    assert permutation(other, real, "pseudo_text") == of_text
    of_image = permutation(other, real, "image")
    assert sorted(of_image.values()) == list(of_image)
    assert torch.equal(other.mask("image"), real.mask("image"))
    assert other.table("image")[2].abs().sum() == 0


@pytest.mark.parametrize("source", ["random", "shuffled"])
def test_seed_decides_and_numbering_does_not(folder: Path, source: str) -> None:
    first = load(folder, source).table("text")
    assert torch.equal(first, load(folder, source).table("text"))
    assert not torch.equal(first, load(folder, source, seed=2).table("text"))
    names = [*NAMES[::-1], "missing"]
    again = load(folder, source, tokens=["[PAD]", *names]).table("text")
    rows = [names.index(token) + 1 for token in TOKENS[1:]]
    assert torch.equal(first[1:], again[rows])


def test_the_mean_of_missing_items_is_of_what_is_used(folder: Path) -> None:
    other = load(folder, "random", missing="mean")
    used = other.table("text")[1:-1].double().mean(0).float()
    torch.testing.assert_close(other.table("text")[-1], used)


def test_hashes_are_of_the_real_vectors(folder: Path) -> None:
    real = load(folder, "real")
    assert load(folder, "random").hashes == real.hashes == load(folder, "shuffled", 7).hashes
    assert (real.source, load(folder, "random").source) == ("real", "random")


def test_unknown_source(folder: Path) -> None:
    with pytest.raises(FeatureError, match="real, random, shuffled"):
        load(folder, "noise")


def test_runs_are_marked_and_stand_in_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    rng = np.random.default_rng(0)
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for session in range(40):
        for place, item in enumerate(rng.choice(NAMES, 4)):
            lines.append(f"s{session:02d}\t{item}\t{1.7e9 + 1000 * session + 7 * place}")
    (tmp_path / "d" / "d.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_itememb(tmp_path / "d" / "d.text.itememb", "text", NAMES, rng.normal(size=(N, 4)))
    settings = {"data_path": str(tmp_path), "epochs": 1}
    rows = []
    for source, model in (("real", "SRIM"), ("random", "SRIM"), ("random", "SASRec")):
        result = run(model, "d", (), {**settings, "feature_source": source})
        record = json.loads((result.folder / "result.json").read_text(encoding="utf-8"))
        log = (result.folder / "run.log").read_text(encoding="utf-8")
        assert ("text features are random" in log) == (source == "random" and model == "SRIM")
        attempt = Attempt(2020, (), record, "", result.folder)
        rows.append(Row(f"{model}:feature_source={source}", (attempt,)))
    check_comparable(rows)
    assert [row.marks for row in rows] == ["", "RANDOM FEATURES", ""]
    assert rows[0].records[0]["test"] != rows[1].records[0]["test"]
