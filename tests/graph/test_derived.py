"""What is kept on disk is found again under the same key, and never trusted when damaged."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from recbole_mm.graph.derived import derived, fingerprint

ARRAYS = {"ids": np.arange(6, dtype=np.int32).reshape(2, 3)}


class Count:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return ARRAYS


def test_the_second_time_it_is_read(tmp_path):
    compute = Count()
    for _ in range(2):
        found = derived(tmp_path, "toy.text.neighbours", "a" * 64, compute)
        np.testing.assert_array_equal(found["ids"], ARRAYS["ids"])
        assert found["ids"].dtype == np.int32
    assert compute.calls == 1
    assert [path.name for path in tmp_path.iterdir()] == [
        f"toy.text.neighbours.{'a' * 16}.safetensors"
    ]
    derived(tmp_path, "toy.text.neighbours", "b" * 64, compute)
    assert compute.calls == 2


def test_another_key_of_the_same_beginning_is_another_thing(tmp_path):
    compute = Count()
    derived(tmp_path, "x", "a" * 16 + "b" * 48, compute)
    derived(tmp_path, "x", "a" * 16 + "c" * 48, compute)
    assert compute.calls == 2


def test_what_does_not_fit_is_made_anew(tmp_path):
    compute = Count()
    derived(tmp_path, "x", "a" * 64, compute, lambda arrays: arrays["ids"].shape[1] >= 3)
    derived(tmp_path, "x", "a" * 64, compute, lambda arrays: arrays["ids"].shape[1] >= 3)
    assert compute.calls == 1
    derived(tmp_path, "x", "a" * 64, compute, lambda arrays: arrays["ids"].shape[1] >= 4)
    assert compute.calls == 2


def test_a_damaged_file_is_made_anew(tmp_path, caplog):
    compute = Count()
    derived(tmp_path, "x", "a" * 64, compute)
    path = next(tmp_path.iterdir())
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    np.testing.assert_array_equal(derived(tmp_path, "x", "a" * 64, compute)["ids"], ARRAYS["ids"])
    assert compute.calls == 2 and "cannot be used" in caplog.text
    derived(tmp_path, "x", "a" * 64, compute)
    assert compute.calls == 2


def test_nothing_is_kept_without_a_folder(tmp_path):
    compute = Count()
    derived(None, "x", "a" * 64, compute)
    derived(None, "x", "a" * 64, compute)
    assert compute.calls == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs a file in place of a folder")
def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, caplog):
    caplog.set_level("INFO")
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    compute = Count()
    derived(blocked / "sub", "x", "a" * 64, compute)
    assert compute.calls == 1 and "is not kept" in caplog.text
    assert os.listdir(tmp_path) == ["file"]


def test_the_fingerprint_sees_everything():
    base = fingerprint({"a": np.zeros(3, np.float32)}, {"n": 1})
    assert base == fingerprint({"a": np.zeros(3, np.float32)}, {"n": 1})
    others = [
        fingerprint({"a": np.zeros(3, np.float32)}, {"n": 2}),
        fingerprint({"b": np.zeros(3, np.float32)}, {"n": 1}),
        fingerprint({"a": np.zeros(3, np.int32)}, {"n": 1}),
        fingerprint({"a": np.zeros((3, 1), np.float32)}, {"n": 1}),
        fingerprint({"a": np.array([0, 0, 1], np.float32)}, {"n": 1}),
    ]
    assert len({base, *others}) == 6
