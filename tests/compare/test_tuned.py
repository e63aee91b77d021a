"""Rows that take the settings which a search has found."""

from __future__ import annotations

import pytest

from recbole_mm.compare.plan import make_plan, write_plan
from recbole_mm.compare.results import read_rows
from recbole_mm.compare.tuned import tuned_rows
from recbole_mm.errors import ConfigError
from recbole_mm.rows import parse_rows


@pytest.fixture
def found(tmp_path):
    folder = tmp_path / "tuned"
    folder.mkdir()
    (folder / "SASRec.yaml").write_text(
        "# SASRec on toy\nmodel: SASRec\nlearning_rate: 0.003\nn_layers: 1\nhidden_size: 32\n"
    )
    (folder / "SRIM_preset_hybrid.yaml").write_text("model: SRIM\npreset: hybrid\nw_co: 0.5\n")
    return folder


def test_a_row_takes_the_settings_of_its_label_or_model_and_its_own_keys_win(found, caplog):
    rows = parse_rows(["SASRec", "narrow=SASRec:hidden_size=8", "SRIM:preset=hybrid", "Pop"])
    sasrec, narrow, srim, pop = tuned_rows(rows, found, {"n_layers": 2})
    # n_layers is given to all runs, so that of the search stands back.
    assert sasrec.keys == (("learning_rate", "0.003"), ("hidden_size", "32"))
    assert narrow.keys == (("learning_rate", "0.003"), ("hidden_size", "8"))
    assert srim.keys == (("w_co", "0.5"), ("preset", "hybrid"))
    assert pop == rows[3]
    assert "not tuned" in caplog.text and caplog.text.rstrip().endswith("Pop")


def test_the_plan_knows_which_rows_are_tuned(found, tmp_path):
    rows = tuned_rows(parse_rows(["SASRec", "Pop"]), found, ())
    plan = make_plan(tmp_path, "toy", rows, [1], {}, overrides={})
    assert "--learning_rate=0.003" in plan[0][1][0].arguments
    write_plan(tmp_path, plan, None)
    read, _ = read_rows(tmp_path)
    assert [row.marks for row in read] == ["TUNED", ""]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["Pop"], r"has none of Pop\.yaml; expected the --output folder"),
        (["SRIM:preset=hybrid", "SASRec"], r"holds settings of SASRec; the row SRIM"),
    ],
)
def test_settings_that_are_not_there_or_of_another_model(rows, words, found):
    (found / "SRIM_preset_hybrid.yaml").write_text("model: SASRec\n")
    with pytest.raises(ConfigError, match=words):
        tuned_rows(parse_rows(rows), found, ())
