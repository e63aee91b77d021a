"""BERT's poolings and the pooling of fields, against transformers and by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.itememb import read_itememb
from recbole_mm.encode import check_fresh, encode_text
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.encode.source import resolve_encoder
from recbole_mm.encode.text.encoder import TextEncoder
from recbole_mm.errors import EncodeError, FeatureError

from ..conftest import needs

needs("sentence_transformers")

TEXTS = ["red shirt", "blue jeans , usb charger a b c", "zz", "shirts", "a " * 20]


def direct(bert: Path, pooling: str, texts: list[str], length: int = 32) -> np.ndarray:
    """Return what transformers itself makes of texts, one by one and so without padding."""
    from transformers import AutoTokenizer, BertModel

    model, tokenizer = BertModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    rows = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)
        with torch.no_grad():
            output = model(**inputs)
        states = output.last_hidden_state[0]
        kinds = {"mean": states.mean(0), "cls": states[0], "pooler": output.pooler_output[0]}
        rows.append(kinds[pooling].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_poolings_are_transformers_own_whatever_the_padding(bert: Path, pooling: str) -> None:
    encoder = TextEncoder(resolve_encoder(str(bert), pooling), batch_size=8)
    vectors, notes = encoder.encode(TEXTS)
    np.testing.assert_allclose(vectors, direct(bert, pooling, TEXTS), atol=1e-5)
    assert notes == [""] * 5 and encoder.dim == 16
    encoder.batch_size = 1
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1])[0][::-1], vectors, atol=1e-5)
    assert encoder.describe()["pooling"] == pooling
    assert encoder.describe()["normalised"] is False


def test_poolings_differ_and_the_default_is_the_mean(bert: Path) -> None:
    made = [direct(bert, pooling, TEXTS) for pooling in ("mean", "cls", "pooler")]
    assert all(np.abs(a - b).max() > 0.1 for a, b in zip(made, made[1:], strict=False))
    plain = TextEncoder(resolve_encoder(str(bert))).encode(TEXTS)[0]
    np.testing.assert_allclose(plain, made[0], atol=1e-5)


@pytest.mark.parametrize("pooling", [None, "pooler"])
def test_reading_length(bert: Path, pooling: str | None) -> None:
    encoder = TextEncoder(resolve_encoder(str(bert), pooling, max_length=6))
    vectors, notes = encoder.encode(TEXTS)
    assert encoder.max_tokens == 6
    assert notes == ["", "cut", "", "", "cut"]
    expected = direct(bert, pooling or "mean", TEXTS, length=6)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    # Never more than there are positions.
    assert TextEncoder(resolve_encoder(str(bert), pooling, max_length=200)).max_tokens == 32


def test_pooling_of_a_ready_sentence_model_replaces_its_own(bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    model = SentenceTransformer(str(bert))
    ready = SentenceTransformer(modules=[model[0], Pooling(16, "mean"), Normalize()])
    ready.save(str(tmp_path / "ready"))
    source = str(tmp_path / "ready")
    unit = TextEncoder(resolve_encoder(source))
    assert unit.describe()["normalised"] is True
    np.testing.assert_allclose(np.linalg.norm(unit.encode(TEXTS)[0], axis=1), 1, atol=1e-5)
    for pooling in ("cls", "pooler"):
        other = TextEncoder(resolve_encoder(source, pooling))
        np.testing.assert_allclose(other.encode(TEXTS)[0], direct(bert, pooling, TEXTS), atol=1e-5)


def test_an_untrained_pooler_is_refused(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "headless"
    shutil.copytree(bert, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncodeError, match="no trained pooler"):
        TextEncoder(resolve_encoder(str(folder), "pooler"))
    TextEncoder(resolve_encoder(str(folder), "cls"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "max"}, "mean, cls, pooler"),
        ({"max_length": 2}, "3 tokens or more"),
        ({"precision": "float16"}, "precision is 'float16', expected float32 or bfloat16"),
    ],
)
def test_wrong_options(bert: Path, options: dict, words: str) -> None:
    with pytest.raises(EncodeError, match=words):
        resolve_encoder(str(bert), **options)


ITEMS = (
    "item_id:token\ttitle:token_seq\tbrand:token\tcategory:token\n"
    "x\tred shirt\tblue\tjeans\ny\tred shirt\t\tjeans\nz\tred shirt\t\t\nnone\t\t\t\n"
    "same\tjeans\tjeans\tusb\n"
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "d.item").write_text(ITEMS, encoding="utf-8")
    return tmp_path


def test_mean_of_the_fields_that_are_there(shop: Path, bert: Path, monkeypatch) -> None:
    seen: list[str] = []
    real = TextEncoder.encode
    monkeypatch.setattr(
        TextEncoder, "encode", lambda self, texts: seen.extend(texts) or real(self, texts)
    )
    options = {"encoder": str(bert), "field_pooling": "mean"}
    path = encode_text(shop, "d", **options)
    emb = read_itememb(path, "text")
    assert emb.ids == ["x", "y", "z", "same"]
    assert sorted(seen) == ["blue", "jeans", "red shirt", "usb"]
    one = dict(zip(seen, direct(bert, "mean", seen), strict=True))
    expected = [
        (one["red shirt"] + one["blue"] + one["jeans"]) / 3,
        (one["red shirt"] + one["jeans"]) / 2,
        one["red shirt"],
        (one["jeans"] + one["jeans"] + one["usb"]) / 3,
    ]
    np.testing.assert_allclose(emb.vectors, expected, atol=1e-5)
    manifest = load_manifest(manifest_path(path))
    assert manifest.field_pooling == "mean" and manifest.counts["missing"] == 1
    assert manifest.counts["texts_encoded"] == 4
    # Nothing changed: nothing is encoded. One brand changed: the item's three fields are.
    seen.clear()
    encode_text(shop, "d", **options)
    assert seen == []
    (shop / "d.item").write_text(ITEMS.replace("blue", "a b"), encoding="utf-8")
    with pytest.raises(FeatureError, match=r"1 item\(s\) changed or new \(x\).*field_pooling=mean"):
        check_fresh(FeatureFiles("d", [shop]), "text", shop, encoder=str(bert))
    encode_text(shop, "d", **options)
    assert sorted(seen) == ["a b", "jeans", "red shirt"]
    check_fresh(FeatureFiles("d", [shop]), "text", shop, encoder=str(bert))


def test_changing_between_join_and_mean_encodes_what_differs(shop: Path, bert: Path) -> None:
    joined = encode_text(shop, "d", encoder=str(bert))
    first = dict(zip(*(lambda e: (e.ids, e.vectors))(read_itememb(joined, "text")), strict=True))
    encode_text(shop, "d", encoder=str(bert), field_pooling="mean")
    emb = read_itememb(joined, "text")
    second = dict(zip(emb.ids, emb.vectors, strict=True))
    np.testing.assert_array_equal(first["z"], second["z"])
    assert np.abs(first["x"] - second["x"]).max() > 0.01
    # From scratch it is the same.
    fresh = encode_text(shop, "d", shop / "fresh", encoder=str(bert), field_pooling="mean")
    np.testing.assert_allclose(read_itememb(fresh, "text").vectors, emb.vectors, atol=1e-6)


def test_another_pooling_makes_all_anew_and_a_run_keeps_it(shop: Path, bert: Path) -> None:
    path = encode_text(shop, "d", encoder=str(bert), pooling="pooler", max_length=20)
    manifest = load_manifest(manifest_path(path))
    assert manifest.encoder["asked"] == {"pooling": "pooler", "max_length": 20}
    # A run that names another encoder takes what was asked for by hand.
    check_fresh(FeatureFiles("d", [shop]), "text", shop, encoder="minilm")
    pooled = read_itememb(path, "text").vectors
    encode_text(shop, "d", encoder=str(bert), pooling="cls")
    assert np.abs(read_itememb(path, "text").vectors - pooled).max() > 0.01
    assert load_manifest(manifest_path(path)).counts["texts_encoded"] == 4
    encode_text(shop, "d", encoder=str(bert))
    with pytest.raises(FeatureError, match="the run asks for minilm"):
        check_fresh(FeatureFiles("d", [shop]), "text", shop, encoder="minilm")


def test_bfloat16_is_near_and_recorded_and_float32_is_no_other_choice(
    shop: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode_text(shop, "d", encoder=str(bert))
    full = read_itememb(path, "text").vectors
    with monkeypatch.context() as none:
        none.delattr(TextEncoder, "encode")
        encode_text(shop, "d", encoder=str(bert), precision="float32")
    encode_text(shop, "d", encoder=str(bert), precision="bfloat16")
    manifest = load_manifest(manifest_path(path))
    assert manifest.counts["texts_encoded"] == 4
    assert manifest.encoder["asked"] == {"precision": "bfloat16"}
    half = read_itememb(path, "text").vectors
    assert half.dtype == np.float32
    apart = np.abs(half - full).max() / np.abs(full).max()
    assert 1e-5 < apart < 0.03
    # A run keeps what was asked for, and names it where texts have changed.
    check_fresh(FeatureFiles("d", [shop]), "text", shop, encoder="minilm")
    (shop / "d.item").write_text(ITEMS.replace("blue", "a b"), encoding="utf-8")
    with pytest.raises(FeatureError, match="--precision=bfloat16"):
        check_fresh(FeatureFiles("d", [shop]), "text", shop, encoder=str(bert))


def test_unknown_field_pooling(shop: Path, bert: Path) -> None:
    with pytest.raises(EncodeError, match="join or mean"):
        encode_text(shop, "d", encoder=str(bert), field_pooling="sum")
