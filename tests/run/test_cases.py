"""The page about single sessions: right rows, right ranks, right items, for any model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_mm import run
from recbole_mm.config import MMConfig
from recbole_mm.data.atomic import write_atomic
from recbole_mm.run.cases import PAGE, case_page, item_titles, write_cases
from recbole_mm.testing.case import Toy, write_toy

TOY = Toy("toy", n_items=40, n_sessions=120)
SMALL = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 2, "use_gpu": False}
MDSREC = {"modalities": ["text", "image"], "n_centers": 3, "n_neighbors": 4}


@pytest.fixture
def prepare(tmp_path: Path):
    write_toy(tmp_path, TOY, ["text", "image"])

    def make(model: str = "MDSRec", titles: bool = True, **keys: object) -> run.Prepared:
        if titles:
            names = [f"i{n:04d}" for n in range(40)]
            frame = pd.DataFrame({"item_id": names, "title": [f"thing {n}" for n in range(40)]})
            frame.loc[3, "title"] = "either | or " + "x" * 80
            types = {"item_id": "token", "title": "token_seq"}
            write_atomic(tmp_path / "toy" / "toy.item", frame, types)
        own = MDSREC if model == "MDSRec" else {}
        keys = {**SMALL, **own, "data_path": str(tmp_path), **keys}
        return run.prepare(MMConfig(model, "toy", (), {**keys, "run_folder": str(tmp_path / "r")}))

    return make


def first_row(made: run.Prepared, row: int = 0):
    dataset = made.dataset
    rows = dataset.rows("test")
    return dataset.session_tokens(rows.session[[row]])[0], int(rows.target[row])


def column(page: str, name: str, table: int = 0) -> list[str]:
    """Return the cells of one column of one of the page's tables."""
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("| |")]
    head = [cell.strip() for cell in blocks[table][0].split("|")]
    return [line.split(" | ")[head.index(name) - 1].strip(" |") for line in blocks[table][2:]]


def test_ranks_and_first_items_are_those_of_the_model(prepare):
    made = prepare()
    session, target = first_row(made, 4)
    page = case_page(made, [session], 3)
    batch = made.test.collate_fn([4])[0]
    model, titles = made.model.eval(), item_titles(made.dataset)
    with torch.no_grad():
        tables = {"whole": model.full_sort_predict(batch), **model.score_parts(batch)}
    assert list(tables) == ["whole", "id", "text", "image"]
    for name, table in tables.items():
        table = table[0].numpy()
        order = np.argsort(-table[1:], kind="stable") + 1
        shown = [cell.strip("*") for cell in column(page, name)]
        assert shown == [titles[item] for item in order[:3]]
        rank = 1 + int((table[1:] > table[target]).sum())
        assert f"{name} {rank}" in page.split("rank by ")[1].splitlines()[0]
    assert f"Target: **{titles[target]}**" in page
    history = made.dataset.rows("test").history[4]
    shown = [titles[item] for item in history if item][-10:]
    assert " → ".join(shown) in page


def test_the_target_is_bold_where_it_is_shown(prepare):
    made = prepare()
    session, target = first_row(made)
    page = case_page(made, [session], 39)
    assert f"**{item_titles(made.dataset)[target]}**" in column(page, "whole")
    assert sum("**" in cell for cell in column(page, "whole")) == 1


def test_neighbours_of_the_target_are_shown_by_modality(prepare):
    made = prepare()
    session, target = first_row(made)
    page, titles = case_page(made, [session], 5), item_titles(made.dataset)
    lists = made.model.item_neighbours(target)
    shared = set(lists["text"]) & set(lists["image"])
    for kind, found in lists.items():
        # Four neighbours, of which the item itself is one.
        assert target not in found and len(found) == 3
        expected = [f"**{titles[i]}**" if i in shared else titles[i] for i in found]
        assert column(page, kind, table=1) == expected
    assert f"bold in all lists ({len(shared)})" in page


@pytest.mark.parametrize("model", ["MDSRec", "SASRec"])
def test_a_masked_history_is_neither_ranked_nor_shown(prepare, model):
    made = prepare(model, history="mask")
    rows, titles = made.dataset.rows("test"), item_titles(made.dataset)
    row = int(np.flatnonzero((rows.length > 2) & ~rows.target_in_history())[0])
    session, target = first_row(made, row)
    history = set(rows.history[row][: rows.length[row]])
    page = case_page(made, [session], 39)
    with torch.no_grad():
        scores = made.model.eval().full_sort_predict(made.test.collate_fn([row])[0])[0].numpy()
    left = [item for item in np.argsort(-scores, kind="stable") if item and item not in history]
    shown = [cell.strip("*") for cell in column(page, "whole")]
    assert shown[: len(left)] == [titles[item] for item in left]
    assert not any(shown[len(left) :])  # another part may be longer, never the history
    assert f"rank by whole {left.index(target) + 1}" in page
    assert page.split("\n\n")[2].startswith("History, no candidates: ")


def test_a_stock_model_has_its_whole_score_only(prepare):
    made = prepare("SASRec")
    page = case_page(made, [first_row(made)[0]], 2)
    assert "| | whole |" in page and "Most like" not in page
    assert len(column(page, "whole")) == 2


def test_titles_are_cut_and_safe_in_tables(prepare):
    made = prepare()
    titles = dict(zip(made.dataset.tokens(np.arange(1, 41)), item_titles(made.dataset)[1:],
                      strict=True))  # fmt: skip
    assert titles["i0005"] == "thing 5 (i0005)"
    assert titles["i0003"].startswith("either \\| or x") and titles["i0003"].endswith("... (i0003)")
    assert len(titles["i0003"]) < 75


def test_without_titles_tokens_are_shown(prepare):
    made = prepare(titles=False, encode_on_first_use=False)
    assert item_titles(made.dataset)[1:3] == ["i0000", "i0001"]


def test_a_session_that_is_not_there_is_named(prepare, caplog):
    made = prepare()
    page = case_page(made, ["nobody"], 5)
    assert "## Session nobody\n\nNo row in the test part." in page
    assert "nobody has no row in the test part" in caplog.text


def test_several_rows_of_one_session_are_all_shown(prepare):
    made = prepare(eval_targets="all_prefixes")
    rows = made.dataset.rows("test")
    session = rows.session[np.bincount(rows.session)[rows.session] > 1][0]
    page = case_page(made, made.dataset.session_tokens(np.array([session])), 2)
    assert page.count("## Session") == int((rows.session == session).sum())


def test_the_page_is_written_only_if_asked_for(prepare, tmp_path):
    made = prepare()
    assert write_cases(made, tmp_path) is None and not (tmp_path / PAGE).exists()
    session, _ = first_row(made)
    made.config["case_sessions"], made.config["case_topk"] = [session], 2
    assert write_cases(made, tmp_path) == tmp_path / PAGE
    assert (tmp_path / PAGE).read_text("utf-8") == case_page(made, [session], 2)


def test_sessions_may_be_numbers_and_change_no_run(prepare):
    plain, asked = prepare(), prepare(case_sessions=[12, "s0100"], case_topk=3)
    assert plain.config.hash() == asked.config.hash()
    assert asked.config["case_sessions"] == [12, "s0100"]
