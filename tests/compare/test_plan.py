"""Rows as they are written, and requests that are refused before anything runs."""

from __future__ import annotations

import os

import pytest

from recbole_mm import yaml_files
from recbole_mm.compare import compare
from recbole_mm.compare.plan import make_plan
from recbole_mm.errors import ConfigError
from recbole_mm.rows import RowSpec, as_argument, parse_row


def test_rows_are_read():
    assert parse_row("SASRec") == RowSpec("SASRec", "SASRec", ())
    assert parse_row("SRIM:topk=[5,10],n_layers=2") == RowSpec(
        "SRIM:topk=[5,10],n_layers=2", "SRIM", (("topk", "[5,10]"), ("n_layers", "2"))
    )
    assert parse_row("no text=SRIM:x=a=b") == RowSpec("no text", "SRIM", (("x", "a=b"),))
    assert parse_row("wide=SRIM") == RowSpec("wide", "SRIM", ())


@pytest.mark.parametrize("text", ["", ":a=1", "x=", "=SRIM", "SRIM:", "SRIM:a", "SRIM:=1"])
def test_unreadable_rows(text):
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_row(text)


def test_keys_of_the_comparison_are_refused():
    with pytest.raises(ConfigError, match="sets seed"):
        parse_row("SRIM:seed=3")


@pytest.mark.parametrize(
    "value", ["text", "1", "true", 1, 1.5, 1e-5, True, None, [1, 2], {"a": 1}, "a b", "", "~", "[1"]
)
def test_values_survive_the_command_line(value):
    assert yaml_files.parse_value(as_argument(value)) == value


def refused(match, models=("SASRec",), seeds=(1, 2), **options):
    with pytest.raises(ConfigError, match=match):
        compare("toy", models, seeds, **options)


def test_wrong_requests_are_refused_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("no rows", models=[])
    refused("named twice: SASRec", models=["SASRec", "SASRec"])
    refused("seeds must be different", seeds=[1, 1])
    refused("between 1 and the 2 seeds", seeds_for={"SASRec": 3})
    refused("SRIM, which is no row", seeds_for={"SRIM": 1})
    refused("baseline 'Pop' is no row", baseline="Pop")
    refused("row SASRek.*SASRec", models=["SASRek"])
    refused("row SASRec:n_heds=2.*n_heads", models=["SASRec:n_heds=2"])
    refused("epochs", overrides={"epochs": "many"})
    assert os.listdir(tmp_path) == []


def planned(folder, models=("SASRec", "narrow=SASRec:hidden_size=4"), seeds_for=None, **overrides):
    return make_plan(folder, "toy", models, [1, 2, 3], seeds_for or {}, overrides=overrides)


def test_each_row_has_its_seeds_and_keys(tmp_path):
    plan = planned(tmp_path, seeds_for={"narrow": 1, "SASRec": 2}, hidden_size=8)
    assert [(row.label, [job.seed for job in jobs]) for row, jobs in plan] == [
        ("SASRec", [1, 2]), ("narrow", [1]),
    ]  # fmt: skip
    assert "--hidden_size=8" in plan[0][1][0].arguments
    assert "--hidden_size=4" in plan[1][1][0].arguments


def test_a_run_has_a_folder_of_its_own_settings(tmp_path):
    def folders(**keys):
        return {job.folder for _, jobs in planned(tmp_path, **keys) for job in jobs}

    assert len(folders()) == 6 and folders() == folders()
    assert not folders() & folders(n_layers=1)
    file = tmp_path / "my.yaml"
    found = []
    for epochs in (1, 2):
        file.write_text(f"epochs: {epochs}\n")
        plan = make_plan(tmp_path, "toy", ["SASRec"], [1], {}, config_files=[file], overrides={})
        found.append(plan[0][1][0].folder)
    assert found[0] != found[1]


def test_a_key_that_one_row_lacks_is_answered_with_the_form_for_single_rows(tmp_path):
    with pytest.raises(ConfigError) as caught:
        make_plan(
            tmp_path, "Cellphones", ["FDSA", "SASRec"], [1], {},
            overrides={"selected_features": ["category"]},
        )  # fmt: skip
    assert str(caught.value).startswith("row SASRec: ")
    assert '--models="FDSA:selected_features=["category"] ..."' in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        make_plan(tmp_path, "Cellphones", ["SRIM", "SASRec"], [1], {}, overrides={"w_aling": 1})
    assert "--models" not in str(caught.value)
