from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_mm.data.audit import audit
from recbole_mm.data.export import export_benchmark
from recbole_mm.data.given import read_parts, split_path, write_parts
from recbole_mm.data.sessions import group_sessions, split_given
from recbole_mm.errors import DataError
from recbole_mm.run.prepared import load_dataset

INTER = "session_id:token\titem_id:token\ttimestamp:float\n"
ROWS = [("c", "x"), ("c", "y"), ("a", "y"), ("a", "z"), ("b", "x"), ("b", "z"), ("d", "z"),
        ("e", "x"), ("e", "y"), ("e", "z")]  # fmt: skip
PARTS = {"a": "test", "b": "train", "c": "valid", "d": "train", "e": "train"}


def _write(folder: Path, parts: dict[str, str] = PARTS) -> Path:
    place = folder / "Toy"
    place.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    lines = []
    for session, item in ROWS:
        counts[session] = counts.get(session, 0) + 1
        lines.append(f"{session}\t{item}\t{counts[session]}")
    (place / "Toy.inter").write_text(INTER + "\n".join(lines) + "\n")
    frame = pd.DataFrame({"session_id": list(parts), "part": list(parts.values())})
    write_parts(split_path(place, "Toy"), frame)
    return folder


def _load(folder: Path):
    return load_dataset("Pop", "Toy", (), {"data_path": str(folder), "split_by": "given"})


def test_each_session_goes_where_the_file_says(tmp_path):
    dataset = _load(_write(tmp_path))
    got = {
        name: dataset.session_tokens(part.session) for name, part in dataset.split.parts().items()
    }
    # d has one item, so there is nothing to predict.
    assert {name: set(tokens) for name, tokens in got.items()} == {
        "train": {"b", "e"}, "valid": {"c"}, "test": {"a"},
    }  # fmt: skip
    assert dataset.split.whole
    assert dataset.tokens(dataset.rows("test").target) == ["z"]
    assert len(audit(dataset)) == 3
    assert (export_benchmark(dataset, tmp_path / "out") / "Toy.test.inter").read_text().count(
        "\n"
    ) == 2


def test_the_order_of_the_split_file_does_not_matter(tmp_path):
    first = _load(_write(tmp_path / "1")).fingerprint()
    turned = dict(reversed(PARTS.items()))
    assert _load(_write(tmp_path / "2", turned)).fingerprint() == first
    swapped = {**PARTS, "a": "valid", "c": "test"}
    assert _load(_write(tmp_path / "3", swapped)).fingerprint() != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\ttest\nb\ttrain\nc\tvalid\na\ttrain\n", "line 5: this session stands higher up"),
        ("a\ttest\nb\tdev\n", r"line 3: part is none of train, valid, test \(b, dev\)"),
        ("a\ttest\nb\ttrain\nc\tvalid\n", r"1 session\(s\) .* missing, the first is e"),
    ],
)
def test_bad_split_files_are_named(tmp_path, text, message):
    path = split_path(_write(tmp_path) / "Toy", "Toy")
    path.write_text("session_id:token\tpart:token\n" + text)
    with pytest.raises(DataError, match=message):
        _load(tmp_path)


def test_a_missing_split_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"Toy.split: no such file, but split_by is given"):
        read_parts(tmp_path / "Toy.split", ["a"])


def test_no_part_may_stay_empty(tmp_path):
    sessions = group_sessions(np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2]), np.arange(4.0))
    with pytest.raises(DataError, match="leaves the valid part without"):
        split_given(sessions, np.array(["train", "test"]))
