"""Encoding in several processes, started by a real torchrun (gloo)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("slow_encode.py")
CHUNKS = 19  # of 300 texts, 16 each
WORDS = "red blue small large cup plate lamp chair wooden glass soft warm old new".split()


def write_items(folder: Path, count: int = 700) -> Path:
    """Write a data set of items with texts, three chunks of them."""
    place = folder / "shop"
    place.mkdir(parents=True)
    rows = [f"i{k}\t{WORDS[k % 14]} {WORDS[k // 14 % 14]} number {k}" for k in range(count)]
    header = "item_id:token\ttitle:token_seq"
    (place / "shop.item").write_text("\n".join([header, *rows]) + "\n")
    return folder


def started(
    data: Path, *words: str, world: int = 2, script: Path | None = None
) -> subprocess.Popen:
    """Start ``encode`` under torchrun, or in one process without it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={world}"]
    program = [str(script)] if script else ["-m", "recbole_mm"]
    return subprocess.Popen(
        [sys.executable, *(launcher if world > 1 else ()), *program, "encode", "--dataset=shop",
         f"--data_path={data}", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=data,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def done(data: Path, *words: str, world: int = 2, script: Path | None = None) -> tuple[str, str]:
    running = started(data, *words, world=world, script=script)
    out, err = running.communicate(timeout=250)
    assert running.returncode == 0, out + err
    return out, err


def made(data: Path, modality: str = "text") -> dict[str, bytes]:
    """Return the content of the files that were made."""
    return {
        path.name: path.read_bytes() for path in sorted((data / "shop").glob(f"shop.{modality}*"))
    }


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    one, two = write_items(tmp_path / "one"), write_items(tmp_path / "two")
    done(one, world=1)
    out, err = done(two)
    assert made(one) == made(two)
    # One of them speaks, and nothing but the feature file is left.
    assert out.count("items: 700") == 1 and err.count("700 items with a vector") == 1
    assert not list((two / "shop").glob(".shop.text.parts/*"))


def test_both_encode_and_a_killed_one_ends_both_and_the_next_start_goes_on(tmp_path: Path) -> None:
    data = write_items(tmp_path / "data", 300)
    parts = data / "shop" / ".shop.text.parts"
    running = started(data, "--encoder=tfidf", script=SCRIPT)
    limit = time.monotonic() + 200
    while len(kept(parts)) < 4 and time.monotonic() < limit:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    os.kill(int((data / "pid-1").read_text()), signal.SIGKILL)
    _, err = running.communicate(timeout=100)
    assert running.returncode != 0
    assert len(messages(err)) == 1, err
    assert not made(data)
    before = kept(parts)
    # Both had encoded: even chunks are the first's, odd ones the second's.
    assert {int(name[:6]) % 2 for name in before} == {0, 1} and 4 <= len(before) < CHUNKS
    (data / "made").unlink()
    done(data, "--encoder=tfidf", script=SCRIPT)
    # What was there was not encoded again.
    chunks = (data / "made").read_text().split()
    assert len(chunks) == CHUNKS - len(before)
    whole = write_items(tmp_path / "whole", 300)
    done(whole, "--encoder=tfidf", world=1, script=SCRIPT)
    assert made(whole) == made(data)


def kept(parts: Path) -> set[str]:
    """Return the names of the finished chunks."""
    return {path.name for path in parts.glob("*.safetensors")}


def messages(err: str) -> list[str]:
    """Return the lines that are ours; a report of the launcher follows."""
    ours, _, _ = err.partition("torch/distributed/elastic")
    assert "Traceback" not in ours
    return [line for line in err.splitlines() if line.startswith(("error: ", "interrupted"))]


def test_an_error_is_said_once(tmp_path: Path) -> None:
    data = write_items(tmp_path / "data", 20)
    running = started(data, "--fields=nothing")
    _, err = running.communicate(timeout=200)
    assert running.returncode != 0
    assert len(messages(err)) == 1 and "column(s) nothing not found" in messages(err)[0], err


def test_quick_jobs_are_done_by_one(tmp_path: Path) -> None:
    data = write_items(tmp_path / "data", 20)
    np.save(data / "v.npy", np.random.default_rng(0).random((20, 3), np.float32))
    (data / "ids.txt").write_text("".join(f"i{k}\n" for k in range(20)))
    out, _ = done(data, "--from_npy=v.npy", "--ids=ids.txt")
    assert out.count("items: 20") == 1 and len(made(data)) == 2
