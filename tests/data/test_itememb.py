"""The strict reader and writer of `.itememb`, and its binary copy."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors import safe_open

from recbole_mm.data import sidecar
from recbole_mm.data.itememb import itememb_path, read_itememb, write_itememb
from recbole_mm.data.sidecar import check_sidecar, sidecar_path
from recbole_mm.errors import FeatureError

HEADER = b"text_id:token\ttext_emb:float_seq\n"
GOOD = HEADER + b"a\t1 2.5 -3e-1\nb\t.5 +0 7.\n"


def make(folder: Path, content: bytes, name: str = "d.text.itememb") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def error_of(path: Path, modality: str = "text") -> str:
    with pytest.raises(FeatureError) as caught:
        read_itememb(path, modality)
    assert not sidecar_path(path).exists()
    return str(caught.value)


def test_reads_numbers_and_ids(tmp_path):
    emb = read_itememb(make(tmp_path, GOOD), "text")
    assert emb.ids == ["a", "b"]
    assert emb.vectors.dtype == np.float32
    np.testing.assert_array_equal(emb.vectors, np.float32([[1, 2.5, -0.3], [0.5, 0, 7]]))
    assert emb.sha256 == hashlib.sha256(GOOD).hexdigest()


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        (b"a\t1 2\na\t3 4\n", 3, ["'a'", "line 2 already"]),
        (b"a\t1 2\nb\t3\n", 3, ["1 number(s)", "expected 2"]),
        (b"a\t1 2\nb\t3 4\nc\t3 4 5\n", 4, ["3 number(s)", "expected 2"]),
        (b"a\t1 2\nb\tx 1\n", 3, ["'x'", "not a number"]),
        (b"a\t3,3,3\n", 2, ["'3,3,3'", "not a number"]),
        (b"a\t1 2\nb\t1_0 2\n", 3, ["'1_0'"]),
        (b"a\t1 2\nb\t0x1 2\n", 3, ["'0x1'"]),
        (b"a\t1.2.3\n", 2, ["'1.2.3'"]),
        (b"a\t1 2-\n", 2, ["'2-'"]),
        (b"a\t1e 2\n", 2, ["'1e'"]),
        (b"a\t1 nan\n", 2, ["'nan'", "finite"]),
        (b"a\t1 2\nb\t-inf 2\n", 3, ["'-inf'", "finite"]),
        (b"a\t1 Infinity\n", 2, ["'Infinity'", "finite"]),
        (b"a\t1 1e39\n", 2, ["too large for float32"]),
        (b"a\t1 1e999\n", 2, ["too large for float32"]),
        (b"a\t1 2\nb\t\n", 3, ["'b'", "empty"]),
        (b"a\t1 2\nb\t  \n", 3, ["'b'", "empty"]),
        (b"\t1 2\n", 2, ["id is ''"]),
        (b"a\t1 2\nb 1 2\n", 3, ["1 column(s)"]),
        (b"a\t1 2\nb\t1\t2\n", 3, ["3 column(s)"]),
        (b"a\t1 2\t\n", 2, ["3 column(s)"]),
        (b"a\t1 2\x0b\n", 2, ["not a number"]),
        (b"a\t1 2\n\nb\t1 2\n", 3, ["1 column(s)"]),
        (b"a\t1 2\n\xff\t1 2\n", 3, ["not UTF-8"]),
        (b"a\t1 \xff\n", 2, ["not a number"]),
        (b"a\rb\t1 2\n", 2, ["'a\\rb'"]),
    ],
)
def test_broken_row_names_file_and_line(tmp_path, rows, line, words):
    path = make(tmp_path, HEADER + rows)
    message = error_of(path)
    assert f"{path}, line {line}:" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\n",
        b"image_id:token\timage_emb:float_seq\n",
        b"text_id:token text_emb:float_seq\n",
        b"text_id\ttext_emb\n",
        b"text_emb:float_seq\ttext_id:token\n",
        b"text_id:token\ttext_emb:float_seq\tx:float\n",
        GOOD.decode().encode("utf-16"),
        b"a\t1 2\n",
    ],
)
def test_wrong_header(tmp_path, header):
    path = make(tmp_path, header if header.startswith(b"\xff\xfe") else header + b"a\t1 2\n")
    message = error_of(path)
    assert f"{path}, line 1:" in message
    assert "text_id:token" in message


def test_no_rows_and_no_file(tmp_path):
    assert "header without rows" in error_of(make(tmp_path, HEADER))
    assert "no such file" in error_of(tmp_path / "absent.text.itememb")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"),
        GOOD.removesuffix(b"\n"),
        GOOD.replace(b" 2.5", b"  2.5").replace(b"7.", b"7. "),
    ],
    ids=["bom", "crlf", "bom-crlf", "no-last-newline", "extra-blanks"],
)
def test_accepted_variants_mean_the_same(tmp_path, content):
    emb = read_itememb(make(tmp_path, content), "text")
    assert emb.ids == ["a", "b"]
    np.testing.assert_array_equal(emb.vectors, np.float32([[1, 2.5, -0.3], [0.5, 0, 7]]))


ODD_IDS = [
    '"quoted',
    'in"side',
    "NA",
    "null",
    "nan",
    "None",
    "[PAD]",
    " blank ",
    "0",
    "ä\u2028b",
    "#",
]


def test_odd_ids_are_ordinary(tmp_path):
    vectors = np.arange(2 * len(ODD_IDS), dtype=np.float32).reshape(-1, 2)
    path = tmp_path / "d.text.itememb"
    write_itememb(path, "text", ODD_IDS, vectors)
    for _ in ("text", "copy"):
        emb = read_itememb(path, "text")
        assert emb.ids == ODD_IDS
        np.testing.assert_array_equal(emb.vectors, vectors)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_round_trip_is_exact(tmp_path, data):
    letters = st.characters(blacklist_categories=["Cs"], blacklist_characters="\t\n\r\0")
    ids = data.draw(st.lists(st.text(letters, min_size=1), min_size=1, max_size=8, unique=True))
    width = data.draw(st.integers(1, 5))
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
    vectors = data.draw(arrays(np.float32, (len(ids), width), elements=floats))
    path = tmp_path / "h.text.itememb"
    sha256 = write_itememb(path, "text", ids, vectors)
    first, second = read_itememb(path, "text"), read_itememb(path, "text")
    for emb in (first, second):
        assert emb.ids == ids
        assert emb.sha256 == sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert emb.vectors.tobytes() == vectors.tobytes()


def test_bulk_and_line_parsers_agree(tmp_path):
    rng = np.random.default_rng(3)
    vectors = (rng.normal(size=(50, 7)) * 10.0 ** rng.integers(-40, 38, (50, 7))).astype("f4")
    ids = [f"i{row}" for row in range(50)]
    path = tmp_path / "d.text.itememb"
    write_itememb(path, "text", ids, vectors)
    # A second blank sends the whole file through the line parser.
    odd = make(tmp_path, path.read_bytes().replace(b" ", b"  ", 1), "odd.text.itememb")
    assert read_itememb(path, "text").vectors.tobytes() == vectors.tobytes()
    assert read_itememb(odd, "text").vectors.tobytes() == vectors.tobytes()


@pytest.mark.parametrize(
    ("ids", "vectors", "words"),
    [
        (["a", "a"], np.ones((2, 2)), "'a' stands twice"),
        (["a", "b\tc"], np.ones((2, 2)), "without tab"),
        (["a", "b\nc"], np.ones((2, 2)), "without tab"),
        (["a", "b\r"], np.ones((2, 2)), "without tab"),
        (["a", ""], np.ones((2, 2)), "''"),
        (["a", "\ud800"], np.ones((2, 2)), "UTF-8"),
        (["a", "b"], np.array([[1.0, 2.0], [np.nan, 1.0]]), "'b' (row 1)"),
        (["a", "b"], np.array([[1.0, 2.0], [1e39, 1.0]]), "beyond float32"),
        (["a", "b"], np.ones((3, 2)), "(3, 2) for 2 ids"),
        (["a", "b"], np.ones(2), "(2,) for 2 ids"),
        ([], np.ones((0, 2)), "(0, 2)"),
        (["a"], np.ones((1, 0)), "(1, 0)"),
    ],
)
def test_writer_refuses_and_keeps_the_old_file(tmp_path, ids, vectors, words):
    path = make(tmp_path, GOOD)
    with pytest.raises(FeatureError) as caught:
        write_itememb(path, "text", ids, vectors)
    assert words in str(caught.value)
    assert path.read_bytes() == GOOD
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("modality", ["", "a b", "../x", "a:b", "a\tb", "1a"])
def test_modality_is_a_plain_word(tmp_path, modality):
    with pytest.raises(FeatureError, match="modality"):
        itememb_path(tmp_path, "d", modality)


# --- the binary copy ---


def test_second_read_comes_from_the_copy(tmp_path, monkeypatch):
    path = make(tmp_path, GOOD)
    first = read_itememb(path, "text")

    def no_parsing(*_):
        raise AssertionError("parsed the text again")

    monkeypatch.setattr("recbole_mm.data.itememb._read_text", no_parsing)
    second = read_itememb(path, "text")
    assert (second.ids, second.sha256) == (first.ids, first.sha256)
    assert second.vectors.tobytes() == first.vectors.tobytes()
    os.utime(path, ns=(1, 1))
    assert read_itememb(path, "text").ids == ["a", "b"]


def test_copy_records_its_source(tmp_path):
    path = make(tmp_path, GOOD)
    read_itememb(path, "text")
    with safe_open(str(sidecar_path(path)), framework="np") as stream:
        metadata = json.loads(stream.metadata()["recbole_mm"])
        assert stream.get_tensor("vectors").shape == (2, 3)
    assert metadata["sha256"] == hashlib.sha256(GOOD).hexdigest()
    assert metadata["stat"] == f"{path.stat().st_size} {path.stat().st_mtime_ns}"


def test_changed_text_is_read_anew_even_with_the_same_size_and_time(tmp_path):
    path = make(tmp_path, GOOD)
    stat = path.stat()
    read_itememb(path, "text")
    path.write_bytes(GOOD.replace(b"2.5", b"9.5"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert read_itememb(path, "text").vectors[0, 1] == 9.5
    assert read_itememb(path, "text").vectors[0, 1] == 9.5


def test_large_text_is_hashed_only_when_its_stat_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(sidecar, "ALWAYS_HASH_BELOW", 0)
    path = make(tmp_path, GOOD)
    read_itememb(path, "text")
    hashed = []
    real = sidecar.sha256_file
    monkeypatch.setattr(sidecar, "sha256_file", lambda name: hashed.append(name) or real(name))
    read_itememb(path, "text")
    assert hashed == []
    os.utime(path, ns=(5, 5))
    read_itememb(path, "text")
    read_itememb(path, "text")
    assert hashed == [path]
    path.write_bytes(GOOD.replace(b"2.5", b"9.5"))
    assert read_itememb(path, "text").vectors[0, 1] == 9.5


def large(folder: Path, monkeypatch) -> tuple[Path, np.ndarray]:
    """Write and read 3,000 x 200 vectors, 2.4 MB, which here counts as large."""
    monkeypatch.setattr(sidecar, "ALWAYS_HASH_BELOW", 1 << 20)
    path = folder / "d.text.itememb"
    vectors = np.random.default_rng(0).standard_normal((3000, 200)).astype(np.float32)
    write_itememb(path, "text", [f"i{row}" for row in range(3000)], vectors)
    read_itememb(path, "text")
    return path, vectors


def test_a_large_copy_is_mapped_and_equals_the_text(tmp_path, monkeypatch):
    path, vectors = large(tmp_path, monkeypatch)
    before = sidecar_path(path).read_bytes()
    for name in ("sha256_file", "load_checked", "save_sidecar"):
        monkeypatch.setattr(sidecar, name, None)  # not needed
    emb = read_itememb(path, "text")
    assert isinstance(emb.vectors.base, np.memmap)
    np.testing.assert_array_equal(emb.vectors, vectors)
    assert emb.ids == [f"i{row}" for row in range(3000)]
    assert emb.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    emb.vectors[0] = 7
    assert sidecar_path(path).read_bytes() == before
    np.testing.assert_array_equal(read_itememb(path, "text").vectors, vectors)


def test_a_large_text_with_equal_size_and_time_but_other_content_is_read_anew(
    tmp_path, monkeypatch
):
    path, vectors = large(tmp_path, monkeypatch)
    stat = path.stat()
    # The same numbers at other items.
    write_itememb(path, "text", [f"i{row}" for row in range(3000)], vectors[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size
    np.testing.assert_array_equal(read_itememb(path, "text").vectors, vectors[::-1])
    np.testing.assert_array_equal(read_itememb(path, "text").vectors, vectors[::-1])


@pytest.mark.parametrize("place", [0, 9, 200, 1_000_000, -1])
def test_a_large_copy_that_was_written_over_is_made_again(tmp_path, monkeypatch, place):
    path, vectors = large(tmp_path, monkeypatch)
    side = sidecar_path(path)
    good = side.read_bytes()
    broken = bytearray(good)
    start = place % len(good)
    # A damaged block of a disk; at the front a part of the header.
    end = min(start + (8192 if place > 500 else 4), len(good))
    broken[start:end] = bytes(byte ^ 0x11 for byte in broken[start:end])
    side.write_bytes(bytes(broken))
    np.testing.assert_array_equal(read_itememb(path, "text").vectors, vectors)
    assert side.read_bytes() == good


@pytest.mark.parametrize("cut", [0, 100, 1_000_000, -1])
def test_a_cut_large_copy_is_made_again(tmp_path, monkeypatch, cut):
    path, vectors = large(tmp_path, monkeypatch)
    good = sidecar_path(path).read_bytes()
    sidecar_path(path).write_bytes(good[:cut])
    np.testing.assert_array_equal(read_itememb(path, "text").vectors, vectors)
    assert sidecar_path(path).read_bytes() == good


def test_the_check_of_every_byte_finds_what_samples_pass_over(tmp_path, monkeypatch):
    path, _ = large(tmp_path, monkeypatch)
    assert check_sidecar(path)
    side = sidecar_path(path)
    good = side.read_bytes()
    # Of the numbers the first 4 kB are a sample, and the next sample begins 9 kB on.
    broken = bytearray(good)
    broken[8 + int.from_bytes(good[:8], "little") + 6000] ^= 1
    side.write_bytes(bytes(broken))
    read_itememb(path, "text")
    with pytest.raises(FeatureError, match="checksum.*Remove it"):
        check_sidecar(path)
    side.write_bytes(good)
    stat = path.stat()
    text = bytearray(path.read_bytes())
    place = next(k for k in range(6000, 7000) if text[k] in b"123")
    text[place] = ord("4")
    path.write_bytes(bytes(text))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    read_itememb(path, "text")
    with pytest.raises(FeatureError, match="another text"):
        check_sidecar(path)
    side.unlink()
    assert not check_sidecar(path)


def test_every_flipped_byte_in_the_copy_is_noticed(tmp_path):
    path = make(tmp_path, GOOD)
    expected = read_itememb(path, "text")
    side = sidecar_path(path)
    good = side.read_bytes()
    for position in range(len(good)):
        broken = bytearray(good)
        broken[position] ^= 0x10
        side.write_bytes(bytes(broken))
        emb = read_itememb(path, "text")
        assert emb.ids == expected.ids
        assert emb.vectors.tobytes() == expected.vectors.tobytes()
        assert emb.sha256 == expected.sha256
        assert side.read_bytes() == good, f"copy not made again after a flip at {position}"


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 100, -1])
def test_cut_copy_is_made_again(tmp_path, cut, caplog):
    path = make(tmp_path, GOOD)
    read_itememb(path, "text")
    good = sidecar_path(path).read_bytes()
    sidecar_path(path).write_bytes(good[:cut])
    with caplog.at_level(logging.WARNING):
        assert read_itememb(path, "text").ids == ["a", "b"]
    assert "made again" in caplog.text
    assert sidecar_path(path).read_bytes() == good


def test_copy_of_another_modality_does_not_hide_the_wrong_header(tmp_path):
    path = make(tmp_path, GOOD)
    read_itememb(path, "text")
    with pytest.raises(FeatureError, match="line 1"):
        read_itememb(path, "image")


def test_unwritable_copy_is_not_fatal(tmp_path, caplog):
    path = make(tmp_path, GOOD)
    # A folder in its place cannot be replaced by a file, whoever runs the test.
    (sidecar_path(path) / "x").mkdir(parents=True)
    with caplog.at_level(logging.INFO):
        assert read_itememb(path, "text").ids == ["a", "b"]
    assert "No binary copy" in caplog.text
    assert sorted(os.listdir(tmp_path)) == [path.name, sidecar_path(path).name]


def test_pickle_in_place_of_the_copy_is_not_loaded(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sentinel"),))

    path = make(tmp_path, GOOD)
    sidecar_path(path).write_bytes(pickle.dumps(Evil()))
    assert read_itememb(path, "text").ids == ["a", "b"]
    assert not (tmp_path / "sentinel").exists()


def test_mutated_files_give_an_error_or_a_sound_result(tmp_path):
    rng = random.Random(11)
    ids = [f"item{row}" for row in range(12)]
    path = tmp_path / "d.text.itememb"
    write_itememb(path, "text", ids, np.random.default_rng(1).normal(size=(12, 6)))
    good = path.read_bytes()
    outcomes = {"error": 0, "sound": 0}
    for _ in range(600):
        path.write_bytes(mutate(rng, good))
        try:
            emb = read_itememb(path, "text")
        except FeatureError as error:
            assert str(path) in str(error)
            outcomes["error"] += 1
        else:
            assert np.isfinite(emb.vectors).all()
            assert emb.vectors.shape == (len(emb.ids), emb.vectors.shape[1])
            assert len(set(emb.ids)) == len(emb.ids) > 0
            assert emb.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            outcomes["sound"] += 1
    assert min(outcomes.values()) > 50, outcomes


def mutate(rng: random.Random, content: bytes) -> bytes:
    """Flip, insert, delete, repeat or cut bytes at one to three places."""
    raw = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(raw))
        kind = rng.randrange(6)
        if kind == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            raw[at:at] = bytes([rng.choice(b"\t\n\r ,.-e0x\x00\xff")])
        elif kind == 2:
            del raw[at]
        elif kind == 3:
            raw[at] = rng.choice(b"0123456789")
        elif kind == 4:
            raw[at:at] = raw[at : at + rng.randint(1, 60)]
        elif at > 40:
            del raw[at:]
    return bytes(raw)
