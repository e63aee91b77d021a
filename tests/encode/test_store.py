"""The work folder: publishing, interrupted publishing, full disks."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from recbole_mm.encode.manifest import Manifest, load_manifest
from recbole_mm.encode.store import Store
from recbole_mm.errors import EncodeError
from recbole_mm.files import sha256_file

OLD = np.array([[1.0, 2.0]])
NEW = np.array([[3.0, 4.0], [5.0, 6.0]])


def manifest(items: int) -> Manifest:
    return Manifest("d", "text", "encoded", "", dim=2, counts={"items": items})


@pytest.fixture
def store(tmp_path):
    """Return a store that holds a first version."""
    store = Store(tmp_path, "d", "text")
    with store.writing():
        store.publish(["a"], OLD, manifest(1))
    return store


def test_publish(store):
    known, emb = store.previous()
    assert emb.ids == ["a"]
    assert known.itememb_sha256 == emb.sha256 == sha256_file(store.path)
    assert not store.parts.exists()


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_killed_while_publishing(store, monkeypatch, renames):
    """Whatever rename a process does not live to make, the next one finds one whole version."""
    real, made = os.replace, []

    def replace(source, target):
        final = target in (store.path, store.manifest)
        if final and len(made) >= renames:
            raise KeyboardInterrupt
        made.extend([target] if final else [])
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with store.writing(), pytest.raises(KeyboardInterrupt if renames < 2 else ZeroDivisionError):
        store.publish(["a", "b"], NEW, manifest(2))
        raise ZeroDivisionError
    monkeypatch.setattr(os, "replace", real)
    with store.writing():
        known, emb = store.previous()
    items = 1 if renames == 0 else 2
    assert known.counts["items"] == len(emb.ids) == items
    assert load_manifest(store.manifest).itememb_sha256 == sha256_file(store.path)


def test_full_disk_keeps_the_old_version(store):
    resource = pytest.importorskip("resource", reason="no file size limits on this system")
    before = store.path.read_bytes(), store.manifest.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ids = [f"i{number}" for number in range(4000)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, hard))
    try:
        with pytest.raises(EncodeError, match="cannot be written"), store.writing():
            store.publish(ids, np.random.default_rng(0).normal(size=(4000, 16)), manifest(4000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (store.path.read_bytes(), store.manifest.read_bytes()) == before
    assert not [name for name in os.listdir(store.path.parent) if "itememb." in name]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with (
        pytest.raises(EncodeError, match="cannot be written"),
        Store(tmp_path / "file" / "x", "d", "text").writing(),
    ):
        pass


def test_one_writer_at_a_time_and_per_modality(store):
    other, image = Store(store.path.parent, "d", "text"), Store(store.path.parent, "d", "image")
    with store.writing():
        with pytest.raises(EncodeError, match=f"process {os.getpid()} on "), other.writing():
            pass
        with image.writing():
            pass
    with other.writing():
        pass


def test_parts_survive_and_are_checked(store, caplog):
    vectors, notes = np.float32([[1, 2], [3, 4]]), ["cut", ""]
    with store.writing():
        store.save_part(0, "key", vectors, notes)
    assert store.load_part(1, "key") is None
    assert store.load_part(0, "other key") is None
    assert not caplog.records
    again = store.load_part(0, "key")
    np.testing.assert_array_equal(again[0], vectors)
    assert again[1] == notes
    (part,) = store.parts.iterdir()
    part.write_bytes(part.read_bytes()[:-1])
    assert store.load_part(0, "key") is None
    assert "encoded again" in caplog.text
    shutil.rmtree(store.parts)


def test_previous_is_read_only_if_it_is_ours(store):
    store.manifest.unlink()
    with pytest.raises(EncodeError, match="has no manifest"):
        store.previous()
    store.path.unlink()
    assert store.previous() is None
