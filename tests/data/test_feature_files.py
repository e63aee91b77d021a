"""One finder of feature files, one read of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbole_mm.config import MMConfig
from recbole_mm.data import feature_files, itememb
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.itememb import itememb_path, write_itememb
from recbole_mm.errors import FeatureError
from recbole_mm.run import prepare
from recbole_mm.testing.case import Toy, write_toy


def write(folder: Path, modality: str, token: str) -> None:
    write_itememb(itememb_path(folder, "shop", modality), modality, [token], np.ones((1, 2)))


def test_the_earlier_folder_counts(tmp_path: Path) -> None:
    write(tmp_path / "one", "text", "first")
    write(tmp_path / "two", "text", "second")
    write(tmp_path / "two", "image", "picture")
    files = FeatureFiles("shop", [tmp_path / "none", tmp_path / "one", tmp_path / "two"])
    assert files.paths() == {
        "text": tmp_path / "one" / "shop.text.itememb",
        "image": tmp_path / "two" / "shop.image.itememb",
    }
    assert files.find("image") == tmp_path / "two" / "shop.image.itememb"
    assert files.read("text").ids == ["first"]


def test_a_missing_file_names_all_places_and_the_command(tmp_path: Path) -> None:
    files = FeatureFiles("shop", [tmp_path / "a", tmp_path / "b", tmp_path / "a"])
    with pytest.raises(FeatureError, match="recbole-mm encode --dataset=shop --modality=text`"):
        files.find("text")
    with pytest.raises(FeatureError) as caught:
        files.read("image")
    assert str(caught.value).startswith(
        f"{tmp_path / 'a' / 'shop.image.itememb'} and {tmp_path / 'b' / 'shop.image.itememb'}: no"
    )


@pytest.mark.parametrize("candidates", ["interactions", "features"])
def test_a_run_reads_each_file_once(
    candidates: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_toy(tmp_path, Toy("toy", n_items=30, n_sessions=60), ["text", "image"])
    read: list[str] = []
    original = itememb.read_itememb

    def counted(path: Path, modality: str) -> object:
        read.append(modality)
        return original(path, modality)

    monkeypatch.setattr(feature_files, "read_itememb", counted)
    keys = {"data_path": str(tmp_path), "candidates": candidates, "run_folder": str(tmp_path / "r")}
    prepared = prepare(MMConfig("SRIM", "toy", (), keys))
    assert prepared.dataset.item_features is not None
    assert sorted(read) == (["image", "text"] if candidates == "features" else ["text"])
