"""SessionDataset on real RecBole configurations."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_mm.config import MMConfig
from recbole_mm.data.audit import audit, data_sheet
from recbole_mm.data.itememb import itememb_path, read_itememb, write_itememb
from recbole_mm.data.session_dataset import SessionDataset
from recbole_mm.data.sessions import Split
from recbole_mm.errors import DataError, FeatureError

HEADER = "session_id:token\titem_id:token\ttimestamp:float\n"
Row = tuple[str, str, float]


def sessions_of(n: int, seed: int = 0) -> list[Row]:
    """Return n sessions of 2 to 6 items out of 40, at distinct real-looking times."""
    rng = np.random.default_rng(seed)
    start = 1_700_000_000 + 1000 * np.arange(n)
    return [
        (f"s{k:03d}", f"i{item:02d}", float(start[k] + 7 * place))
        for k in range(n)
        for place, item in enumerate(rng.integers(0, 40, rng.integers(2, 7)))
    ]


def write(folder: Path, rows: list[Row], name: str = "toy") -> None:
    (folder / name).mkdir(exist_ok=True)
    body = "".join(f"{s}\t{i}\t{t!r}\n" for s, i, t in rows)
    (folder / name / f"{name}.inter").write_text(HEADER + body)


def load(folder: Path, name: str = "toy", build: bool = True, **keys: Any) -> SessionDataset:
    dataset = SessionDataset(MMConfig("SASRec", name, (), {"data_path": str(folder), **keys}))
    if build:
        dataset.build()
    return dataset


def rows_as_tokens(dataset: SessionDataset, part: str) -> list[tuple[str, list[str], str]]:
    rows = dataset.rows(part)
    sessions = dataset.session_tokens(rows.session)
    targets = dataset.tokens(rows.target)
    histories = [
        dataset.tokens(history[:length])
        for history, length in zip(rows.history, rows.length, strict=True)
    ]
    return list(zip(sessions, histories, targets, strict=True))


def test_whole_sessions_go_to_one_part_in_order_of_time(tmp_path: Path) -> None:
    write(tmp_path, sessions_of(50))
    dataset = load(tmp_path)
    parts = dataset.split.parts()
    assert [len(part) for part in parts.values()] == [35, 10, 5]
    assert dataset.session_tokens(parts["test"].session) == [f"s{k:03d}" for k in range(45, 50)]
    assert len(audit(dataset)) == 4


def test_seconds_are_not_rounded_to_float32(tmp_path: Path) -> None:
    # float32 cannot tell 1.7e9 from 1.7e9 + 7, so RecBole's own sort keeps the file's order here.
    rows = [(s, i, t) for s, i, t in sessions_of(50)]
    write(tmp_path, rows[::-1])
    assert rows_as_tokens(load(tmp_path), "test") == rows_as_tokens(
        _loaded(tmp_path / "sorted", rows), "test"
    )


def _loaded(folder: Path, rows: list[Row], **keys: Any) -> SessionDataset:
    folder.mkdir()
    write(folder, rows)
    return load(folder, **keys)


@pytest.mark.parametrize("split_by", ["session_time", "session_random", "leave_one_out"])
def test_the_order_of_the_file_does_not_matter(tmp_path: Path, split_by: str) -> None:
    rows = sessions_of(60)
    first = _loaded(tmp_path / "a", rows, split_by=split_by)
    mixed = [rows[k] for k in np.random.default_rng(3).permutation(len(rows))]
    second = _loaded(tmp_path / "b", mixed, split_by=split_by)
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != _loaded(tmp_path / "c", rows[6:], split_by=split_by).fingerprint()
    np.testing.assert_array_equal(first.rows("train").history, second.rows("train").history)


def test_split_seed_is_apart_from_the_models_seed(tmp_path: Path) -> None:
    write(tmp_path, sessions_of(60))
    prints = [
        load(tmp_path, split_by="session_random", seed=seed, split_seed=split_seed).fingerprint()
        for seed, split_seed in ((1, 5), (2, 5), (1, 6))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_loader_batches_hold_only_training_rows(tmp_path: Path) -> None:
    write(tmp_path, sessions_of(50))
    dataset = load(tmp_path, build=False)
    train, valid, test = dataset.build()
    inter = train.inter_feat
    assert len(inter) == (dataset.train_sessions.lengths() - 1).sum()
    assert len(valid) == 10 and len(test) == 5
    first = inter[0]
    assert first["item_length"] == 1 and first["item_id_list"].shape == (20,)
    assert train.train_sessions is test.train_sessions


def test_policies_are_counted(tmp_path: Path) -> None:
    rows = sessions_of(50) + [("alone", "only_here", 1.8e9)]
    long = [("long", f"i{k % 40:02d}", 1.69e9 + k) for k in range(30)]
    write(tmp_path, rows + long)
    (tmp_path / "toy" / "toy.item").write_text(
        "item_id:token\tcategory:token\ni00\tx\ni00\ty\nnever\tz\n"
    )
    dataset = load(tmp_path, load_col={"inter": ["session_id", "item_id", "timestamp"],
                                       "item": ["item_id", "category"]})  # fmt: skip
    counts = dataset.counts
    assert counts["sessions_of_one_item"] == 1
    assert counts["duplicate_item_rows"] == 1
    assert counts["items_only_in_item_file"] == 1
    # 29 prefix rows of the long session; those with more than 20 items before them are cut.
    assert counts["train_truncated_histories"] == 9
    assert "only_here" in dataset.field2token_id["item_id"]
    assert "never" not in dataset.field2token_id["item_id"]
    assert "sessions of one item" in data_sheet(dataset)


def test_cold_targets_are_kept_or_dropped_and_counted(tmp_path: Path) -> None:
    rows = sessions_of(50)
    rows += [("new", "i01", 1.9e9), ("new", "unseen", 1.9e9 + 1)]
    write(tmp_path, rows)
    kept = load(tmp_path)
    dropped = load(tmp_path, cold_targets="drop")
    assert kept.counts["test_cold_targets"] == 1
    assert len(kept.rows("test")) == len(dropped.rows("test")) + 1
    assert kept.item_num == dropped.item_num
    assert "unseen" not in dropped.tokens(dropped.rows("test").target)


def test_eval_targets_all_prefixes(tmp_path: Path) -> None:
    write(tmp_path, sessions_of(50))
    dataset = load(tmp_path, eval_targets="all_prefixes")
    assert len(dataset.rows("test")) == (dataset.split.test.lengths() - 1).sum()


def test_made_up_times_refuse_a_split_by_time(tmp_path: Path) -> None:
    rows = [(f"s{k}", f"i{place}", float(place + 1)) for k in range(30) for place in range(3)]
    write(tmp_path, rows)
    with pytest.raises(DataError, match="only a position.*session_random"):
        load(tmp_path)
    assert load(tmp_path, split_by="session_random").counts["train_sessions"] == 21
    write(tmp_path, [(s, i, 5.0) for s, i, _ in rows])
    with pytest.raises(DataError, match="only a position"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER, "header without rows"),
        (HEADER.replace("timestamp", "when"), "timestamp not found.*--TIME_FIELD"),
        (HEADER + "a\tb\t1\na\t\t2\n", "line 3: item_id is empty"),
        (HEADER + "a\tb\t1\n\tb\t2\n", "line 3: session_id is empty"),
        (HEADER + "a\tb\t1\na\tc\t\n", "line 3: timestamp is empty"),
        (
            HEADER + "a\tb\t1700000000\na\tc\t1700000000000\n",
            "line 3: timestamp is in milliseconds",
        ),
        (HEADER + "a\tb\t1\nc\td\t2\n", "no session has two items"),
    ],
)
def test_bad_interactions_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_text(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path)


def test_a_missing_data_set_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere.inter: no such file"):
        load(tmp_path, "nowhere")


def test_audit_reports_planted_leaks(tmp_path: Path) -> None:
    write(tmp_path, sessions_of(50))
    dataset = load(tmp_path)
    split = dataset.split
    dataset.split = Split(split.train, split.valid, split.valid, whole=True)
    with pytest.raises(DataError, match="stands in valid and in test"):
        audit(dataset)
    dataset.split = Split(split.test, split.valid, split.train, whole=True)
    with pytest.raises(DataError, match="Leak"):
        audit(dataset)
    dataset.split = split
    dataset.train_counts = dataset.train_counts + 1
    with pytest.raises(DataError, match="other than the training sessions"):
        audit(dataset)
    loo = load(tmp_path, split_by="leave_one_out")
    loo.split = Split(loo.split.test, loo.split.valid, loo.split.test, whole=False)
    with pytest.raises(DataError, match="Leak: the valid target"):
        audit(loo)


def test_changing_test_sessions_leaves_everything_fitted_bit_equal(tmp_path: Path) -> None:
    rows = sessions_of(60)
    first = _loaded(tmp_path / "a", rows)
    held = set(first.session_tokens(first.split.test.session))
    items = [i for s, i, _ in rows if s in held]
    shuffled = iter(np.random.default_rng(1).permutation(items))
    changed = [(s, str(next(shuffled)) if s in held else i, t) for s, i, t in rows]
    second = _loaded(tmp_path / "b", changed)
    assert rows_as_tokens(first, "test") != rows_as_tokens(second, "test")
    for name in ("session", "offsets", "items"):
        np.testing.assert_array_equal(
            getattr(first.train_sessions, name), getattr(second.train_sessions, name)
        )
    np.testing.assert_array_equal(first.train_counts, second.train_counts)


def repeating(n: int) -> list[Row]:
    """Return sessions of three items; that of every fifth session ends with what it began with."""
    rows = [(f"s{k:03d}", f"i{(k + j) % 40:02d}", 1.7e9 + 100 * k + j)
            for k in range(n) for j in range(3)]  # fmt: skip
    return [
        (s, f"i{k // 3 % 40:02d}" if k % 15 == 14 else item, t)
        for k, (s, item, t) in enumerate(rows)
    ]


def test_masking_the_history_is_part_of_the_fingerprint_and_keeping_it_is_not(
    tmp_path: Path,
) -> None:
    write(tmp_path, repeating(50))
    keep, mask = load(tmp_path), load(tmp_path, history="mask")
    assert keep.fingerprint() == load(tmp_path, history="keep").fingerprint()
    assert keep.fingerprint() != mask.fingerprint()
    # What it was before there was the key.
    digest = hashlib.sha256()
    for field in ("item_id", "session_id"):
        digest.update("\n".join(keep.field2id_token[field]).encode())
    train, rows = keep.train_sessions, [keep.rows(part) for part in ("valid", "test")]
    evaluated = [array for one in rows for array in (one.session, one.target, one.history)]
    for array in (train.session, train.offsets, train.items, *evaluated):
        digest.update(array.astype("<i8").tobytes())
    assert keep.fingerprint() == digest.hexdigest()


def test_targets_in_the_history_are_counted_and_warned_of_when_masked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, repeating(50))
    keep = load(tmp_path)
    assert "history: mask" not in caplog.text
    mask = load(tmp_path, history="mask")
    assert "strikes out the target of 2 validation and 1 test row(s)" in caplog.text
    for dataset in (keep, mask):
        assert dataset.counts["valid_targets_in_history"] == 2
        assert dataset.counts["test_targets_in_history"] == 1
        assert (len(dataset.rows("valid")), len(dataset.rows("test"))) == (10, 5)


def test_the_data_sheet_compares_binary_copies_with_their_texts(tmp_path: Path) -> None:
    write(tmp_path, sessions_of(50))
    dataset = load(tmp_path)
    assert "binary copy" not in data_sheet(dataset)
    path = itememb_path(tmp_path / "toy", "toy", "text")
    write_itememb(path, "text", ["i01", "i02"], np.ones((2, 3)))
    read_itememb(path, "text")
    assert "copy of toy.text.itememb is that of its text, byte by byte" in data_sheet(dataset)
    path.write_bytes(path.read_bytes().replace(b"1 1 1", b"1 2 1"))
    with pytest.raises(FeatureError, match="another text.*Remove it"):
        data_sheet(dataset)


def test_the_data_sheet_says_how_often_sessions_repeat_an_item(tmp_path: Path) -> None:
    write(tmp_path, repeating(50))
    sheet = data_sheet(load(tmp_path))
    assert "sessions with repeated items 20.00% of training" in sheet
    assert "rows with target in history  20.00% of valid, 20.00% of test" in sheet
    assert "--history=mask" not in sheet
    write(tmp_path, [row for row in repeating(40) if int(row[0][1:]) % 5 != 4], "once")
    sheet = data_sheet(load(tmp_path, "once"))
    assert "sessions with repeated items 0.00% of training" in sheet
    assert "no training session repeats an item: --history=mask strikes" in sheet


def test_leaky_sessions_are_all_sessions(tmp_path: Path) -> None:
    write(tmp_path, sessions_of(50))
    dataset = load(tmp_path)
    every, inputs = dataset.leaky_sessions(targets=True), dataset.leaky_sessions(targets=False)
    assert len(every) == len(inputs) == 50
    assert len(every.items) - len(inputs.items) == 15  # one target per valid and test session
    loo = load(tmp_path, split_by="leave_one_out")
    assert loo.leaky_sessions(targets=True).lengths().sum() == loo.split.test.lengths().sum()


def test_future_share_counts_targets_first_seen_later(tmp_path: Path) -> None:
    early = [("a", i, 1.7e9 + k) for k, i in enumerate("wxyz")]
    late = [("b", i, 1.8e9 + k) for k, i in enumerate("zzpq")]
    write(tmp_path, early + late)
    dataset = load(tmp_path, split_by="leave_one_out")
    # a's target z stands in b's training part only, which is later; b's target q in none.
    assert dataset.future_share() == 0.5
