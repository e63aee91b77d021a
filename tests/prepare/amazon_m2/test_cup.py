from __future__ import annotations

import csv
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.cli import main
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.prepare.amazon_m2 import files as m2
from recbole_mm.prepare.amazon_m2.cup import LOCALES, M2Options, prepare_amazon_m2
from recbole_mm.run.prepared import load_dataset

PRODUCT = ["id", "locale", "title", "price", "brand", "color", "size", "model", "material",
           "author", "desc"]  # fmt: skip


def _printed(items: list[str]) -> str:
    """Print items as NumPy does, with line ends in long lists."""
    return str(np.array(items))


def _csv(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return path


def _train(count: int = 20) -> list[list[str]]:
    rows = []
    for n in range(count):
        for locale in ("ES", "FR"):
            items = [f"{locale}{(n + k) % 7}" for k in range(2 + n % 3)]
            rows.append([_printed(items), f"{locale}{(n * 3) % 7}", locale])
    return rows


def _products() -> list[list[str]]:
    rows = []
    for locale in ("ES", "FR", "UK"):
        for n in range(7):
            rows.append([f"{locale}{n}", locale, f"Título {n} &amp; más", "24.99", "Marca", "Rojo",
                         "", "", "", "", "Una\ndescripción"])  # fmt: skip
    return rows


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    _csv(folder / "sessions_train.csv", ["prev_items", "next_item", "locale"], _train())
    _csv(folder / "products_train.csv", PRODUCT, _products())
    return folder


def _test_part(raw: Path, labels: list[list[str]] | None = None) -> None:
    rows = [[_printed(["ES1", "ES9"]), "ES"], [_printed(["FR1"]), "FR"], [_printed(["ES2"]), "ES"]]
    _csv(raw / "sessions_test_task2.csv", ["prev_items", "locale"], rows)
    labels = [["ES3"], ["FR2"], ["ES8"]] if labels is None else labels
    _csv(raw / "gt_task2.csv", ["next_item"], labels)


def _options(raw: Path, **more) -> M2Options:
    return replace(M2Options(raw=str(raw), locales=("ES", "FR")), **more)


def _parts(folder: Path) -> dict[str, list[str]]:
    frame = read_atomic(folder / f"{folder.name}.split")
    return {part: group["session_id"].tolist() for part, group in frame.groupby("part")}


def test_test_sessions_with_labels_are_the_test_part(raw, tmp_path):
    _test_part(raw)
    es, fr = prepare_amazon_m2(_options(raw), tmp_path / "out")
    assert (es.name, fr.name) == ("Amazon_M2_ES", "Amazon_M2_FR")
    rows = read_atomic(es / "Amazon_M2_ES.inter")
    assert rows[rows["session_id"] == "test_1"].to_numpy().tolist() == [
        ["test_1", "ES1", 1.0], ["test_1", "ES9", 2.0], ["test_1", "ES3", 3.0],
    ]  # fmt: skip
    parts = _parts(es)
    assert parts["test"] == ["test_1", "test_3"]
    assert len(parts["valid"]) == 2 and len(parts["train"]) == 18
    assert all(name.startswith("train_") for name in parts["valid"] + parts["train"])
    card = load_dataset_card(es)
    assert card.timestamps == "positional" and card.text_fields == ("title", "description")
    assert card.report["test_part"] == "phase 2 of the competition"
    assert card.report["sessions"] == {"train": 18, "valid": 2, "test": 2}
    assert card.report["items"] == 9 and card.report["items_without_a_product_row"] == 2


def test_sessions_are_taken_as_they_stand(raw, tmp_path):
    (es, _) = prepare_amazon_m2(_options(raw), tmp_path / "out")
    rows = read_atomic(es / "Amazon_M2_ES.inter")
    for n, (printed, following, locale) in enumerate(_train(), start=1):
        items = rows[rows["session_id"] == f"train_{n}"]
        if locale == "ES":
            expected = [*m2.parse_items(printed), following]
            assert items["item_id"].tolist() == expected
            assert items["timestamp"].tolist() == list(range(1, len(expected) + 1))
        else:
            assert items.empty


def test_the_split_is_read_and_a_split_by_time_is_refused(raw, tmp_path):
    _test_part(raw)
    prepare_amazon_m2(_options(raw), tmp_path / "out")
    where = {"data_path": str(tmp_path / "out")}
    dataset = load_dataset("SASRecF", "Amazon_M2_ES", (), where)
    assert dataset.config["split_by"] == "given"
    test = dataset.split.test
    assert set(dataset.session_tokens(test.session)) == {"test_1", "test_3"}
    assert set(dataset.tokens(dataset.rows("test").target)) == {"ES3", "ES8"}
    assert dataset.counts["test_cold_targets"] == 1
    with pytest.raises(DataError, match="only a position"):
        load_dataset("Pop", "Amazon_M2_ES", (), {**where, "split_by": "session_time"})


def test_without_labels_the_test_part_is_drawn_and_said_so(raw, tmp_path, caplog):
    _test_part(raw)
    (raw / "gt_task2.csv").unlink()
    with caplog.at_level(logging.WARNING):
        es, fr = prepare_amazon_m2(_options(raw), tmp_path / "out")
    assert "gt_task2.csv is not there, so the test part of ES, FR is drawn" in caplog.text
    parts = _parts(es)
    assert {part: len(names) for part, names in parts.items()} == {
        "train": 16, "valid": 2, "test": 2,
    }  # fmt: skip
    assert not any(name.startswith("test") for names in parts.values() for name in names)
    assert "drawn from the training sessions" in load_dataset_card(es).report["test_part"]


def test_the_seed_decides_the_draw(raw, tmp_path):
    def draw(name: str, **more) -> tuple[bytes, ...]:
        folders = prepare_amazon_m2(_options(raw, **more), tmp_path / name)
        return tuple((f / f"{f.name}.split").read_bytes() for f in folders)

    assert draw("a") == draw("b") != draw("c", seed=0)
    larger = prepare_amazon_m2(_options(raw, valid_share=0.25), tmp_path / "d")[0]
    assert len(_parts(larger)["valid"]) == 5


def test_products_keep_fields_apart_and_only_those_that_occur(raw, tmp_path):
    rows = _products()
    rows[1][3] = "40000000.07"
    rows[2][3] = ""
    rows.insert(1, ["ES0", "ES", "Again", "1", *[""] * 7])
    rows += [["ES6", "FR", "ES6 as sold in France", "1", *[""] * 7], ["", "ES", *[""] * 9]]
    _csv(raw / "products_train.csv", PRODUCT, rows)
    es = prepare_amazon_m2(_options(raw, locales=("ES",)), tmp_path / "out")[0]
    assert (es / "Amazon_M2_ES.item").read_text(encoding="utf-8").splitlines()[:4] == [
        "item_id:token\ttitle:token_seq\tdescription:token_seq\tbrand:token\tcolor:token\tsize:token\t"
        "model:token\tmaterial:token\tauthor:token\tprice:float",
        "ES0\tTítulo 0 & más\tUna descripción\tMarca\tRojo\t\t\t\t\t24.99",
        "ES1\tTítulo 1 & más\tUna descripción\tMarca\tRojo\t\t\t\t\t",
        "ES2\tTítulo 2 & más\tUna descripción\tMarca\tRojo\t\t\t\t\t",
    ]
    report = load_dataset_card(es).report
    assert report["left_out"]["products"] == {
        m2.NO_ID: {"count": 1, "first_at": [24]},
        m2.REPEATED: {"count": 1, "first_at": [2]},
    }
    assert report["prices"] == {"empty": 1, "read": 6, "mark_of_an_unknown_price": 1}


def test_broken_rows_are_left_out_and_counted(raw, tmp_path):
    path = raw / "sessions_train.csv"
    broken = [
        "ES0 ES1,ES2,ES",  # no printed array
        "['ES0' ... 'ES1'],ES2,ES",  # a cut one
        "['ES0' 'ES1'],,ES",
        "['ES0'],ES1",
        "\"['ES0']\"x,ES1,ES",
        "['DE0',ES1,DE",  # another locale is not looked at, but this row is too short as well
        "__import__('os').system('true'),ES1,ES",
        "[],ES1,ES",
        "\"['ES0'\n 'ES1']\",ES2,ES",  # a line end in the array is as printed
    ]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *broken]) + "\n" + "\n".join(lines[1:]) + "\n")
    es = prepare_amazon_m2(_options(raw, locales=("ES",)), tmp_path / "out")[0]
    left_out = load_dataset_card(es).report["left_out"]["sessions_train"]
    assert left_out == {
        m2.NO_LIST: {"count": 4, "first_at": [1, 2, 7, 8]},
        m2.NO_NEXT: {"count": 1, "first_at": [3]},
        m2.BAD_ROW: {"count": 2, "first_at": [4, 5]},
    }
    rows = read_atomic(es / "Amazon_M2_ES.inter")
    assert rows[rows["session_id"] == "train_9"]["item_id"].tolist() == ["ES0", "ES1", "ES2"]


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("['B01' 'B02']", ["B01", "B02"]),
        ("['B01']", ["B01"]),
        ("[\"B01\" 'B02']", ["B01", "B02"]),
        ("['B01', 'B02']", ["B01", "B02"]),
        ("['B01'\n 'B02'\n 'B03']", ["B01", "B02", "B03"]),
        ("['0007148089']", ["0007148089"]),
        ("['B01' B02]", None),
        ("['B01", None),
        ("['B0 1']", None),
        ("[]", None),
        ("", None),
        ("['B01'] + x()", None),
    ],
)
def test_printed_arrays(cell, items):
    assert m2.parse_items(cell) == items


def test_a_real_printed_array_of_many_items():
    items = [f"B{n:09d}" for n in range(400)]
    assert "\n" in _printed(items) and m2.parse_items(_printed(items)) == items
    assert m2.parse_items(_printed(items * 3)) is None  # NumPy cuts it with ...


@pytest.mark.parametrize(
    ("header", "labels", "message"),
    [
        (["next_item"], [["ES3"], ["FR2"]], "only 2 labels"),
        (["next_item"], [["ES3"], ["FR2"], ["ES8"], ["ES8"]], "3 sessions but 4 labels"),
        (
            ["next_item", "locale"],
            [["ES3", "ES"], ["FR2", "IT"], ["ES8", "ES"]],
            "another locale in row 2",
        ),
        (
            ["prev_items", "next_item"],
            [["['ES1'   'ES9']", "a"], ["['FR7']", "b"], ["['ES2']", "c"]],
            "another prev_items in row 2",
        ),
        (["item"], [["ES3"]], r"column\(s\) next_item not found"),
    ],
)
def test_labels_of_other_sessions_are_refused(raw, tmp_path, header, labels, message):
    _test_part(raw)
    _csv(raw / "gt_task2.csv", header, labels)
    with pytest.raises(DataError, match=message):
        prepare_amazon_m2(_options(raw), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_both_phases_are_found_under_their_names(raw, tmp_path):
    _test_part(raw)
    _csv(raw / "phase1/sessions_test_task2.csv", ["prev_items", "locale"], [["['ES1']", "ES"]])
    _csv(raw / "ground_truth/phase1/gt_task2.csv", ["next_item"], [["ES0"]])
    es = prepare_amazon_m2(_options(raw, locales=("ES",), phase=1), tmp_path / "out")[0]
    assert _parts(es)["test"] == ["test_1"]
    assert load_dataset_card(es).report["test_part"] == "phase 1 of the competition"


def test_locales_belong_to_the_tasks_of_the_competition():
    assert {locale for locale, task in LOCALES.items() if task == 2} == {"ES", "FR", "IT"}
    assert m2.FILES["labels", 1, 2][0] == "gt_task1.csv"
    assert m2.FILES["test", 2, 1][0] == "sessions_test_task2_phase1.csv"


def test_missing_files_are_one_line_and_exit_code_two(tmp_path):
    command = [
        sys.executable, "-m", "recbole_mm", "prepare", "amazon-m2", f"--raw={tmp_path}",
        f"--out={tmp_path}/out",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: missing raw file(s): sessions_train.csv, products_train")
    assert "aicrowd.com/challenges/amazon-kdd-cup-23" in done.stderr
    assert f"recbole-mm prepare amazon-m2 --raw={tmp_path} --locales=ES,FR,IT" in done.stderr


def test_from_the_command_line(raw, tmp_path, capsys):
    _test_part(raw)
    argv = ["prepare", "amazon-m2", f"--raw={raw}", f"--out={tmp_path}/out", "--locales=ES,FR",
            "--seed=0", "--valid_share=0.2"]  # fmt: skip
    assert main(argv) == 0
    said = capsys.readouterr().out
    for name in ("Amazon_M2_ES", "Amazon_M2_FR"):
        assert f"{name} written to" in said
        assert f"encode --dataset={name} --data_path={tmp_path}/out --recipe=alterrec" in said
    report = load_dataset_card(tmp_path / "out" / "Amazon_M2_FR").report
    assert (report["seed"], report["valid_share"]) == (0, 0.2)
    assert main(argv) == 2 and "--force" in capsys.readouterr().err
    assert main([*argv, "--force"]) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"locales": "ES,PT"}, "--locales is 'ES PT', expected some of ES"),
        ({"locales": ""}, "--locales is ''"),
        ({"phase": 3}, "--phase is 3"),
        ({"valid_share": 0.0}, "--valid_share is 0.0"),
        ({"valid_share": 0.5}, "--valid_share is 0.5"),
    ],
)
def test_wrong_options_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        M2Options.from_settings(settings)


def test_a_locale_without_sessions_and_another_file_are_refused(raw, tmp_path):
    with pytest.raises(DataError, match=r"0 session\(s\) of IT"):
        prepare_amazon_m2(_options(raw, locales=("IT",)), tmp_path / "out")
    _csv(raw / "sessions_train.csv", ["user", "item"], [["a", "b"]])
    with pytest.raises(DataError, match=r"line 1: column\(s\) prev_items, locale, next_item not"):
        prepare_amazon_m2(_options(raw), tmp_path / "out")
