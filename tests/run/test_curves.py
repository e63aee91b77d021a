from __future__ import annotations

import csv
import io
import logging

import pytest

from recbole_mm.run import curves

HISTORY = [
    {"epoch": 0, "loss": {}, "valid": {"ndcg@20": 0.01}, "parts": {
        "whole": {"ndcg@20": 0.01, "ce": 6.5}, "id": {"ndcg@20": 0.02, "ce": 6.4}}},
    {"epoch": 1, "loss": {"main": 6.25}, "branch": "id", "learning_rate": 0.001},
    {"epoch": 2, "loss": {"main": 5.5}, "branch": "id", "learning_rate": 0.0001,
     "valid": {"ndcg@20": 1 / 3}, "parts": {"id": {"ndcg@20": 0.25, "ce": 5.0}}},
    {"epoch": 3, "loss": {"main": 5.25, "other": 1.0}, "branch": "text", "negatives": "hard"},
    {"epoch": 4, "loss": {"main": 5.0}, "branch": "id"},
]  # fmt: skip


def test_one_line_per_epoch_with_unrounded_numbers():
    lines = list(csv.DictReader(io.StringIO(curves.table(HISTORY))))
    assert [line["epoch"] for line in lines] == ["0", "1", "2", "3", "4"]
    assert list(lines[0]) == [
        "epoch", "branch", "learning_rate", "loss/main", "loss/other", "valid/ndcg@20",
        "parts/whole/ndcg@20", "parts/whole/ce", "parts/id/ndcg@20", "parts/id/ce", "negatives",
    ]  # fmt: skip
    assert float(lines[2]["valid/ndcg@20"]) == 1 / 3
    assert lines[0]["branch"] == "" and lines[0]["loss/main"] == "" and lines[1]["branch"] == "id"
    assert lines[3]["negatives"] == "hard" and lines[2]["parts/id/ce"] == "5.0"


def test_the_lines_drawn():
    assert curves.metric_lines(HISTORY, "ndcg@20") == {
        "whole": [(0, 0.01), (2, 1 / 3)],
        "id": [(0, 0.02), (2, 0.25)],
    }
    assert curves.metric_lines(HISTORY, "hit@1") == {}
    assert curves.loss_lines(HISTORY) == {
        "main (id)": [(1, 6.25), (2, 5.5), (4, 5.0)],
        "main (text)": [(3, 5.25)],
        "other (text)": [(3, 1.0)],
    }
    assert curves.loss_lines([{"epoch": 1, "loss": {"loss": 2.0}}]) == {"loss": [(1, 2.0)]}


def test_blocks_of_one_branch():
    assert curves.branch_blocks(HISTORY) == [("id", 1, 2), ("text", 3, 3), ("id", 4, 4)]
    assert curves.branch_blocks([{"epoch": 1}, {"epoch": 2}]) == []


def test_both_files_are_written(tmp_path):
    curves.write_curves(HISTORY, tmp_path, "ndcg@20")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.csv", "curves.png"]
    picture = (tmp_path / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


@pytest.mark.parametrize("history", [HISTORY[1:2], []])
def test_one_epoch_is_no_curve(tmp_path, history):
    curves.write_curves(history, tmp_path, "ndcg@20")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]


def test_losses_of_different_size_stand_on_axes_of_their_own():
    lines = {"main": [(1, 9.0), (2, 8.0)], "align": [(1, 1.0), (2, 0.9)], "tiny": [(1, 0.01)]}
    assert [list(group) for group in curves.by_size(lines)] == [["main", "align"], ["tiny"]]
    far = {"a": [(1, -500.0)], "b": [(1, 4.0)], "c": [(1, 0.5)]}
    assert [list(group) for group in curves.by_size(far)] == [["a"], ["b", "c"]]
    assert curves.by_size({}) == []


def svg(history, **more) -> str:
    return (curves.draw(history, "ndcg@20", form="svg", **more) or b"").decode()


def test_title_and_best_epoch_stand_in_the_picture():
    text = svg(HISTORY, title="SRIM on $shop$", best_epoch=2)
    assert ">SRIM on $shop$<" in text and ">best epoch<" in text
    assert "best epoch" not in svg(HISTORY)


def test_panels_without_a_line_are_left_out():
    both, one = svg(HISTORY), svg([{**record, "loss": {}} for record in HISTORY])
    assert (both.count('id="axes_'), one.count('id="axes_')) == (2, 1)
    untrained = [HISTORY[0], {"epoch": 1, "loss": {"main": 6.0}, "valid": {"ndcg@20": 0.2}}]
    assert svg(untrained).count('id="axes_') == 1 and "training loss" not in svg(untrained)


def test_shading_changes_the_picture():
    plain = [{k: v for k, v in record.items() if k != "branch"} for record in HISTORY]
    assert curves.draw(HISTORY, "ndcg@20") != curves.draw(plain, "ndcg@20")


def test_a_picture_that_fails_costs_a_warning_only(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(curves, "draw", fail)
    with caplog.at_level(logging.WARNING):
        curves.write_curves(HISTORY, tmp_path, "ndcg@20")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.csv"]
    assert "the curves of the run are not complete: RuntimeError: no font" in caplog.text
