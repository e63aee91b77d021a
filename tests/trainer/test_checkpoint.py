from __future__ import annotations

import os
import pickle
import random
import signal
import time
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import sparse

from recbole_mm.errors import CheckpointError
from recbole_mm.trainer.checkpoint import (
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
    state_differences,
    vocabulary_hash,
)


def same(one, two) -> bool:
    """Compare nested states bit by bit, types included."""
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.Tensor):
        one, two = one.to_dense(), two.to_dense()
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two)
    if sparse.issparse(one):
        return one.dtype == two.dtype and (one != two).nnz == 0
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return repr(one) == repr(two)


def rich_state():
    torch.manual_seed(0)
    weight = torch.randn(3, 4)
    parameter = torch.nn.Parameter(torch.randn(2))
    optimiser = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimiser.step()
    return {
        "weights": {"a.weight": weight, "tied.weight": weight, "half": weight.half()},
        "strange": [torch.tensor(3), torch.empty(0, 5), torch.tensor([True, False])],
        "bfloat": weight.bfloat16(),
        "transposed": weight.T,
        "optimiser": optimiser.state_dict(),
        "rng": rng_state(),
        "int keys": {0: "a", 7: {"$": "a user's own dollar"}},
        "numbers": [1, 0.1, float("inf"), float("-inf"), float("nan"), True, None, 10**30],
        "pairs": (1, ("x", None)),
        "array": np.arange(6, dtype=np.uint32).reshape(2, 3),
        "csc": sparse.random(5, 4, 0.4, format="csc", dtype=np.float32, random_state=1),
        "lil": sparse.random(5, 4, 0.4, format="lil", random_state=1),
        "coo": torch.eye(3).to_sparse_coo(),
        "csr": torch.eye(3).to_sparse_csr(),
        "a/b": {"c": torch.ones(1)},
        "a": {"b": {"c": torch.zeros(1)}},
        "text": 'ümlaut "quotes"\n',
    }


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"epoch": 3, "model": {"w": torch.arange(6.0)}, "lr": 0.1})
    return path


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_every_kind_of_state_comes_back_bit_by_bit(tmp_path):
    state = rich_state()
    save_checkpoint(tmp_path / "c.safetensors", state)
    back = load_checkpoint(tmp_path / "c.safetensors")
    assert list(back) == list(state)
    for key, value in state.items():
        assert same(value, back[key]), key


def test_the_comparison_of_these_tests_sees_a_changed_bit():
    one, two = rich_state(), rich_state()
    assert same(one["optimiser"], two["optimiser"])
    two["optimiser"]["state"][0]["exp_avg"][1] += 1e-7
    assert not same(one["optimiser"], two["optimiser"])
    assert not same(np.float32(1), 1.0)


def test_numpy_scalars_and_ordered_dicts_become_plain(tmp_path):
    state = {"f": np.float64(0.1), "i": np.int64(4), "b": np.bool_(True), "o": OrderedDict(a=1)}
    save_checkpoint(tmp_path / "c", state)
    back = load_checkpoint(tmp_path / "c")
    assert same(back, {"f": 0.1, "i": 4, "b": True, "o": {"a": 1}})


def test_what_is_not_data_is_refused_and_named(tmp_path, saved):
    before = saved.read_bytes()
    with pytest.raises(CheckpointError, match=r"model/layer .*torch.nn.modules.linear.Linear"):
        save_checkpoint(saved, {"model": {"layer": torch.nn.Linear(1, 1)}})
    with pytest.raises(CheckpointError, match=r"names .*numpy.ndarray"):
        save_checkpoint(saved, {"names": np.array(["a", None], dtype=object)})
    assert saved.read_bytes() == before


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 8, 40, 200, -1])
def test_truncated_file(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(saved)


def test_a_flipped_bit_in_the_weights_is_found_by_the_checksum(saved):
    data = bytearray(saved.read_bytes())
    data[-3] ^= 1
    saved.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(saved)


def test_a_changed_plain_value_is_found_by_the_checksum(saved):
    data = saved.read_bytes()
    changed = data.replace(b'\\"epoch\\": 3', b'\\"epoch\\": 4')
    assert changed != data
    saved.write_bytes(changed)
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(saved)


def test_a_thousand_mutations_raise_our_error_or_change_nothing(tmp_path, saved):
    rng = random.Random(1)
    original, state = saved.read_bytes(), load_checkpoint(saved)
    for _ in range(1000):
        data = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        saved.write_bytes(data[: rng.choice([len(data), len(data), rng.randrange(len(data))])])
        try:
            assert same(load_checkpoint(saved), state)
        except CheckpointError:
            pass


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_is_refused_and_never_run(tmp_path, write):
    sentinel, path = tmp_path / "sentinel", tmp_path / "evil.safetensors"
    with open(path, "wb") as stream:
        write(Evil(sentinel), stream)
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        load_checkpoint(path)
    assert not sentinel.exists()


def test_foreign_safetensors_and_other_versions(tmp_path, saved):
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.ones(2)}, foreign)
    with pytest.raises(CheckpointError, match="no checkpoint of recbole_mm"):
        load_checkpoint(foreign)
    current = saved.read_bytes()
    saved.write_bytes(current.replace(b'"version":"2"', b'"version":"9"'))
    with pytest.raises(CheckpointError, match="written by another version .* '9', expected '2'"):
        load_checkpoint(saved)
    saved.write_bytes(current.replace(b'"version":"2"', b'"version":"1"'))
    with pytest.raises(CheckpointError, match=r"written by recbole_mm 0\.2\.0.* Train again"):
        load_checkpoint(saved)


def test_random_numbers_go_on_where_they_were():
    state = rng_state()
    first = (torch.rand(3), np.random.rand(3), random.random())
    set_rng_state(state)
    again = (torch.rand(3), np.random.rand(3), random.random())
    assert same(first, again)
    assert not same(first, (torch.rand(3), np.random.rand(3), random.random()))


def test_differences_name_the_keys():
    model = {
        "a": torch.ones(2, 3),
        "b": torch.ones(1),
        **{f"m{i}": torch.ones(1) for i in range(7)},
    }
    checkpoint = {"a": torch.ones(2, 4), "c": torch.ones(1), "b": torch.ones(1)}
    assert state_differences(model, checkpoint) == [
        "missing: m0, m1, m2, m3, m4 and 2 more",
        "unexpected: c",
        "mismatched: a (model (2, 3), checkpoint (2, 4))",
    ]
    assert state_differences(model, model) == []


def test_vocabulary_hash_sees_order_and_borders():
    assert vocabulary_hash(["a", "b"]) != vocabulary_hash(["b", "a"])
    assert vocabulary_hash(["a", "bc"]) != vocabulary_hash(["ab", "c"])
    assert vocabulary_hash(np.array(["a", "b"])) == vocabulary_hash(["a", "b"])


def save_for_ever(path):
    """Save one checkpoint after the other, each consistent in itself; run until killed."""
    torch.set_num_threads(1)
    number = load_checkpoint(path)["number"]
    while True:
        number += 1
        save_checkpoint(path, {"number": number, "w": torch.full((40_000,), float(number))})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_while_saving_never_costs_the_checkpoint(tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, {"number": 0, "w": torch.zeros(40_000)})
    rng, number, unfinished = random.Random(2), 0, 0
    for _ in range(40):
        child = os.fork()
        if child == 0:
            save_for_ever(path)
        time.sleep(rng.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        state = load_checkpoint(path)
        assert state["number"] >= number
        assert bool((state["w"] == state["number"]).all())
        number = state["number"]
        stale = list(tmp_path.glob(".last.safetensors.*"))
        unfinished += len(stale)
        for file in stale:
            file.unlink()
    assert number > 10
    assert unfinished > 0, "no kill hit a save, so the test showed nothing"
