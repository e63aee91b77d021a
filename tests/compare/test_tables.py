from __future__ import annotations

import copy
import csv
import json

import numpy as np
import pytest

from recbole_mm.compare.report import TABLE, write_report
from recbole_mm.compare.results import last_error, read_rows
from recbole_mm.errors import ConfigError, DataError

from .made import N, record, write


def table(folder, **options):
    return write_report(folder, **options).read_text(encoding="utf-8")


def cells(text, start):
    """Return the cells of the first table line that starts with a cell."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_mean_deviation_and_resources_of_two_seeds(tmp_path):
    records = [record(seed=1), record(seed=2)]
    write(tmp_path, {"SASRec": records})
    text = table(tmp_path)
    hits = [r["test"]["hit@10"] for r in records]
    row = cells(text, "SASRec")
    assert row[:3] == ["SASRec", "2", f"{np.mean(hits):.4f} ± {np.std(hits, ddof=1):.4f}"]
    assert row[-5:] == ["1.5 / 8.0", "3.0", "12,345", "200", "-"]
    low, high = map(float, row[-6].split(" to "))
    assert low < np.mean([r["test"]["ndcg@20"] for r in records]) < high
    assert "200 test rows (3 with a target unseen in training), 99 candidates" in text
    assert "SYNTHETIC" not in text and "LEAKY" not in text


def test_one_seed_has_no_deviation(tmp_path):
    write(tmp_path, {"SASRec": [record()]})
    assert "±" not in cells(table(tmp_path), "SASRec")[2]


def test_csv_is_not_rounded(tmp_path):
    records = [record(seed=1), record(seed=2)]
    write(tmp_path, {"SASRec": records, "GRU4Rec": ["error: no"]})
    write_report(tmp_path)
    with open(tmp_path / "table.csv", newline="") as stream:
        found = {line["label"]: line for line in csv.DictReader(stream)}
    values = [r["test"]["ndcg@20"] for r in records]
    assert float(found["SASRec"]["ndcg@20"]) == np.mean(values)
    assert float(found["SASRec"]["ndcg@20 std"]) == np.std(values, ddof=1)
    assert (found["GRU4Rec"]["seeds"], found["GRU4Rec"]["failed"]) == ("0", "1")
    assert found["GRU4Rec"]["ndcg@20"] == ""


def test_paired_comparison_against_the_baseline(tmp_path):
    rng = np.random.default_rng(7)
    base = rng.integers(2, 60, N)
    better = np.where(rng.random(N) < 0.4, 1, base)
    write(
        tmp_path,
        {
            "SASRec": [record(ranks=base), record(ranks=base)],
            "Better": [record(ranks=better)],
            "Same": [record(ranks=base)],
        },
        baseline="SASRec",
    )
    text = table(tmp_path).split("## Paired comparison")[1]
    better_cells, same = cells(text, "Better"), cells(text, "Same")
    assert better_cells[1] == f"{np.mean(1 / better - 1 / base):+.4f}"
    assert float(better_cells[3]) < 0.001 and better_cells[4] == str(N)
    assert same[1:4] == ["+0.0000", "+0.0000 to +0.0000", "1.0000"]
    other = table(tmp_path, baseline="Better")
    assert "against Better" in other
    with pytest.raises(ConfigError, match="baseline 'Nobody' is no row"):
        write_report(tmp_path, baseline="Nobody")


def test_marks_stand_in_caption_and_row(tmp_path):
    rows = {
        "SASRec": [record(synthetic=True)],
        "SRIM": [record(synthetic=True, leaky=True)],
    }
    write(tmp_path, rows)
    text = table(tmp_path)
    assert "**SYNTHETIC:" in text and "**LEAKY:" in text
    assert cells(text, "SASRec")[-1] == "SYNTHETIC"
    assert cells(text, "SRIM")[-1] == "LEAKY SYNTHETIC"


def test_rows_whose_targets_all_tie_say_so(tmp_path):
    rows = {"SASRec": [record(tied=N - 1)], "Pop": [record(tied=N)], "Old": [record()]}
    write(tmp_path, rows)
    text = table(tmp_path)
    assert "**ALL TIED: in rows marked so every test target shares its score" in text
    assert [cells(text, label)[-1] for label in rows] == ["-", "ALL TIED", "-"]


def masked(found):
    """Turn a record into one of `history: mask`."""
    found["config"]["history"] = "mask"
    found["fingerprint"]["data"] = "f" * 64
    return found


def test_masked_histories_are_marked_and_never_mixed_with_kept_ones(tmp_path):
    rows = {"SASRec": [masked(record())], "SRIM": [masked(record(seed=2))]}
    write(tmp_path / "same", rows)
    text = table(tmp_path / "same")
    assert "**HISTORY MASKED:" in text and "history mask" in text
    assert cells(text, "SRIM")[-1] == "HISTORY MASKED"
    write(tmp_path / "mixed", {**rows, "Pop": [record()]})
    with pytest.raises(
        ConfigError, match=r"(?s)data ffffffffffff: SASRec.*same data, split, history"
    ):
        write_report(tmp_path / "mixed")


def test_failures_are_kept_with_their_reason(tmp_path):
    write(
        tmp_path,
        {"SASRec": [record(), "noise\nerror: the loss is nan\n"], "GRU4Rec": [None, "Killed"]},
    )
    text = table(tmp_path)
    assert cells(text, "SASRec")[1] == "1 of 2"
    failed = text.split("## Failed runs")[1]
    assert cells(failed, "SASRec")[1:3] == ["2", "error: the loss is nan"]
    assert "| logs/SASRec-s2.log |" in failed
    assert "| GRU4Rec | 1 | not run yet |" in failed and "| GRU4Rec | 2 | Killed |" in failed


def test_no_run_has_ended(tmp_path):
    write(tmp_path, {"SASRec": ["error: no"]}, baseline="SASRec")
    assert "No run has ended well yet" in table(tmp_path)


def test_commands_can_be_pasted(tmp_path):
    write(tmp_path, {"SASRec": [record()]})
    assert "recbole-mm run --model=SASRec --seed=1 '--topk=[10, 20]'" in table(tmp_path)


def test_other_data_or_features_are_refused_and_named(tmp_path):
    one, other = record(), record(seed=2)
    one["fingerprint"]["features"] = {"text": "a" * 64}
    other["fingerprint"]["features"] = {"text": "b" * 64, "image": "c" * 64}
    write(tmp_path, {"SASRec": [one], "SRIM": [other], "Pop": [record()]})
    with pytest.raises(ConfigError) as caught:
        write_report(tmp_path)
    assert "features 'text' aaaaaaaaaaaa: SASRec (seed 1)" in str(caught.value)
    assert "features 'text' bbbbbbbbbbbb: SRIM (seed 1)" in str(caught.value)
    assert "image" not in str(caught.value) and "Pop" not in str(caught.value)
    assert not (tmp_path / TABLE).exists()
    moved = copy.deepcopy(one)
    moved["fingerprint"]["data"] = "e" * 64
    (tmp_path / "runs" / "SRIM-s1" / "result.json").write_text(json.dumps(moved))
    with pytest.raises(ConfigError, match="data eeeeeeeeeeee: SRIM"):
        write_report(tmp_path)


def test_an_unfinished_result_is_no_result_and_a_damaged_one_is_an_error(tmp_path):
    write(tmp_path, {"SASRec": [record(status="running")]})
    assert read_rows(tmp_path)[0][0].records == []
    (tmp_path / "runs" / "SASRec-s1" / "result.json").write_text('{"status": "o')
    with pytest.raises(DataError, match="is damaged"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "damage", [{"test": 3}, {"ranks": {"rank": ["x"]}}, {"slices": []}, {"fingerprint": None}]
)
def test_a_result_that_is_json_but_no_result(damage, tmp_path):
    write(tmp_path, {"SASRec": [{**record(), **damage}]})
    with pytest.raises(DataError, match=r"result\.json is damaged .*remove it to run again"):
        write_report(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b'{"rows": []}', b"[" * 100_000])
def test_a_damaged_plan_is_named(content, tmp_path):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(DataError, match=r"plan\.json is damaged .*Give the command"):
        write_report(tmp_path)


def test_a_folder_without_a_plan(tmp_path):
    with pytest.raises(ConfigError, match="plan.json"):
        write_report(tmp_path)


def test_only_the_last_attempt_in_a_log_counts(tmp_path):
    log = tmp_path / "a.log"
    log.write_text(
        "$ recbole-mm run\nerror: old\n$ recbole-mm run --resume=x\nTraceback\nBoom: new\n"
    )
    assert last_error(log) == "Boom: new"
    log.write_text("$ recbole-mm run\n")
    assert last_error(log) == "ended without a word"


def test_the_parts_of_the_test_rows_are_shown(tmp_path):
    found = record()
    write(tmp_path, {"SASRec": [found]})
    text = table(tmp_path).split("of parts of the test rows")[1]
    assert f"target seen (n={N})" in text and "cold" not in text
    assert cells(text, "SASRec")[1] == f"{found['test']['ndcg@20']:.4f}"


def with_groups(found, **values):
    """Give a record popularity groups with these NDCG@20."""
    groups = {name.replace("_", "-"): {"n": 50, "ndcg@20": v} for name, v in values.items()}
    # JSON files hold their keys in the order of the alphabet.
    found["slices"]["popularity"] = {name: groups[name] for name in sorted(groups)}
    return found


def renamed(values):
    names = {"none": "0", "few": "1-5", "some": "6-10", "many": "11-100", "most": ">100"}
    return {names[name]: value for name, value in values.items()}


def test_popularity_groups_stand_in_their_order_with_the_change_in_per_cent(tmp_path):
    base = renamed({"few": 0.2, "some": 0.1, "many": 0.4, "most": 0.5, "none": 0.0})
    ours = renamed({"few": 0.3, "some": 0.1, "many": 0.2, "most": 0.55, "none": 0.1})
    records = {
        "SASRec": [with_groups(record(), **base)],
        "SRIM": [with_groups(record(seed=2), **ours), with_groups(record(seed=3), **ours)],
    }
    write(tmp_path, records, baseline="SASRec")
    text = table(tmp_path)
    section = text[text.index("of parts of the test rows") :]
    head = cells(section, "model")
    assert head == ["model", "target seen (n=200)"] + [
        f"popularity {name} (n=50)" for name in ("0", "1-5", "6-10", "11-100", ">100")
    ]
    assert cells(section, "SASRec")[2:] == ["0.0000", "0.2000", "0.1000", "0.4000", "0.5000"]
    assert cells(section, "against SASRec, %")[1:] == [
        "popularity 0", "popularity 1-5", "popularity 6-10", "popularity 11-100", "popularity >100",
    ]  # fmt: skip
    change = section[section.index("against SASRec, %") :]
    assert cells(change, "SRIM")[1:] == ["-", "+50.0", "+0.0", "-50.0", "+10.0"]


def test_results_without_popularity_groups_stand_beside_those_with(tmp_path):
    new = with_groups(record(seed=2), **{"0": 0.1, ">0": 0.2})
    write(tmp_path, {"SASRec": [record()], "SRIM": [new]}, baseline="SASRec")
    section = table(tmp_path).split("of parts of the test rows")[1]
    assert cells(section, "SASRec")[2:] == ["-", "-"]
    assert cells(section, "SRIM")[2:] == ["0.1000", "0.2000"]


def test_results_without_any_groups_have_no_such_table(tmp_path):
    write(tmp_path, {"SASRec": [record(slices={})]})
    assert "of parts of the test rows" not in table(tmp_path)
