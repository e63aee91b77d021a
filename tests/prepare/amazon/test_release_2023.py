"""Amazon Reviews 2023: reviews, ratings and metadata of the published forms."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from recbole_mm.cli import main
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import DataError
from recbole_mm.prepare.amazon import lines
from recbole_mm.prepare.amazon.items import item_cells
from recbole_mm.prepare.amazon.presets import AmazonOptions
from recbole_mm.prepare.amazon.reviews import prepare_amazon
from recbole_mm.run.prepared import load_dataset

T0 = 1_588_687_728_923  # 2020-05-05, milliseconds
HEADER = "user_id,parent_asin,rating,timestamp"


def _review(user: str, parent: str, ms: int, **more) -> str:
    record = {
        "rating": 5.0,
        "title": "Fine",
        "text": "It works",
        "images": [{"small_image_url": "https://images.example/u.jpg", "attachment_type": "IMAGE"}],
        "asin": parent + "V",  # a variant of the product
        "parent_asin": parent,
        "user_id": user,
        "timestamp": ms,
        "helpful_vote": 0,
        "verified_purchase": True,
    }
    return json.dumps({**record, **more})


def _picture(name: str, variant: str, **more) -> dict:
    sizes = {size: f"https://images.example/{name}.{size}.jpg" for size in ("thumb", "large")}
    return {**sizes, "variant": variant, "hi_res": f"https://images.example/{name}.jpg", **more}


def _meta(parent: str, **more) -> dict:
    record = {
        "main_category": "Video Games",
        "title": f"Item &amp; {parent}",
        "average_rating": 4.5,
        "rating_number": 12,
        "features": ["Two players", "Loud"],
        "description": ["A  game."],
        "price": 12.99,
        "images": [_picture("side", "PT01"), _picture("front", "MAIN")],
        "videos": [{"title": "t", "url": "u", "user_id": ""}],
        "store": "Norvik",
        "categories": ["Video Games", "PC", "Old Games"],
        "details": {"Brand": "Other", "asin": "X"},
        "parent_asin": parent,
        "bought_together": None,
    }
    return {**record, **more}


def _write(path: Path, rows: list[str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    return str(path)


def _options(**more) -> AmazonOptions:
    base = {"dataset": "shop", "year": 2023, "sequences": True, "core": 1}
    return AmazonOptions(**{**base, **more}).checked()


def test_reviews_are_read_by_parent_and_in_milliseconds():
    rows = [
        _review("A1", "B1", T0),
        "{broken",
        _review("A1", "B2", T0 // 1000),  # seconds: of 1970
        _review("A1", "B3", None),
        _review("A2", "B1", T0 + 1, parent_asin=None),
    ]
    frame, tally = lines.ReviewReader(2023).read("\n".join(rows).encode(), 1)
    assert frame.rows() == [("A1", "B1", 1_588_687_728.923, 1)]
    assert tally.first == {lines.NOT_RECORDS: [2], lines.NO_TIME: [3], lines.INCOMPLETE: [4, 5]}


def test_an_item_of_2023():
    assert item_cells(_meta("B1"), 2023) == [
        "B1",
        "Item & B1",
        "Norvik",
        "Video_Games PC Old_Games",
        "Old_Games",
        "Two players Loud A game.",
        "12.99",
        "https://images.example/front.jpg",
    ]


@pytest.mark.parametrize(
    ("changes", "column", "value"),
    [
        ({"images": [_picture("a", "PT01"), _picture("b", "PT02")]}, 7, "a.jpg"),
        ({"images": [_picture("a", "PT01"), _picture("b", "MAIN", hi_res=None)]}, 7, "b.large.jpg"),
        ({"images": [_picture("a", "MAIN", hi_res=None, large=None)]}, 7, "a.thumb.jpg"),
        ({"images": [{"variant": "MAIN"}, _picture("a", "PT01")]}, 7, "a.jpg"),
        ({"images": []}, 7, ""),
        ({"images": None}, 7, ""),
        ({"images": ["x", 3]}, 7, ""),
        ({"price": None}, 6, ""),
        ({"price": "$12.99"}, 6, "$12.99"),
        ({"store": None}, 2, ""),
        ({"features": [], "description": []}, 5, ""),
        ({"categories": []}, 3, ""),
    ],
)
def test_odd_values_of_an_item(changes, column, value):
    found = item_cells(_meta("B1", **changes), 2023)[column]
    assert found.removeprefix("https://images.example/") == value


@pytest.mark.parametrize(
    ("price", "said", "kind"),
    [
        (12.5, 12.5, "read"),
        ("$1,012.99", 1012.99, "read"),
        ("None", None, "empty"),
        (None, None, "empty"),
        ("—", None, "empty"),
        ("from 14.99", None, "unreadable"),
    ],
)
def test_prices_from_the_file_to_the_table(tmp_path, price, said, kind):
    reviews = _write(tmp_path / "r.jsonl.gz", [_review("u", "a", T0), _review("u", "b", T0 + 9)])
    meta = _write(tmp_path / "m.jsonl.gz", [json.dumps(_meta("a", price=price))])
    folder = prepare_amazon(_options(reviews=reviews, meta=meta), tmp_path / "out")
    (row,) = read_atomic(folder / "shop.item").to_dict("records")
    assert row["price"] == said or (said is None and row["price"] != row["price"])
    assert load_dataset_card(folder).report["prices"] == {kind: 1}


def test_milliseconds_order_rows_and_stay(tmp_path):
    rows = [
        _review("u", "b", T0 + 2),
        _review("u", "a", T0 + 1, asin="V1"),
        _review("u", "a", T0 + 1, asin="V2"),  # the same product at the same moment
        _review("u", "a", T0 + 3),  # another review of it, in the same second
    ]
    reviews = _write(tmp_path / "r.jsonl.gz", rows)
    folder = prepare_amazon(_options(reviews=reviews), tmp_path / "out")
    assert (folder / "shop.inter").read_text().splitlines()[1:] == [
        "u\ta\t1588687728.924", "u\tb\t1588687728.925", "u\ta\t1588687728.926",
    ]  # fmt: skip
    report = load_dataset_card(folder).report
    assert report["dropped_rows_with_equal_user_item_and_time"] == 1
    assert report["kept_later_reviews_of_the_same_item"] == 1
    assert report["times_are_whole_days"] is False


def test_sessions_by_day(tmp_path):
    midnight = 1_588_723_200_000  # 2020-05-06
    times = [midnight - 2, midnight - 1, midnight, midnight + 1]
    rows = [_review("u", item, ms) for item, ms in zip("abcd", times, strict=True)]
    made = _options(reviews=_write(tmp_path / "r.jsonl.gz", rows), sequences=False, session_gap=0)
    folder = prepare_amazon(made, tmp_path / "out")
    sessions = read_atomic(folder / "shop.inter")["session_id"].tolist()
    assert sessions == ["u_1", "u_1", "u_2", "u_2"]


def test_the_table_of_ratings_gives_what_the_reviews_give(tmp_path):
    pairs = [("u", "a"), ("u", "b"), ("v", "b"), ("v", "a")]
    reviews = [_review(user, item, T0 + n) for n, (user, item) in enumerate(pairs)]
    ratings = [f"{user},{item},5.0,{T0 + n}" for n, (user, item) in enumerate(pairs)]
    ratings[2:2] = ["u,b,5.0", "u,b,5.0,soon"]
    one = _options(reviews=_write(tmp_path / "r.jsonl.gz", reviews))
    other = _options(reviews=_write(tmp_path / "r.csv.gz", [HEADER, *ratings]))
    want = (prepare_amazon(one, tmp_path / "one") / "shop.inter").read_bytes()
    folder = prepare_amazon(other, tmp_path / "two", block_bytes=64)
    assert (folder / "shop.inter").read_bytes() == want
    assert load_dataset_card(folder).report["reviews"]["left_out"] == {
        lines.HEADER: {"count": 1, "first_at": [1]},
        lines.NOT_RATINGS: {"count": 2, "first_at": [4, 5]},
    }


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("r.csv.gz", ["user_id,rating,parent_asin,timestamp", f"u,5,a,{T0}"], "header user_id,"),
        ("r.jsonl.gz", ['{"reviewerID": "u", "asin": "a", "unixReviewTime": 1}'], "parent_asin"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, name, rows, said):
    made = _options(reviews=_write(tmp_path / name, rows))
    with pytest.raises(DataError, match=f"none of the first .* can be read.*{said}.*--year"):
        prepare_amazon(made, tmp_path / "out")
    assert not (tmp_path / "out" / "shop").exists()


def test_the_preset_from_published_files_to_a_split(tmp_path, capsys):
    raw, out = tmp_path / "raw" / "2023", tmp_path / "out"
    users, items = [f"U{n}" for n in range(6)], [f"B0{n}" for n in range(6)]
    rows = [_review(u, i, T0 + 10 * n) for u in users for n, i in enumerate(items)]
    rows += [_review("U9", "B00", T0), _review("U0", "B01", T0 + 10**9), "{broken"]
    metas = [_meta(item) for item in [*items, "B09"]]
    argv = ["prepare", "amazon", "--preset=Games2023", f"--raw={raw.parent}", f"--out={out}"]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith(
        "error: missing raw file(s): Video_Games.jsonl"
    )
    assert "https://amazon-reviews-2023.github.io/" in said
    _write(raw / "Video_Games.jsonl.gz", rows)
    _write(raw / "meta_Video_Games.jsonl.gz", [json.dumps(meta) for meta in metas])
    assert main(argv) == 0
    dataset = load_dataset("SASRecF", "Amazon_Games2023", (), {"data_path": str(out)})
    assert dataset.config["split_by"] == "leave_one_out"
    assert (dataset.item_num - 1, dataset.user_num - 1) == (6, 6)
    report = load_dataset_card(out / "Amazon_Games2023").report
    assert report["dropped_later_reviews_of_the_same_item"] == 1
    assert report["dropped_users_outside_the_core"] == 1
    assert report["interactions"] == 36
    table = read_atomic(out / "Amazon_Games2023" / "Amazon_Games2023.item")
    assert table["item_id"].tolist() == items
    assert set(table["image_url"]) == {"https://images.example/front.jpg"}
