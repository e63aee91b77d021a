"""The manifest file."""

from __future__ import annotations

import json

import pytest

from recbole_mm.encode.manifest import Manifest, load_manifest, manifest_path, texts_hash
from recbole_mm.errors import FeatureError


def test_round_trip(tmp_path):
    manifest = Manifest(
        "d", "text", "encoded", "00", 3, {"items": 1}, {"name": "minilm"}, ["title"]
    )
    manifest.save(tmp_path / "m.json")
    assert load_manifest(tmp_path / "m.json") == manifest
    assert load_manifest(tmp_path / "absent.json") is None


def test_name():
    assert manifest_path("x/d.v1.text.itememb").as_posix() == "x/d.v1.text.manifest.json"


def test_texts_hash_ignores_order_but_not_who_has_which():
    assert texts_hash({"a": "1", "b": "2"}) == texts_hash({"b": "2", "a": "1"})
    assert texts_hash({"a": "1", "b": "2"}) != texts_hash({"a": "2", "b": "1"})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"format": "recbole_mm.manifest/2"}',
        b'{"format": "recbole_mm.manifest/1"}',
        b"[" * 100_000,
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "d.text.manifest.json"
    path.write_bytes(content)
    with pytest.raises(FeatureError, match=r"d\.text\.manifest\.json: not a manifest"):
        load_manifest(path)


@pytest.mark.parametrize(
    ("key", "value"), [("dim", "3"), ("texts", []), ("fields", "title"), ("extra", 1)]
)
def test_wrong_values_are_refused(tmp_path, key, value):
    path = tmp_path / "d.text.manifest.json"
    Manifest("d", "text", "encoded", "00", 3).save(path)
    plain = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**plain, key: value}), encoding="utf-8")
    with pytest.raises(FeatureError, match=key):
        load_manifest(path)
