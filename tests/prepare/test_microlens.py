"""MicroLens from files of the published form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from recbole_mm.cli import main
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.prepare.microlens import NOT_A_TITLE, TITLES, MicroLensOptions, prepare_microlens
from recbole_mm.run.prepared import load_dataset

T0 = 1_583_378_629_552  # 2020-03-05, milliseconds
MINUTE = 60_000
PAIRS = [
    ("7", "30", T0 + 5), ("9", "10", T0 + 2), ("7", "20", T0), ("9", "30", T0 + 30 * MINUTE),
    ("7", "30", T0 + 5), ("7", "10", T0 + 31 * MINUTE), ("8", "20", T0 + 1),
]  # fmt: skip
TITLE_LINES = [
    "item,title",
    '10,"A ""fine"" day, at last"',
    '20,A lone " quote, and &amp; more',
    "and a second line",
    "20,A later row",
    "99,Nobody saw it",
]


def _raw(folder: Path, size: str = "50k", pairs=PAIRS, titles=TITLE_LINES, header="") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [header or "user,item,timestamp", *(",".join(map(str, pair)) for pair in pairs)]
    (folder / f"MicroLens-{size}_pairs.csv").write_text("\n".join(rows) + "\n")
    (folder / TITLES[size]).write_text("\n".join(titles) + "\n", encoding="utf-8")
    return folder


def _covers(folder: Path, items: str) -> None:
    folder.mkdir(parents=True)
    for item in items.split():
        Image.new("RGB", (8, 8), (int(item), 0, 0)).save(folder / f"{item}.jpg")


def test_one_sequence_per_user_in_milliseconds(tmp_path):
    options = MicroLensOptions(raw=str(_raw(tmp_path / "raw")))
    folder = prepare_microlens(options, tmp_path / "out")
    assert folder.name == "MicroLens-50k"
    assert (folder / "MicroLens-50k.inter").read_text().splitlines() == [
        "session_id:token\titem_id:token\ttimestamp:float",
        "7\t20\t1583378629.552",
        "7\t30\t1583378629.557",
        "7\t10\t1583380489.552",
        "9\t10\t1583378629.554",
        "9\t30\t1583380429.552",
    ]
    card = load_dataset_card(folder)
    assert (card.timestamps, card.text_fields, card.image_field) == ("real", ("title",), "")
    assert card.report["dropped_repeated_rows"] == 1
    assert card.report["covers"].startswith("no folder MicroLens-50k_covers in ")
    assert card.report["dropped_sessions_too_short_or_of_rare_items"] == 1
    assert (card.report["users"], card.report["items"], card.report["interactions"]) == (2, 3, 5)


def test_titles_with_odd_quotes(tmp_path):
    options = MicroLensOptions(raw=str(_raw(tmp_path / "raw")))
    folder = prepare_microlens(options, tmp_path / "out")
    table = read_atomic(folder / "MicroLens-50k.item")
    # The files of a data set hold no double quotes.
    titles = {row.item_id: row.title for row in table.itertuples()}
    assert titles.keys() == {"10", "20", "30"}
    assert titles["10"].replace(" ", "") == "Afineday,atlast"
    assert titles["20"].split() == ["A", "lone", "quote,", "and", "&", "more"]
    assert titles["30"] == ""
    report = load_dataset_card(folder).report
    assert report["titles_left_out"] == {NOT_A_TITLE: {"count": 1, "first_at": [4]}}
    assert report["items_without_title"] == 1


def test_sessions_by_pauses(tmp_path):
    options = MicroLensOptions(raw=str(_raw(tmp_path / "raw")), gap_minutes=30)
    folder = prepare_microlens(options, tmp_path / "out")
    sessions = read_atomic(folder / "MicroLens-50k.inter")["session_id"].tolist()
    # 7 pauses for a little more than 30 minutes, 9 for a little less.
    assert sessions == ["7_1", "7_1", "9_1", "9_1"]
    assert "pause over 30 minutes" in load_dataset_card(folder).session


def test_covers_are_found_by_the_encoder(tmp_path):
    from recbole_mm.encode.image.download import Limits
    from recbole_mm.encode.image.finding import Places, find, picture_cells, picture_column

    raw = _raw(tmp_path / "raw" / "MicroLens-50k")
    _covers(raw / "MicroLens-50k_covers", "10 20 99")
    folder = prepare_microlens(MicroLensOptions(raw=str(tmp_path / "raw")), tmp_path / "out")
    column = picture_column(folder, folder.name, None)
    cells = picture_cells(folder, folder.name, "item_id", column)
    assert cells == {"10": "10.jpg", "20": "20.jpg"}
    places = Places(folder, folder.name, None, folder)
    files, _ = find(["10", "20", "30"], cells, places, False, Limits())
    assert {item: path.resolve() for item, path in files.items()} == {
        item: (raw / "MicroLens-50k_covers" / f"{item}.jpg").resolve() for item in ("10", "20")
    }
    assert load_dataset_card(folder).report["items_without_cover"] == 1


@pytest.mark.parametrize("size", ["100k", "1M"])
def test_other_sizes_without_a_header_of_titles(tmp_path, size, capsys):
    pairs = [(user, item, T0 + user + item) for user in range(1, 7) for item in (10, 20, 30, 40)]
    _raw(tmp_path / "raw", size, pairs, TITLE_LINES[1:2])
    argv = [
        "prepare", "microlens", f"--preset={size}", f"--raw={tmp_path}/raw",
        f"--out={tmp_path}/out", "--min_item=2",
    ]  # fmt: skip
    assert main(argv) == 0
    assert f"next: recbole-mm encode --dataset=MicroLens-{size}" in capsys.readouterr().out
    dataset = load_dataset("SASRec", f"MicroLens-{size}", (), {"data_path": f"{tmp_path}/out"})
    assert dataset.config["split_by"] == "leave_one_out"
    assert (dataset.user_num - 1, dataset.item_num - 1) == (6, 4)
    titles = read_atomic(tmp_path / "out" / f"MicroLens-{size}" / f"MicroLens-{size}.item")["title"]
    assert (titles != "").sum() == 1
    assert main(argv) == 2 and "--force" in capsys.readouterr().err


def test_missing_files_are_one_line_and_exit_code_two(tmp_path):
    command = [
        sys.executable, "-m", "recbole_mm", "prepare", "microlens", "--preset=100k",
        f"--raw={tmp_path}", f"--out={tmp_path}/out",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    for said in (
        "error: missing raw file(s): MicroLens-100k_pairs.csv, MicroLens-100k_title_en.csv.",
        "https://recsys.westlake.edu.cn/MicroLens-100k-Dataset/MicroLens-100k_pairs.csv",
        f"recbole-mm prepare microlens --preset=100k --raw={tmp_path}",
    ):
        assert said in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header": "7,30,1583378629557"}, "pairs.csv, line 1: .*Expected a header"),
        ({"header": "user,item"}, "line 1: .*Expected a header"),
        ({"pairs": [("7", "30", T0), ("7", "30")]}, "pairs.csv, line 3: 2 cell"),
        ({"pairs": [("7", "30", T0), ("7", "10", "soon")]}, "pairs.csv, line 3"),
        ({"pairs": [("7", "30", 1), ("7", "10", 2)]}, "line 2: timestamp holds no times"),
        ({"pairs": [("7", "30", T0), ("8", "10", T0)]}, "no row is left"),
        ({"titles": ["nothing", "else"]}, "titles.csv: no line"),
    ],
)
def test_bad_files_are_named(tmp_path, changes, message):
    options = MicroLensOptions(raw=str(_raw(tmp_path / "raw", **changes)))
    with pytest.raises(DataError, match=message):
        prepare_microlens(options, tmp_path / "out")
    assert not (tmp_path / "out" / "MicroLens-50k" / "MicroLens-50k.inter").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "10M"}, "--preset is 10M, expected 50k, 100k, 1M"),
        ({"min_session": 1}, "--min_session is 1"),
        ({"min_item": 0}, "--min_item is 0"),
    ],
)
def test_wrong_options_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        MicroLensOptions.from_settings(settings)
