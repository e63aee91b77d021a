from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_mm.errors import DataError
from recbole_mm.prepare.amazon import raw as amazon_raw
from recbole_mm.prepare.amazon.lines import NOT_RECORDS, ItemReader, ReviewReader
from recbole_mm.prepare.amazon.raw import stream_parts


def _line(number: int) -> str:
    return json.dumps(
        {
            "reviewerID": f"A{number % 7}",
            "asin": f"B{number % 5}",
            "reviewText": "word " * 20,
            "unixReviewTime": 1_400_025_600 + 86_400 * number,
        }
    )


def _dump(path: Path, count: int = 60, broken: tuple[int, ...] = (3, 40)) -> Path:
    rows = [_line(n) if n + 1 not in broken else "{broken" for n in range(count)]
    text = ("\n".join(rows) + "\n").encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def _read(path: Path, cache: Path, block: int = 1000):
    return stream_parts(path, cache, ReviewReader(), block)


@pytest.mark.parametrize("name", ["r.json", "r.json.gz"])
@pytest.mark.parametrize("block", [50, 1000, 1 << 20])
def test_blocks_do_not_change_what_is_read(tmp_path, name, block):
    parts = _read(_dump(tmp_path / name), tmp_path / "cache", block)
    frame = parts.scan().collect()
    assert frame["line"].to_list() == [n for n in range(1, 61) if n not in (3, 40)]
    assert frame["user"].to_list() == [f"A{(n - 1) % 7}" for n in frame["line"]]
    assert parts.lines == 60
    assert parts.report() == {
        "file": name,
        "lines": 60,
        "left_out": {NOT_RECORDS: {"count": 2, "first_at": [3, 40]}},
    }
    assert (len(parts.files) == 1) == (block == 1 << 20)


def test_a_last_line_without_end_and_carriage_returns_count(tmp_path):
    path = tmp_path / "r.json"
    path.write_bytes(f"{_line(0)}\r\n{_line(1)}".encode())
    parts = _read(path, tmp_path / "cache", 20)
    assert parts.scan().collect()["line"].to_list() == [1, 2] and parts.lines == 2


def test_a_packed_file_is_told_by_its_bytes(tmp_path):
    path = tmp_path / "r.json"
    path.write_bytes(gzip.compress(f"{_line(0)}\n".encode()))
    assert _read(path, tmp_path / "cache").lines == 1


def test_sound_parts_are_kept_and_damaged_ones_made_again(tmp_path):
    path, cache = _dump(tmp_path / "r.json"), tmp_path / "cache"
    first = _read(path, cache)
    before = {file: file.read_bytes() for file in first.files}
    made = {file: file.stat().st_mtime_ns for file in first.files}
    first.files[1].write_bytes(before[first.files[1]][:-1] + b"?")
    first.files[2].unlink()
    again = _read(path, cache)
    assert {file: file.read_bytes() for file in again.files} == before
    changed = [n for n, f in enumerate(again.files) if f.stat().st_mtime_ns != made[f]]
    assert changed == [1, 2]
    assert again.report() == first.report()


def test_a_whole_cache_is_used_without_reading_the_dump(tmp_path, monkeypatch):
    path, cache = _dump(tmp_path / "r.json"), tmp_path / "cache"
    first = _read(path, cache)
    monkeypatch.setattr(amazon_raw, "_blocks", lambda *_: pytest.fail("the dump was read"))
    assert _read(path, cache) == first


def test_another_file_or_reader_gets_parts_of_its_own(tmp_path):
    path, cache = _dump(tmp_path / "r.json"), tmp_path / "cache"
    _read(path, cache)
    assert _read(_dump(path, 61), cache).lines == 61
    _read(path, cache, 2000)
    wanted = {ItemReader(2018, wanted).stamp for wanted in (["a"], ["b"], ["a", "b"])}
    assert len(wanted | {ItemReader(2014, ["a"]).stamp}) == 4
    assert len(list(cache.iterdir())) == 3


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path):
    path, cache = _dump(tmp_path / "r.json.gz"), tmp_path / "cache"
    script = f"""
import os, signal
from pathlib import Path
from recbole_mm.prepare.amazon import raw as amazon_raw
from recbole_mm.prepare.amazon.lines import ReviewReader
make = amazon_raw._make_part
def killed(folder, number, *rest):
    if number == 4:
        (folder / ".part-00004.parquet.half").write_bytes(b"half a part")
        (folder / "part-00004.parquet").write_bytes(b"no part")
        os.kill(os.getpid(), signal.SIGKILL)
    return make(folder, number, *rest)
amazon_raw._make_part = killed
amazon_raw.stream_parts(Path({str(path)!r}), Path({str(cache)!r}), ReviewReader(), 1000)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=600, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for file in cache.glob("*/*.json")}
    assert len(kept) == 4
    resumed, whole = _read(path, cache), _read(path, tmp_path / "other")
    assert [f.read_bytes() for f in resumed.files] == [f.read_bytes() for f in whole.files]
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert resumed.report() == whole.report()


def test_a_dump_that_was_not_downloaded_to_its_end(tmp_path):
    path = _dump(tmp_path / "r.json.gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="not downloaded to its end"):
        _read(path, tmp_path / "cache")
    path.write_bytes(b"\x1f\x8b" + b"nonsense" * 9)
    with pytest.raises(DataError, match="damaged"):
        _read(path, tmp_path / "cache")


def test_files_that_hold_something_else(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    path.write_text("user,item\n1,2\n")
    with pytest.raises(DataError, match=r"none of the first 2 line\(s\).*JSON with reviewerID"):
        _read(path, tmp_path / "cache")
    path.write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        _read(path, tmp_path / "cache")
    monkeypatch.setattr(amazon_raw, "_LONGEST_LINE", 2000)
    path.write_text(_line(0) + "\n" + "x" * 5000)
    with pytest.raises(DataError, match="line 2: longer than"):
        _read(path, tmp_path / "cache")


def test_items_that_nobody_reviewed_are_no_reason_to_refuse_a_file(tmp_path):
    path = tmp_path / "meta.json"
    path.write_text('{"asin": "B1"}\n{"asin": "B2"}\n')
    parts = stream_parts(path, tmp_path / "cache", ItemReader(2018, ["B9"]), 1000)
    assert parts.scan().collect().height == 0 and parts.lines == 2
