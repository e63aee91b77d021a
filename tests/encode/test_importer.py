"""Vectors from a NumPy file."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import recbole_mm
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.features import ItemFeatures
from recbole_mm.data.itememb import read_itememb
from recbole_mm.encode import import_vectors
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.errors import EncodeError, FeatureError
from recbole_mm.files import sha256_file

REAL = Path(recbole_mm.__file__).parent.parent.parent / "shared" / "data" / "scientific_mm"
TABLE = np.arange(6, dtype=np.float64).reshape(3, 2) / 7


def write(folder: Path, table: np.ndarray = TABLE, ids: bytes = b"a\nb\nc\n") -> tuple[Path, Path]:
    np.save(folder / "v.npy", table)
    (folder / "ids.txt").write_bytes(ids)
    return folder / "v.npy", folder / "ids.txt"


@pytest.mark.parametrize("ids", [b"a\nb\nc\n", b"a\nb\nc", b"\xef\xbb\xbfa\r\nb\r\nc\r\n"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_import(tmp_path, ids, dtype):
    table = TABLE.astype(dtype)
    files = write(tmp_path, table, ids)
    path = import_vectors(*files, tmp_path / "out", "d", "image")
    assert path == tmp_path / "out" / "d.image.itememb"
    emb = read_itememb(path, "image")
    assert emb.ids == ["a", "b", "c"]
    np.testing.assert_array_equal(emb.vectors, table.astype(np.float32))
    manifest = load_manifest(manifest_path(path))
    assert (manifest.kind, manifest.dim, manifest.counts) == ("imported", 2, {"items": 3})
    assert manifest.itememb_sha256 == sha256_file(path)
    assert manifest.source["vectors_sha256"] == sha256_file(files[0])
    assert manifest.source["ids_sha256"] == sha256_file(files[1])


def test_fortran_order_keeps_rows(tmp_path):
    files = write(tmp_path, np.asfortranarray(TABLE))
    emb = read_itememb(import_vectors(*files, tmp_path, "d", "image"), "image")
    np.testing.assert_array_equal(emb.vectors, TABLE.astype(np.float32))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (TABLE.astype(int), "int64"),
        (TABLE[0], r"\(2,\)"),
        (TABLE[None], r"\(1, 3, 2\)"),
        (TABLE[:, :0], "empty"),
        (TABLE.astype(object), "cannot be read"),
        (np.array([["x"]]), "<U1"),
        (np.where(TABLE == TABLE[1, 0], np.nan, TABLE), r"row 1 .* 0 more"),
        (np.where(TABLE >= TABLE[1, 0], np.inf, TABLE), r"row 1 .* 1 more"),
        (TABLE * 1e300, r"row 0 .* 2 more"),
    ],
)
def test_wrong_table(tmp_path, table, words):
    files = write(tmp_path, table)
    with pytest.raises(FeatureError, match=rf"v\.npy.*{words}"):
        import_vectors(*files, tmp_path / "out", "d", "image")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (b"a\nb\n", "2 ids for the 3 rows"),
        (b"a\nb\nc\nd\n", "4 ids for the 3 rows"),
        (b"a\nb\na\n", "line 3: id 'a' stands in line 1"),
        (b"a\n\nc\n", "line 2: ''"),
        (b"a\nb\tx\nc\n", "line 2"),
        (b"a\nb\n\xff\n", "line 3: not UTF-8"),
    ],
)
def test_wrong_ids(tmp_path, ids, words):
    files = write(tmp_path, ids=ids)
    with pytest.raises(FeatureError, match=rf"ids\.txt.*{words}"):
        import_vectors(*files, tmp_path, "d", "image")


def test_missing_files(tmp_path):
    vectors, ids = write(tmp_path)
    with pytest.raises(FeatureError, match=r"no\.npy: no such file"):
        import_vectors(tmp_path / "no.npy", ids, tmp_path, "d", "image")
    with pytest.raises(FeatureError, match=r"no\.txt: no such file"):
        import_vectors(vectors, tmp_path / "no.txt", tmp_path, "d", "image")


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder / "sentinel"),))


def test_pickles_and_archives_are_refused(tmp_path):
    vectors, ids = write(tmp_path)
    vectors.write_bytes(pickle.dumps(Evil(tmp_path)))
    with pytest.raises(FeatureError, match="cannot be read"):
        import_vectors(vectors, ids, tmp_path, "d", "image")
    np.save(vectors, np.array([Evil(tmp_path)], dtype=object), allow_pickle=True)
    with pytest.raises(FeatureError, match="cannot be read"):
        import_vectors(vectors, ids, tmp_path, "d", "image")
    with open(vectors, "wb") as stream:
        np.savez(stream, TABLE)
    with pytest.raises(FeatureError, match="holds an archive"):
        import_vectors(vectors, ids, tmp_path, "d", "image")
    assert not (tmp_path / "sentinel").exists()


def test_mutated_npy_gives_an_error_or_finite_vectors(tmp_path):
    vectors, ids = write(tmp_path)
    good = vectors.read_bytes()
    rng = np.random.default_rng(2)
    for number in range(120):
        raw = bytearray(good)
        raw[rng.integers(len(raw))] = rng.integers(256)
        vectors.write_bytes(bytes(raw) if number % 3 else bytes(raw[: rng.integers(len(raw))]))
        try:
            path = import_vectors(vectors, ids, tmp_path, "d", "image")
        except FeatureError:
            continue
        assert np.isfinite(read_itememb(path, "image").vectors).all()


def test_import_replaces_an_import_but_nothing_else(tmp_path):
    path = import_vectors(*write(tmp_path), tmp_path, "d", "image")
    import_vectors(*write(tmp_path, TABLE + 1), tmp_path, "d", "image")
    assert read_itememb(path, "image").vectors[0, 0] == 1
    manifest_path(path).unlink()
    with pytest.raises(EncodeError, match="may be your own work"):
        import_vectors(*write(tmp_path), tmp_path, "d", "image")


@pytest.mark.skipif(
    not REAL.is_dir(), reason=f"the real data set {REAL.name} is not beside the clone"
)
def test_real_clip_vectors(tmp_path):
    table, ids = REAL / "scientific_mm.image_clip.npy", REAL / "scientific_mm.feat_items.txt"
    import_vectors(table, ids, tmp_path, "scientific_mm", "image")
    catalogue = read_atomic(REAL / "scientific_mm.inter", ["item_id"])["item_id"].unique()
    tokens = ["[PAD]", *catalogue]
    features = ItemFeatures.load(
        FeatureFiles("scientific_mm", [tmp_path]), tokens, ["image"], missing="error"
    )
    expected = dict(zip(ids.read_text().split(), np.load(table), strict=True))
    assert len(tokens) == 1586
    for row, token in enumerate(tokens[1:], start=1):
        np.testing.assert_array_equal(features.table("image")[row].numpy(), expected[token])
