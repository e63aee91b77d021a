"""Amazon reviews to sessions, sequences and items; resuming after kill -9."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.cli import main
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import DataError
from recbole_mm.prepare.amazon.presets import PRESETS, AmazonOptions
from recbole_mm.prepare.amazon.reviews import prepare_amazon
from recbole_mm.run.prepared import load_dataset

DAY0 = 1_400_025_600  # midnight of 2014-05-14, UTC
DAY = 86_400


def _review(user: str, item: str, day: int) -> str:
    return json.dumps(
        {
            "reviewerID": user,
            "asin": item,
            "reviewText": "fine",
            "overall": 5.0,
            "reviewTime": "05 14, 2014",
            "unixReviewTime": DAY0 + DAY * day,
        }
    )


def _meta(item: str, **more) -> dict:
    plain = {
        "asin": item,
        "title": f"Item {item}",
        "brand": "Norvik",
        "category": ["Phones", "Cases"],
        "description": ["d"],
        "price": "$5.00",
        "imageURLHighRes": [f"https://images.example/{item}.jpg"],
    }
    return {**plain, **more}


@pytest.fixture
def options(tmp_path):
    """Options over files that a test writes with the second value."""

    def write(reviews: list[str], meta: list[dict | str] | None = None, **more) -> AmazonOptions:
        (tmp_path / "r.json.gz").write_bytes(gzip.compress("\n".join(reviews).encode()))
        if meta is not None:
            text = "\n".join(m if isinstance(m, str) else json.dumps(m) for m in meta)
            (tmp_path / "m.json").write_text(text)
        base = AmazonOptions(
            dataset="shop",
            reviews=str(tmp_path / "r.json.gz"),
            meta="" if meta is None else str(tmp_path / "m.json"),
            session_gap=0,
            core=1,
        )
        return replace(base, **more).checked()

    return write


def _lines(folder: Path) -> list[str]:
    return (folder / "shop.inter").read_text().splitlines()[1:]


SMALL = [
    _review("u", "b", 3),
    _review("v", "a", 1),
    _review("u", "a", 3),
    "{broken",
    _review("v", "b", 1),
    _review("u", "c", 5),
    _review("u", "b", 3),  # a repeated line
    _review("u", "a", 6),  # a later review of the same item
    _review("v", "a", 4),
]


def test_a_session_is_a_day_and_ties_keep_the_file_order(options, tmp_path):
    folder = prepare_amazon(options(SMALL), tmp_path / "out")
    day1, day3 = DAY0 + DAY, DAY0 + 3 * DAY
    assert _lines(folder) == [
        f"v_1\ta\t{day1}",
        f"v_1\tb\t{day1}",
        f"u_1\tb\t{day3}",
        f"u_1\ta\t{day3}",
    ]
    card = load_dataset_card(folder)
    assert card.timestamps == "real" and "one user on one day" in card.session
    assert "keep the order of the file" in card.session
    report = card.report
    assert report["reviews"]["left_out"] == {
        "not one JSON record of the expected types": {"count": 1, "first_at": [4]}
    }
    assert report["times_are_whole_days"] is True
    assert report["dropped_rows_with_equal_user_item_and_time"] == 1
    assert report["kept_later_reviews_of_the_same_item"] == 2
    assert report["dropped_sessions_too_short_or_of_rare_items"] == 3
    assert report["dropped_rows_of_such_sessions"] == 3
    assert (report["users"], report["sessions"], report["items"]) == (2, 2, 2)
    assert report["interactions"] == 4
    assert not (folder / "shop.item").exists() and card.text_fields == ()


def test_a_longer_gap_joins_days(options, tmp_path):
    folder = prepare_amazon(options(SMALL, session_gap=2), tmp_path / "out")
    sessions = [line.split("\t")[:2] for line in _lines(folder)]
    # v: days 1, 1 and 4, a pause of three days; u: days 3, 3, 5, 6.
    assert sessions == [
        ["v_1", "a"], ["v_1", "b"], ["u_1", "b"], ["u_1", "a"], ["u_1", "c"], ["u_1", "a"],
    ]  # fmt: skip
    assert "pause over 2 day(s)" in load_dataset_card(folder).session


def test_one_sequence_per_user_with_first_reviews_only(options, tmp_path):
    made = options(SMALL, session_gap=None, sequences=True, repeats="first")
    folder = prepare_amazon(made, tmp_path / "out")
    sessions = [line.split("\t")[:2] for line in _lines(folder)]
    assert sessions == [["v", "a"], ["v", "b"], ["u", "b"], ["u", "a"], ["u", "c"]]
    report = load_dataset_card(folder).report
    assert report["dropped_later_reviews_of_the_same_item"] == 2


def test_the_core_is_applied_until_nothing_changes(options, tmp_path):
    # Without item c user w has one review, and without w item b has one.
    pairs = ["ua", "ud", "va", "vd", "wb", "wc", "ub"]
    rows = [_review(user, item, n) for n, (user, item) in enumerate(pairs)]
    made = options(rows, session_gap=None, sequences=True, core=2)
    folder = prepare_amazon(made, tmp_path / "out")
    assert [line.split("\t")[:2] for line in _lines(folder)] == [
        ["u", "a"], ["u", "d"], ["v", "a"], ["v", "d"],
    ]  # fmt: skip
    report = load_dataset_card(folder).report
    assert report["dropped_users_outside_the_core"] == 1
    assert report["dropped_items_outside_the_core"] == 2
    assert report["dropped_rows_outside_the_core"] == 3
    assert report["rounds_of_the_core"] == 3


def test_the_core_of_random_reviews_is_the_largest(options, tmp_path):
    random = np.random.default_rng(3)
    pairs = {(int(u), int(i)) for u, i in random.integers(0, 25, (220, 2))}
    rows = [_review(f"u{u}", f"i{i}", n) for n, (u, i) in enumerate(sorted(pairs))]
    made = options(rows, session_gap=None, sequences=True, core=5)
    folder = prepare_amazon(made, tmp_path / "out")
    got = {tuple(line.split("\t")[:2]) for line in _lines(folder)}
    left = {(f"u{u}", f"i{i}") for u, i in pairs}
    while True:
        users, items = [u for u, _ in left], [i for _, i in left]
        good = {(u, i) for u, i in left if users.count(u) >= 5 and items.count(i) >= 5}
        if good == left:
            break
        left = good
    assert got == left and left


META = [
    _meta("a", title="First &amp; best"),
    "{broken",
    _meta("b", price="", description=[]),
    _meta("a", title="Second"),
    _meta("z", title="Never reviewed"),
]


def test_items_keep_their_first_row(options, tmp_path):
    folder = prepare_amazon(options(SMALL, META), tmp_path / "out")
    assert (folder / "shop.item").read_text().splitlines() == [
        "item_id:token\ttitle:token_seq\tbrand:token\tcategories:token_seq\tcategory:token\t"
        "description:token_seq\tprice:float\timage_url:token",
        "a\tFirst & best\tNorvik\tPhones Cases\tCases\td\t5.0\thttps://images.example/a.jpg",
        "b\tItem b\tNorvik\tPhones Cases\tCases\t\t\thttps://images.example/b.jpg",
    ]
    card = load_dataset_card(folder)
    assert card.text_fields == ("title", "brand", "categories", "description")
    report = card.report
    assert report["metadata"] == {
        "file": "m.json",
        "lines": 5,
        "left_out": {
            "not one JSON record of the expected types": {"count": 1, "first_at": [2]},
            "of items without a review, not read": {"count": 1, "first_at": [5]},
        },
    }
    assert report["metadata_rows_repeated"] == 1
    assert report["items_without_metadata"] == 0
    assert report["items_with"]["description"] == 1
    assert report["prices"] == {"empty": 1, "read": 1}


@pytest.mark.parametrize(
    ("require", "kept"),
    [
        (("row",), {"a", "b"}),
        (("price",), {"a", "c"}),
        (("description",), {"a", "c"}),
        (("title", "price"), {"a"}),
    ],
)
def test_items_without_required_columns_go_first(options, tmp_path, require, kept):
    rows = [_review(user, item, 0) for user, item in product("uvw", "abc")]
    # b lacks a price that can be read and a description; c a title; with "row" c has no metadata.
    meta = [_meta("a"), _meta("b", price=".a-box-inner{background:#fff}", description=[])]
    if require != ("row",):
        meta.append(_meta("c", title=""))
    made = options(rows, meta, require=require, min_session=2)
    if len(kept) == 1:
        with pytest.raises(DataError, match="no row is left"):
            prepare_amazon(made, tmp_path / "out")
        assert not (tmp_path / "out" / "shop").exists()
        return
    folder = prepare_amazon(made, tmp_path / "out")
    assert {line.split("\t")[1] for line in _lines(folder)} == kept
    report = load_dataset_card(folder).report
    assert report["dropped_items_without_" + "_or_".join(require)] == 1
    assert report["dropped_rows_of_these"] == 3


def test_times_with_hours_still_make_days(options, tmp_path):
    late, early, next_day = 23 * 3600, 60, DAY + 60
    rows = [
        _review("u", item, 0).replace(str(DAY0), str(DAY0 + second))
        for item, second in [("a", late), ("b", early), ("c", next_day), ("d", next_day + 5)]
    ]
    folder = prepare_amazon(options(rows), tmp_path / "out")
    assert [line.split("\t")[:2] for line in _lines(folder)] == [
        ["u_1", "b"], ["u_1", "a"], ["u_2", "c"], ["u_2", "d"],
    ]  # fmt: skip
    card = load_dataset_card(folder)
    assert card.report["times_are_whole_days"] is False
    assert "order of the file" not in card.session


def test_good_files_survive_and_force_replaces_them(options, tmp_path):
    made = options(SMALL, META)
    folder = prepare_amazon(made, tmp_path / "out")
    (folder / "shop.text.itememb").write_text("mine")
    before = (folder / "shop.inter").read_bytes()
    with pytest.raises(DataError, match="--force"):
        prepare_amazon(replace(made, session_gap=2), tmp_path / "out")
    assert (folder / "shop.inter").read_bytes() == before
    prepare_amazon(replace(made, session_gap=2), tmp_path / "out", force=True)
    assert (folder / "shop.inter").read_bytes() != before
    assert (folder / "shop.text.itememb").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".amazon_cache", "shop"]


def _published(raw: Path, preset: str) -> None:
    """Write a dump that survives a preset: 6 users, 6 items, with some that must go."""
    options = PRESETS[preset]
    folder = raw / str(options.year)
    folder.mkdir(parents=True)
    users, items = [f"U{n}" for n in range(6)], [f"I{n}" for n in range(6)]
    rows = [
        _review(user, item, 10 * n + m // 3)
        for n, user in enumerate(users)
        for m, item in enumerate(items)
    ]
    rows += [_review("U9", "I0", 9), "{broken", _review("U0", "I9", 9)]
    metas: list[str] = []
    for item in [*items, "I8"]:
        record = _meta(item)
        if options.year == 2014:
            record = {
                "asin": item, "title": f"It's {item}", "price": 3.5, "brand": "Kiwi",
                "imUrl": "http://x/i.jpg", "categories": [["Baby", "Toys"]],
            }  # fmt: skip
        metas.append(repr(record) if options.year == 2014 else json.dumps(record))
    metas.insert(2, metas[2][:20])
    (folder / options.reviews).write_bytes(gzip.compress("\n".join(rows).encode()))
    (folder / options.meta).write_bytes(gzip.compress("\n".join(metas).encode()))


@pytest.mark.parametrize("preset", ["Cellphones", "Scientific", "Baby", "Sports2014"])
def test_a_preset_from_published_files_to_a_split(tmp_path, preset, capsys):
    _published(tmp_path / "raw", preset)
    out = tmp_path / "out"
    argv = ["prepare", "amazon", f"--preset={preset}", f"--raw={tmp_path}/raw", f"--out={out}"]
    assert main(argv) == 0
    name = f"Amazon_{preset}"
    said = capsys.readouterr().out
    assert f"{name} written to" in said
    assert f"next: recbole-mm encode --dataset={name} --data_path={out}" in said
    dataset = load_dataset("SASRecF", name, (), {"data_path": str(out)})
    assert dataset.item_num - 1 == 6
    assert dataset.counts["items_only_in_item_file"] == 0
    expected = "session_time" if PRESETS[preset].session_gap == 0 else "leave_one_out"
    assert dataset.config["split_by"] == expected
    users = {token.split("_")[0] for token in dataset.field2id_token["session_id"][1:]}
    assert users == {f"U{n}" for n in range(6)}
    items = read_atomic(out / name / f"{name}.item")
    assert items["item_id"].tolist() == [f"I{n}" for n in range(6)]
    assert main(argv) == 2


def test_missing_files_are_one_line_and_exit_code_two(tmp_path):
    command = [
        sys.executable, "-m", "recbole_mm", "prepare", "amazon", "--preset=Cellphones",
        f"--raw={tmp_path}", f"--out={tmp_path}/out",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: missing raw file(s): Cell_Phones") and (
        done.stderr.count("\n") == 1
    )
    assert not (tmp_path / "out").exists()


def test_own_files_and_a_gap_of_zero_from_the_command_line(options, tmp_path, capsys):
    made = options(SMALL, META)
    argv = [
        "prepare", "amazon", f"--reviews={made.reviews}", f"--meta={made.meta}", "--dataset=shop",
        "--session_gap=0", "--core=1", f"--out={tmp_path}/out", f"--cache={tmp_path}/cache",
    ]  # fmt: skip
    assert main(argv) == 0
    assert (tmp_path / "cache").is_dir() and not (tmp_path / "out" / ".amazon_cache").exists()
    expected = prepare_amazon(made, tmp_path / "other") / "shop.inter"
    assert (tmp_path / "out/shop/shop.inter").read_bytes() == expected.read_bytes()
    capsys.readouterr()
    assert main(["prepare", "amazon", "--reviews=none", "--dataset=x", "--sequences=true"]) == 2
    assert "no such file: none" in capsys.readouterr().err


def test_a_run_killed_anywhere_ends_with_the_same_bytes(options, tmp_path):
    random = np.random.default_rng(1)
    rows = [_review(f"u{u}", f"i{i}", d // 20) for d, (u, i) in
            enumerate(random.integers(0, 12, (300, 2)))]  # fmt: skip
    made = options(rows, [_meta(f"i{i}") for i in range(12)], core=5)
    clean = prepare_amazon(made, tmp_path / "clean", block_bytes=4000)
    script = f"""
import os, signal, sys
from pathlib import Path
from recbole_mm.prepare.amazon import reviews as amazon
from recbole_mm.prepare.amazon.presets import AmazonOptions
stop, replace = sys.argv[1], os.replace
def killed(old, new):
    if Path(new).name == stop:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(old, new)
os.replace = killed
amazon.prepare_amazon({made!r}, {str(tmp_path / "out")!r}, block_bytes=4000)
"""
    # Each run gets further: among the parts, before the last note, among the final files.
    for stop in ("part-00002.json", "whole.json", "shop"):
        done = subprocess.run([sys.executable, "-c", script, stop], timeout=600, env={**os.environ})
        assert done.returncode == -signal.SIGKILL
        assert not (tmp_path / "out" / "shop").exists()
    prepare_amazon(made, tmp_path / "out", block_bytes=4000)
    for path in clean.iterdir():
        assert (tmp_path / "out" / "shop" / path.name).read_bytes() == path.read_bytes()
