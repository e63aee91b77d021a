"""Which modalities count as present."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recbole_mm.encode.present import present_modalities

from recbole_mm.data.itememb import itememb_path, write_itememb

HEAD = "item_id:token\ttitle:token_seq\n"


@pytest.fixture
def config(tmp_path: Path) -> dict[str, object]:
    data, features = tmp_path / "data" / "toy", tmp_path / "features"
    data.mkdir(parents=True)
    features.mkdir()
    return {
        "model": "M", "dataset": "toy", "data_path": str(data), "feature_path": str(features),
        "encode_on_first_use": True,
    }  # fmt: skip


def write(folder: object, modality: str) -> None:
    vectors = np.ones((1, 2), np.float32)
    write_itememb(itememb_path(Path(str(folder)), "toy", modality), modality, ["a"], vectors)


def write_items(config: dict[str, object], text: str) -> None:
    Path(str(config["data_path"]), "toy.item").write_text(text)


def test_files_in_either_folder_count_in_the_order_asked_for(config, caplog):
    caplog.set_level("INFO")
    assert present_modalities(config, ("text", "image")) == ()
    assert "M on toy: modalities used: none (no vectors of text, image)" in caplog.text
    write(config["data_path"], "image")
    assert present_modalities(config, ("text", "image")) == ("image",)
    write(config["feature_path"], "text")
    assert present_modalities(config, ("text", "image")) == ("text", "image")
    assert present_modalities(config, ("image", "text")) == ("image", "text")
    assert present_modalities(config, ("text",)) == ("text",)


def test_text_that_will_be_encoded_counts(config):
    write_items(config, HEAD + "a\tred shoe\n")
    assert present_modalities(config, ("text", "image")) == ("text",)
    config["encode_on_first_use"] = False
    assert present_modalities(config, ("text", "image")) == ()


def test_items_without_text_columns_do_not_count(config):
    write_items(config, "item_id:token\tweight:float\na\t1\n")
    assert present_modalities(config, ("text",)) == ()
    write_items(config, "broken")
    assert present_modalities(config, ("text",)) == ()
