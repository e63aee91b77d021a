"""Recommendations: order, filters, unknown items, parts, files."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import polars
import pytest
import torch

from recbole_mm import cli
from recbole_mm.errors import DataError
from recbole_mm.serve import reading
from recbole_mm.serve.reading import Columns, read_ids, read_sessions
from recbole_mm.serve.recommender import Recommender

SESSION = ["i0003", "i0017", "i0003"]


@pytest.fixture(scope="module")
def recommender(packed) -> Recommender:
    return Recommender.load(packed("AlterRec"))


def expected(recommender: Recommender, session: list[str], without: set[str] = frozenset()):
    """Sort all items by hand."""
    index = recommender.items.index
    scores = recommender.scorer.scores(recommender.scorer.rows([[index[i] for i in session]]))[0]
    order = sorted(index, key=lambda item: -float(scores[index[item]]))
    return [(item, float(scores[index[item]])) for item in order if item not in without]


def test_items_come_in_the_order_of_their_scores(recommender) -> None:
    found = recommender.recommend([SESSION], 60)[0]
    assert list(zip(found.items, found.scores, strict=True)) == expected(recommender, SESSION)
    assert len(recommender.recommend([SESSION], 1000)[0].items) == 60


def test_filters(recommender) -> None:
    everything = expected(recommender, SESSION)
    seen = recommender.recommend([SESSION], 60, exclude_seen=True)[0]
    assert seen.items == [item for item, _ in everything if item not in SESSION]
    first = [item for item, _ in everything[:5]]
    left = recommender.recommend([SESSION], 60, leave_out=[*first, "unheard-of"])[0]
    assert left.items == [item for item, _ in everything[5:]]
    kept = recommender.recommend([SESSION], 60, keep_to=first[::-1], leave_out=first[:1])[0]
    assert kept.items == first[1:]
    with pytest.raises(DataError, match="leave no item"):
        recommender.recommend([SESSION], keep_to=["unheard-of"])


def test_unknown_items_are_skipped_and_counted(recommender) -> None:
    found = recommender.recommend([["new", *SESSION, 7]], 5)[0]
    assert found.skipped == 2 and found.note == ""
    assert found.items == recommender.recommend([SESSION], 5)[0].items


def test_a_session_without_a_known_item_gets_what_is_popular(recommender) -> None:
    clicks = recommender.items.clicks
    empty, unknown = recommender.recommend([[], ["new"]], 4)
    assert (empty.note, unknown.note) == ("popular: empty session", "popular: no known item")
    assert empty.scores == sorted(clicks[1:].tolist(), reverse=True)[:4]
    assert [clicks[recommender.items.index[item]] for item in empty.items] == empty.scores
    rest = recommender.recommend([[]], 4, leave_out=empty.items[:1])[0]
    assert rest.items[:3] == empty.items[1:]


def test_the_newest_items_of_a_long_session_count(recommender) -> None:
    items = recommender.items.tokens[1:21]
    assert recommender.recommend([items], 5) == recommender.recommend([items[-8:]], 5)
    assert not set(recommender.recommend([items], 40, exclude_seen=True)[0].items) & set(items)


def test_history_mask_of_the_run_is_the_default(trained) -> None:
    masked = Recommender.load(trained("AlterRec", history="mask"))
    assert not set(masked.recommend([SESSION], 60)[0].items) & set(SESSION)
    assert set(masked.recommend([SESSION], 60, exclude_seen=False)[0].items) >= set(SESSION)


@pytest.mark.parametrize("model", ["AlterRec", "MDSRec", "MMSBR"])
def test_parts_add_up_to_the_score_above_the_mean(model, packed) -> None:
    """AlterRec's and MDSRec's parts stand without the weights that the score gives them."""
    recommender = Recommender.load(packed(model))
    sessions = [["i0003", "i0017"], ["i0030"], ["i0041", "i0007", "i0020"]]
    whole = recommender.recommend(sessions, 60, parts=True)
    names = {"AlterRec": {"id", "text"}, "MDSRec": {"id", "text", "image"}}
    for found in whole:
        assert set(found.parts) == names.get(model, {"interest", "price", "repeat"})
        total = torch.tensor(list(found.parts.values())).sum(dim=0)
        scores = torch.tensor(found.scores)
        above = scores - scores.mean()
        torch.testing.assert_close(total, above, rtol=1e-3, atol=1e-4)
    assert recommender.recommend(sessions, 3)[0].parts == {}


def test_late_parts_add_up_without_being_weighted_again(packed) -> None:
    keys = {"score_parts": ["transitions", "own_items"]}
    recommender = Recommender.load(packed("AlterRec", **keys))
    assert recommender.part_names() == ["network", "transitions"]
    weights = recommender.restored.model.late
    assert set(recommender.scorer._weights.values()) == {1.0}
    assert weights["networks"] == {"network": 1.0} and weights["parts"]["transitions"] > 0


def test_batches_do_not_change_what_is_recommended(recommender, monkeypatch) -> None:
    sessions = [[token] for token in recommender.items.tokens[1:40]] + [[], ["new"]]
    whole = recommender.recommend(sessions, 5)
    monkeypatch.setattr("recbole_mm.serve.scorer._CELLS", 4 * 61)
    assert recommender.scorer.batch_size == 4
    apart = recommender.recommend(sessions, 5)
    assert [one.note for one in apart] == [one.note for one in whole]
    for one, other in zip(whole, apart, strict=True):
        assert one.items == other.items
        assert one.scores == pytest.approx(other.scores, rel=1e-5)


LONG = "session_id,item_id,timestamp\nb,i1,30\na,i2,10\nb,i3,20\nc,,5\n"
EXPECTED = (["b", "a", "c"], [["i3", "i1"], ["i2"], []])


def test_tables_of_interactions(tmp_path) -> None:
    (tmp_path / "s.csv").write_text(LONG)
    atomic = LONG.replace(",", "\t").replace("session_id", "session_id:token")
    (tmp_path / "s.inter").write_text(atomic)
    polars.read_csv(io.StringIO(LONG)).write_parquet(tmp_path / "s.parquet")
    for name in ("s.csv", "s.inter", "s.parquet"):
        asked = read_sessions(str(tmp_path / name), Columns())
        assert (asked.names, asked.sessions) == EXPECTED, name
    (tmp_path / "d.csv").write_text("u,i,t\na,x,2024-01-02\na,y,yesterday\n")
    with pytest.raises(DataError, match="expected a number or a date"):
        read_sessions(str(tmp_path / "d.csv"), Columns("u", "i", "t"))
    (tmp_path / "d.csv").write_text("u,i,t\na,x,2024-01-02 00:00:00\na,y,2024-01-01 10:00:00\n")
    assert read_sessions(str(tmp_path / "d.csv"), Columns("u", "i", "t")).sessions == [["y", "x"]]


def test_lists_of_items(tmp_path, monkeypatch) -> None:
    polars.DataFrame({"items": [[3, 4], []]}).write_parquet(tmp_path / "l.parquet")
    assert read_sessions(str(tmp_path / "l.parquet"), Columns()).sessions == [["3", "4"], []]
    lines = '["a", 1]\n\n{"session_id": "me", "items": []}\n'
    (tmp_path / "l.jsonl").write_text(lines)
    asked = read_sessions(str(tmp_path / "l.jsonl"), Columns())
    assert (asked.names, asked.sessions) == (["1", "me"], [["a", "1"], []])
    for data, names in ((lines, ["1", "me"]), (LONG, EXPECTED[0])):
        stdin = SimpleNamespace(buffer=io.BytesIO(data.encode()))
        monkeypatch.setattr(reading.sys, "stdin", stdin)
        assert read_sessions("-", Columns()).names == names


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "session,item\n1,2\n", "no column 'session_id'. It has: session, item"),
        ("a.csv", "", "no table with a header line"),
        ("a.jsonl", "[1]\n{'items': []}\n", "line 2: no JSON"),
        ("a.jsonl", '{"items": "i1"}\n', "line 1: expected a list of item ids"),
        ("a.jsonl", '[1]\n[["i1"]]\n', "line 2: expected a list of item ids"),
        ("a.parquet", "PAR0", "no Parquet file"),
        ("a.xlsx", "x", "'.xlsx' is not read"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, content, message) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_sessions(str(tmp_path / name), Columns())


def test_ids_from_words_or_a_file(tmp_path) -> None:
    (tmp_path / "ids.txt").write_text("a b\n\nc\n")
    assert read_ids(str(tmp_path / "ids.txt")) == ["a b", "c"]
    assert read_ids("a  b") == ["a", "b"]
    assert read_ids(None) is None


def test_the_command_writes_what_recommend_returns(packed, tmp_path, capsys) -> None:
    pack = packed("MDSRec")
    (tmp_path / "s.csv").write_text("session_id,item_id\na,i0003\nb,\na,i0017\nb,new\n")
    given = [f"--run={pack}", f"--sessions={tmp_path / 's.csv'}", "--topk=3", "--parts"]
    found = Recommender.load(pack).recommend([["i0003", "i0017"], ["new"]], 3, parts=True)
    for kind in ("csv", "parquet", "jsonl"):
        assert cli.main(["recommend", *given, f"--output={tmp_path / f'o.{kind}'}"]) == 0
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("6 items recommended to 2 session(s); 1 got popular: no known item; 1 ")
    assert cli.main(["recommend", *given]) == 0
    assert capsys.readouterr().out == (tmp_path / "o.csv").read_text()
    rows = polars.read_parquet(tmp_path / "o.parquet")
    assert rows.columns == polars.read_csv(tmp_path / "o.csv").columns
    assert rows["session_id"].to_list() == ["a"] * 3 + ["b"] * 3
    assert rows["rank"].to_list() == [1, 2, 3] * 2
    assert rows["item_id"].to_list() == found[0].items + found[1].items
    assert rows["score"].to_list() == found[0].scores + found[1].scores
    assert rows["part_text"].to_list() == [*found[0].parts["text"], None, None, None]
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [line["session_id"] for line in lines] == ["a", "b"]
    assert [item["item_id"] for item in lines[0]["items"]] == found[0].items
    assert lines[1]["note"] == "popular: no known item" and lines[1]["skipped"] == 1
