"""What each modality is worth: which rows are made, and the table of what they have lost."""

from __future__ import annotations

import csv
import json
from argparse import Namespace

import numpy as np
import pytest

from recbole_mm.compare.execute import compare_command
from recbole_mm.compare.knock_out import knocked_out
from recbole_mm.compare.plan import make_plan
from recbole_mm.compare.report import write_report
from recbole_mm.compare.results import read_rows
from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.evaluation.ranking import metrics_from_ranks
from recbole_mm.rows import parse_rows
from recbole_mm.yaml_files import parse_value

from .made import N, record, write


def made(*texts):
    """Return the keys of the rows that are made on Cellphones, which has text, image and price."""

    def configure(row):
        keys = {key: parse_value(text) for key, text in row.keys}
        return MMConfig(row.model, "Cellphones", (), keys)

    rows = knocked_out(parse_rows(texts), "modalities", configure)
    for row in rows:
        configure(row)  # every row is one that can be run
    return {row.label: dict(row.keys) for row in rows}


def test_each_modality_of_a_row_is_left_out_shuffled_and_random():
    found = made("both=SRIM:modalities=[text,image]")
    assert list(found) == [
        "both, without text", "both, shuffled text", "both, random text",
        "both, without image", "both, shuffled image", "both, random image",
    ]  # fmt: skip
    assert found["both, without text"] == {"modalities": '["image"]'}
    assert found["both, shuffled image"] == {
        "modalities": "[text,image]", "feature_source": "shuffled", "feature_source_of": '["image"]'
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "label", "keys"),
    [
        ("SRIM", "SRIM, without text", {"branches": "id"}),
        ("AlterRec", "AlterRec, without text",
         {"train_branches": '["id"]', "negative_sampling": "uniform"}),
        ("NFRec", "NFRec, without text", {"components": "id"}),
        ("MDSRec", "MDSRec, without image", {"modalities": '["text"]'}),
        ("MMSBR", "MMSBR, without price", {"use_price": "false"}),
        ("Counting", "Counting, without text", {"beta": "0.0"}),
        ("x=FDSA:modalities=[text]", "x, without text", {"modalities": "[]"}),
        ("DIMO", "DIMO, without text", {"branches": "id"}),
        ("MISSRec", "MISSRec, without image", {"modalities": '["text"]'}),
        ("x=UniSRec:modalities=[text,image]", "x, without image", {"modalities": '["text"]'}),
    ],
)  # fmt: skip
def test_every_family_says_how_a_modality_is_left_out(row, label, keys):
    assert made(row)[label] == keys


def test_what_has_no_key_for_it_is_shuffled_only():
    found = made("SRIM:branches=content")
    assert list(found) == ["SRIM:branches=content, shuffled text",
                           "SRIM:branches=content, random text"]  # fmt: skip
    # Prices are a column: there are no vectors to shuffle.
    assert "MMSBR, shuffled price" not in made("MMSBR")


def test_a_model_without_its_only_input_is_no_row_and_that_is_said(caplog):
    found = made("x=SASRecF:modalities=[text],selected_features=[]")
    assert list(found) == ["x, shuffled text", "x, random text"]
    assert "there is no row x, without text: SASRecF was given no item feature" in caplog.text


def test_without_any_modality_there_is_nothing_to_knock_out():
    with pytest.raises(ConfigError, match="no row reads text, images"):
        made("SASRec")
    with pytest.raises(ConfigError, match="expected modalities"):
        knocked_out([], "layers", lambda row: None)


def test_rows_that_are_made_have_the_seeds_of_their_row(tmp_path):
    rows = parse_rows(["a=SRIM"])
    rows += knocked_out(rows, "modalities", lambda row: MMConfig("SRIM", "Cellphones", (), {}))
    plan = make_plan(tmp_path, "Cellphones", rows, [1, 2], {"a": 1}, overrides={})
    assert [len(jobs) for _, jobs in plan] == [1, 1, 1, 1]


def folder_of(tmp_path, whole, without):
    ranks = {"whole": whole, "without": without}
    records = {}
    for label, found in ranks.items():
        test = metrics_from_ranks(found, [10, 20], ["Hit", "NDCG"])
        records[label] = [record("SRIM", ranks=found, test=test)]
    write(tmp_path, records)
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["rows"][1]["knock_out"] = {"of": "whole", "modality": "image", "how": "left out"}
    (tmp_path / "plan.json").write_text(json.dumps(plan))


def test_worth_is_the_paired_difference_of_the_main_metric(tmp_path):
    """Ranks 1 and 3 in turn against 7: NDCG 1 and 1/2, mean 3/4, against 1/3."""
    whole = np.where(np.arange(N) % 2, 3, 1)
    folder_of(tmp_path, whole, np.full(N, 7))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "## What each modality is worth (ndcg@20)" in text
    assert "| whole | image | left out | 0.7500 | 0.3333 | +0.4167 | " in text
    with open(tmp_path / "knock_out.csv", encoding="utf-8", newline="") as stream:
        (line,) = csv.DictReader(stream)
    assert float(line["worth"]) == pytest.approx(0.75 - 1 / 3)
    assert float(line["low"]) < float(line["worth"]) < float(line["high"])
    assert float(line["p_holm"]) == pytest.approx(2 / 5001) and line["sessions"] == str(N)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "What each modality is worth" in page


def test_a_damaged_plan_is_named(tmp_path):
    folder_of(tmp_path, np.ones(N, dtype=int), np.full(N, 7))
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["rows"][1]["knock_out"] = {"of": "whole"}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(DataError, match=r"plan\.json is damaged"):
        write_report(tmp_path)


@pytest.mark.usefixtures("in_process")
def test_a_real_comparison_knocks_out_text(tmp_path):
    shop = tmp_path / "data" / "toy"
    shop.mkdir(parents=True)
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for session in range(60):
        lines += [
            f"s{session}\ti{(session + step) % 30}\t{1_600_000_000 + 1000 * session + step}"
            for step in range(3)
        ]
    (shop / "toy.inter").write_text("\n".join(lines) + "\n")
    titles = [f"i{item}\t{('red', 'blue', 'green')[item % 3]} {item}" for item in range(30)]
    (shop / "toy.item").write_text("item_id:token\ttitle:token_seq\n" + "\n".join(titles) + "\n")
    args = Namespace(
        dataset="toy", models=["SRIM:embedding_size=8"], seeds=[1], seeds_for={}, jobs=1,
        output=str(tmp_path / "out"), config_files=[], plugins=[], baseline=None,
        table_only=False, tuned=None, knock_out="modalities",
    )  # fmt: skip
    keys = {"epochs": 1, "text_encoder": "tfidf", "data_path": str(tmp_path / "data"),
            "floor": False, "use_gpu": False}  # fmt: skip
    assert compare_command(args, keys) == 0
    rows, _ = read_rows(tmp_path / "out")
    assert [row.marks for row in rows] == [
        "", "", "SHUFFLED FEATURES (text)", "RANDOM FEATURES (text)"
    ]  # fmt: skip
    assert rows[1].records[0]["config"]["branches"] == "id"
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    for how in ("left out", "shuffled", "random"):
        assert f"| SRIM:embedding_size=8 | text | {how} | " in text
