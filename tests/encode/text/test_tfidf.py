"""TF-IDF vectors: against NumPy by hand, fitted together, made anew when any text changes."""

from __future__ import annotations

import itertools
import math
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_mm import run
from recbole_mm.data.atomic import write_atomic
from recbole_mm.data.feature_files import FeatureFiles
from recbole_mm.data.itememb import read_itememb
from recbole_mm.encode import check_fresh, encode_text
from recbole_mm.encode import source as source_module
from recbole_mm.encode.manifest import Manifest, load_manifest, manifest_path
from recbole_mm.encode.recipe import Step, with_overrides
from recbole_mm.encode.text import tfidf
from recbole_mm.encode.text.tfidf import TfidfEncoder, corpus_hash
from recbole_mm.errors import EncodeError, FeatureError
from recbole_mm.testing.case import Toy, write_toy

ROOT = Path(__file__).parents[3]
TITLES = {
    "a": "Red cotton shirt, red!",
    "b": "red wool shirt",
    "c": "blue wool jeans",
    "d": "a usb charger and a usb cable",
    "e": "usb cable",
    "f": "blue jeans",
    "g": "zinc",
    "h": "blue jeans",
    "none": "",
}
NAMED = {token: text for token, text in TITLES.items() if text}


def by_hand(texts: list[str]) -> np.ndarray:
    """Return TF-IDF rows of length 1, one column per word or pair in two texts or more."""
    counts = []
    for text in texts:
        words = re.findall(r"\w{2,}", text.lower())
        counts.append(Counter([*words, *(" ".join(pair) for pair in itertools.pairwise(words))]))
    found = Counter(word for count in counts for word in count)
    kept = [word for word, number in found.items() if number >= 2]
    rows = np.zeros((len(texts), len(kept)))
    for row, count in zip(rows, counts, strict=True):
        for column, word in enumerate(kept):
            if count[word]:
                idf = 1 + math.log((1 + len(texts)) / (1 + found[word]))
                row[column] = (1 + math.log(count[word])) * idf
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def write_items(folder: Path, titles: dict[str, str]) -> None:
    rows = "".join(f"{token}\t{title}\n" for token, title in titles.items())
    (folder / "d.item").write_text("item_id:token\ttitle:token_seq\n" + rows, encoding="utf-8")


def encode(folder: Path, out: Path | None = None, **options: object) -> Path:
    return encode_text(folder, "d", out, encoder="tfidf", **options)  # type: ignore[arg-type]


def vectors(path: Path) -> dict[str, np.ndarray]:
    emb = read_itememb(path, "text")
    return dict(zip(emb.ids, emb.vectors, strict=True))


def manifest_of(path: Path) -> Manifest:
    manifest = load_manifest(manifest_path(path))
    assert manifest is not None
    return manifest


def stale(folder: Path, encoder: str = "tfidf") -> str:
    with pytest.raises(FeatureError) as caught:
        check_fresh(FeatureFiles("d", [folder]), "text", folder, encoder=encoder)
    return str(caught.value)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[TfidfEncoder]:
    """Return the list of all encoders that are fitted from now on."""
    made: list[TfidfEncoder] = []
    real = TfidfEncoder.__init__

    def fit(self: TfidfEncoder, *given: object) -> None:
        made.append(self)
        real(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(TfidfEncoder, "__init__", fit)
    return made


def test_cosines_are_those_of_tf_idf_by_hand(tmp_path: Path) -> None:
    write_items(tmp_path, TITLES)
    made = vectors(encode(tmp_path))
    assert list(made) == list("abcdefh")
    rows = by_hand(list(NAMED.values()))[[token in made for token in NAMED]]
    table = np.stack(list(made.values()))
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(table @ table.T, rows @ rows.T, atol=1e-6)
    # Words that repeat count less than twice, and pairs count.
    assert 0 < made["a"] @ made["b"] < 1
    np.testing.assert_array_equal(made["f"], made["h"])


def test_fewer_dimensions_keep_the_first_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfidf, "DIMENSIONS", 2)
    write_items(tmp_path, TITLES)
    made = vectors(encode(tmp_path))
    rows = by_hand(list(NAMED.values()))
    reduced = rows @ np.linalg.svd(rows)[2][:2].T
    lengths = np.linalg.norm(reduced, axis=1, keepdims=True)
    assert [
        token for token, length in zip(NAMED, lengths[:, 0], strict=True) if length > 1e-6
    ] == list(made)
    expected = (reduced / np.where(lengths > 1e-6, lengths, 1))[lengths[:, 0] > 1e-6]
    table = np.stack(list(made.values()))
    assert table.shape == (len(expected), 2)
    np.testing.assert_allclose(table @ table.T, expected @ expected.T, atol=1e-5)


def test_a_text_outside_the_kept_directions_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Five against two items, no word in common: one direction holds the five alone.
    monkeypatch.setattr(tfidf, "DIMENSIONS", 1)
    write_items(tmp_path, {**{f"i{n}": "usb cable" for n in range(5)}, "x": "oak", "y": "oak"})
    path = encode(tmp_path)
    assert list(vectors(path)) == [f"i{n}" for n in range(5)]
    assert manifest_of(path).missing.keys() == {"x", "y"}
    assert "directions kept" in manifest_of(path).missing["x"]


def test_width(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(300)]
    texts = [" ".join(rng.choice(words, 8)) for _ in range(400)]
    encoder = TfidfEncoder(texts, tmp_path)
    assert encoder.dim == 256
    table, notes = encoder.encode(texts[:5])
    assert (table.shape, table.dtype, notes) == ((5, 256), np.float32, [""] * 5)
    # Any cut into calls gives the same bits.
    np.testing.assert_array_equal(table[3:4], encoder.encode(texts[3:4])[0])


def test_missing_items_and_manifest(tmp_path: Path) -> None:
    write_items(tmp_path, TITLES)
    path = encode(tmp_path)
    manifest = manifest_of(path)
    assert manifest.missing == {"g": "no word that stands in another text too"}
    assert manifest.counts == {
        "items": 7, "missing": 2, "truncated": 0, "distinct_texts": 7, "repeated_rows": 0,
        "texts_encoded": 7,
    }  # fmt: skip
    assert manifest.dim == read_itememb(path, "text").vectors.shape[1] == 6
    about = manifest.encoder
    assert about.keys() == {"name", "revision", "fitted_on", "normalised"}
    assert (about["name"], about["fitted_on"]) == ("tfidf", corpus_hash(NAMED.values()))
    assert manifest.versions.keys() == {"numpy", "scipy", "scikit-learn"}
    assert manifest.versions["scikit-learn"] in about["revision"]


def test_order_of_items_and_number_of_threads_change_no_bit(tmp_path: Path) -> None:
    write_items(tmp_path, TITLES)
    first = encode(tmp_path, tmp_path / "one")
    again = encode(tmp_path, tmp_path / "two", chunk_size=2)
    assert first.read_bytes() == again.read_bytes()
    shuffled = list(TITLES.items())
    random.Random(1).shuffle(shuffled)
    write_items(tmp_path, dict(shuffled))
    code = f"from recbole_mm.encode import encode_text; encode_text({str(tmp_path)!r}, 'd', "
    code += f"{str(tmp_path / 'three')!r}, encoder='tfidf')\n"
    in_process(code, OMP_NUM_THREADS="2")
    other = vectors(tmp_path / "three" / "d.text.itememb")
    assert list(other) != list(vectors(first))
    for token, vector in vectors(first).items():
        np.testing.assert_array_equal(vector, other[token])


def in_process(code: str, **environment: str) -> None:
    """Run code in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=600)


def test_the_same_texts_are_left_alone(tmp_path: Path, fits: list[TfidfEncoder]) -> None:
    write_items(tmp_path, TITLES)
    path = encode(tmp_path)
    before = (path.read_bytes(), path.stat().st_ino)
    assert encode(tmp_path, fields=["title"]) == path
    assert len(fits) == 1 and (path.read_bytes(), path.stat().st_ino) == before
    manifest = manifest_of(path)
    assert manifest.counts["texts_encoded"] == 7 and manifest.missing.keys() == {"g"}
    # The same texts in another order, of other items: the same vectors, written anew.
    old = vectors(path)
    write_items(tmp_path, {token.upper(): TITLES[token] for token in reversed(TITLES)})
    new = vectors(encode(tmp_path))
    assert len(fits) == 1 and list(new) == list("HFEDCBA")
    np.testing.assert_array_equal(new["A"], old["a"])


@pytest.mark.parametrize(
    "change",
    [
        {"e": "blue usb"},
        {"i": "cotton jeans"},
        {"i": "blue jeans"},  # no new text, but these words now stand in one text more
        {"h": ""},
    ],
)
def test_one_changed_text_makes_all_anew(
    tmp_path: Path, fits: list[TfidfEncoder], change: dict[str, str]
) -> None:
    write_items(tmp_path, TITLES)
    path = encode(tmp_path)
    check_fresh(FeatureFiles("d", [tmp_path]), "text", tmp_path, encoder="tfidf")
    old = vectors(path)
    write_items(tmp_path, {**TITLES, **change})
    message = stale(tmp_path)
    assert f"texts of 1 item(s) {'gone' if change == {'h': ''} else 'changed or new'}" in message
    assert "--encoder=tfidf" in message and "scikit-learn" not in message
    encode(tmp_path)
    check_fresh(FeatureFiles("d", [tmp_path]), "text", tmp_path, encoder="tfidf")
    assert len(fits) == 2
    whole = encode(tmp_path, tmp_path / "fresh")
    assert path.read_bytes() == whole.read_bytes()
    new = vectors(path)
    others = old.keys() & new.keys() - change.keys()
    assert any(not np.array_equal(new[token], old[token]) for token in others)


def test_parts_of_other_texts_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_items(tmp_path, TITLES)
    real = TfidfEncoder.encode

    def stop_at_the_third(self: TfidfEncoder, texts: list[str]) -> object:
        if len(list((tmp_path / ".d.text.parts").glob("0*"))) == 2:
            raise KeyboardInterrupt
        return real(self, texts)

    monkeypatch.setattr(TfidfEncoder, "encode", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        encode(tmp_path, chunk_size=1)
    monkeypatch.setattr(TfidfEncoder, "encode", real)
    # The distinct texts stay; only their counts change.
    write_items(tmp_path, {**TITLES, "i": "blue jeans"})
    path = encode(tmp_path, chunk_size=1)
    whole = encode(tmp_path, tmp_path / "fresh")
    assert path.read_bytes() == whole.read_bytes()


def test_another_encoder_or_version_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: list[TfidfEncoder]
) -> None:
    write_items(tmp_path, TITLES)
    encode(tmp_path)
    assert "made by tfidf, the run asks for minilm; or set --text_encoder=tfidf" in stale(
        tmp_path, "minilm"
    )
    monkeypatch.setattr(tfidf.metadata, "version", lambda name: "9.9")
    assert "encoder (tfidf was scikit-learn " in (message := stale(tmp_path))
    assert "is scikit-learn 9.9, settings" in message
    encode(tmp_path)
    assert len(fits) == 2
    check_fresh(FeatureFiles("d", [tmp_path]), "text", tmp_path, encoder="tfidf")


def test_fields_one_by_one(tmp_path: Path) -> None:
    rows = "a\tred shirt\tAcme\nb\tred jeans\tVolt\nc\tblue jeans\tVolt\nd\tzinc\tOnly\n"
    head = "item_id:token\ttitle:token_seq\tbrand:token\n"
    (tmp_path / "d.item").write_text(head + rows, encoding="utf-8")
    path = encode(tmp_path, field_pooling="mean")
    made, texts = vectors(path), ["red shirt", "red jeans", "blue jeans", "zinc"]
    rows_of = by_hand([*texts, "Acme", "Volt", "Volt", "Only"])
    # The brand Acme has no vector, so a's title stands alone.
    means = np.stack([rows_of[0], (rows_of[1] + rows_of[5]) / 2, (rows_of[2] + rows_of[6]) / 2])
    table = np.stack([made[token] for token in "abc"])
    np.testing.assert_allclose(table @ table.T, means @ means.T, atol=1e-6)
    assert manifest_of(path).missing.keys() == {"d"}


@pytest.mark.parametrize(
    ("titles", "words"),
    [
        ({"a": "", "b": ""}, "all of title are empty"),
        ({"a": "red", "b": "blue"}, r"d\.item: .* found 0 word\(s\).* 2 texts.*--fields"),
        ({"a": "red", "b": "red"}, r"found 1 word\(s\)"),
        ({"a": "!", "b": "x y"}, r"found 0 word\(s\)"),
    ],
)
def test_too_few_words(tmp_path: Path, titles: dict[str, str], words: str) -> None:
    write_items(tmp_path, titles)
    with pytest.raises(EncodeError, match=words):
        encode(tmp_path)
    assert not (tmp_path / "d.text.itememb").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "mean"}, "--pooling does not go with text encoder 'tfidf'"),
        ({"max_length": 20}, "--max_length does not go"),
        ({"precision": "bfloat16"}, "--precision does not go"),
        ({"modality": "pseudo_text"}, "pseudo_text must lie in that of the real vectors"),
    ],
)
def test_what_does_not_apply_is_refused(
    tmp_path: Path, options: dict[str, object], words: str
) -> None:
    write_items(tmp_path, TITLES)
    with pytest.raises(EncodeError, match=words):
        encode(tmp_path, **options)


def test_a_recipe_s_pooling_goes_with_its_encoder() -> None:
    step = Step("text", False, {"text_encoder": "bert", "pooling": "pooler", "max_length": 9})
    assert with_overrides(step, {"text_encoder": "tfidf"}).options == {"text_encoder": "tfidf"}


def test_no_model_is_needed_nor_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_items(tmp_path, TITLES)
    command = ["encode", "--dataset=d", f"--data_path={tmp_path.parent}", "--text_encoder=tfidf"]
    (tmp_path.parent / "d").symlink_to(tmp_path)
    in_process(
        "import sys\n"
        "for name in ('sentence_transformers', 'transformers'): sys.modules[name] = None\n"
        "from recbole_mm.cli import main\n"
        f"assert main({command!r}) == 0\n"
    )
    assert len(vectors(tmp_path / "d.text.itememb")) == 7
    # Where the package is missing, other encoders' error names this one.
    monkeypatch.setattr(source_module, "find_spec", lambda name: None)
    with pytest.raises(EncodeError, match="--text_encoder=tfidf"):
        encode_text(tmp_path, "d")


def test_a_run_of_srim_encodes_on_first_use(tmp_path: Path) -> None:
    write_toy(tmp_path, Toy("toy", n_items=40, n_sessions=120), [])
    kinds = ["red shirt", "blue jeans", "usb cable"]
    frame = pd.DataFrame({"item_id": [f"i{n:04d}" for n in range(40)]})
    frame["title"] = [f"{kinds[n % 3]} {kinds[n % 2]} model{n}" for n in range(40)]
    write_atomic(tmp_path / "toy" / "toy.item", frame, {"item_id": "token", "title": "token_seq"})
    keys = {
        "data_path": str(tmp_path), "run_folder": str(tmp_path / "run"), "use_gpu": False,
        "text_encoder": "tfidf", "embedding_size": 8, "epochs": 1,
    }  # fmt: skip
    record = run.run("SRIM", "toy", (), keys).record
    assert record["status"] == "ok"
    (path,) = tmp_path.rglob("toy.text.itememb")
    manifest = manifest_of(path)
    assert (manifest.encoder["name"], manifest.counts["items"]) == ("tfidf", 40)
