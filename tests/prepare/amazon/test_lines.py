from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_mm.prepare.amazon import lines

GOOD = '{"overall": 5.0, "reviewerID": "A1", "asin": "B1", "reviewText": "x", "unixReviewTime": %d}'
DAY = 1_400_025_600
META_2018 = {
    "category": ["Cell Phones &amp; Accessories", "Cases, Holsters", "Basic Cases"],
    "tech1": "",
    "description": ["Fits\n  the   phone &quot;X&quot;.", "", "Second part"],
    "title": "Case &amp; Strap",
    "also_buy": ["B000002"],
    "brand": "  Norvik ",
    "feature": ["a"],
    "price": "$12.99",
    "asin": "B1",
    "imageURL": ["https://images.example/small.jpg"],
    "imageURLHighRes": ["https://images.example/large.jpg"],
    "details": {"ASIN: ": "B1"},
}
META_2014 = (
    "{'asin': 'B1', 'description': \"It's 5\\\" long\\nand light\", 'price': 5.35, "
    "'brand': 'Kiwi', "
    "'imUrl': 'http://ecx.images-amazon.com/images/I/41.jpg', 'salesRank': {'Home': 8}, "
    "'related': {'also_viewed': ['B003']}, 'title': 'Pr45&quot; Wht Lace', "
    "'categories': [['Clothing, Shoes & Jewelry', 'Shoe Care', 'Shoelaces'], "
    "['Clothing, Shoes & Jewelry', 'Men']]}"
)


def _reviews(*rows: str, first: int = 1, end: str = "\n"):
    frame, tally = lines.ReviewReader().read(("\n".join(rows) + end).encode(), first)
    return frame.rows(), tally.lines, tally.first


def _item(line: str | bytes, year: int = 2018, wanted: tuple[str, ...] = ("B1",)):
    raw = line if isinstance(line, bytes) else line.encode()
    frame, tally = lines.ItemReader(year, wanted).read(raw + b"\n", 1)
    return frame.rows(), tally.lines


def test_good_reviews_in_file_order():
    rows, left_out, _ = _reviews(GOOD % DAY, (GOOD % 1_500_000_000).replace("A1", "A2"), first=7)
    assert rows == [("A1", "B1", DAY, 7), ("A2", "B1", 1_500_000_000, 8)]
    assert left_out == {}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('{"reviewerID": "A2", "asin": "B1", "unixRev', lines.NOT_RECORDS),
        ("", lines.NOT_RECORDS),
        ("[1, 2]", lines.NOT_RECORDS),
        ("null", lines.NOT_RECORDS),
        ("{'reviewerID': 'A2', 'asin': 'B1', 'unixReviewTime': 1400025600}", lines.NOT_RECORDS),
        (GOOD.replace("%d", '"1400025600"'), lines.NOT_RECORDS),
        (GOOD.replace("%d", "1.5"), lines.NOT_RECORDS),
        (GOOD % DAY + GOOD % DAY, lines.NOT_RECORDS),
        ('{"asin": "B1", "unixReviewTime": 1400025600}', lines.INCOMPLETE),
        ("{}", lines.INCOMPLETE),
        (GOOD.replace("%d", "null"), lines.INCOMPLETE),
        ((GOOD % DAY).replace('"A1"', '"A\\t1"'), lines.ODD_IDS),
        ((GOOD % DAY).replace('"B1"', '["B1"]'), lines.ODD_IDS),
        ((GOOD % DAY).replace('"B1"', '""'), lines.ODD_IDS),
        (GOOD % 0, lines.NO_TIME),
        (GOOD % (DAY * 1000), lines.NO_TIME),
    ],
)
def test_broken_reviews_are_left_out_by_line(bad, reason):
    rows, left_out, first = _reviews(GOOD % DAY, bad, GOOD % (DAY + 86400), first=11)
    assert rows == [("A1", "B1", DAY, 11), ("A1", "B1", DAY + 86400, 13)]
    assert (left_out, first) == ({reason: 1}, {reason: [12]})


def test_bytes_that_are_not_utf_8_break_their_line_only():
    block = (GOOD % DAY).encode() + b"\n" + (GOOD % DAY).encode().replace(b'"x"', b'"\xff"')
    frame, tally = lines.ReviewReader().read(block, 1)
    assert frame["line"].to_list() == [1] and tally.first == {lines.NOT_RECORDS: [2]}


@given(st.lists(st.sampled_from(["good", "cut", "", "[]", "{}", "late"]), min_size=1, max_size=40))
def test_halving_finds_the_same_as_one_line_at_a_time(kinds):
    texts = {"good": GOOD % DAY, "cut": (GOOD % DAY)[:30], "late": GOOD % (DAY * 1000)}
    rows = [texts.get(kind, kind) for kind in kinds]
    got, left_out, _ = _reviews(*rows)
    alone = [lines.ReviewReader().read((row + "\n").encode(), n + 1) for n, row in enumerate(rows)]
    assert got == [row for frame, _ in alone for row in frame.rows()]
    assert sum(left_out.values()) == len(rows) - len(got) == kinds.count("good") * -1 + len(kinds)


def test_an_item_of_2018():
    (row,), left_out = _item(json.dumps(META_2018))
    assert row == (
        "B1",
        "Case & Strap",
        "Norvik",
        "Cell_Phones_&_Accessories Cases,_Holsters Basic_Cases",
        "Basic_Cases",
        'Fits the phone "X". Second part',
        "$12.99",
        "https://images.example/large.jpg",
        1,
    )
    assert left_out == {}


def test_an_item_of_2014_is_parsed_as_data():
    (row,), _ = _item(META_2014, 2014)
    assert row == (
        "B1",
        'Pr45" Wht Lace',
        "Kiwi",
        "Clothing,_Shoes_&_Jewelry Shoe_Care Shoelaces Men",
        "Shoelaces",
        "It's 5\" long and light",
        "5.35",
        "http://ecx.images-amazon.com/images/I/41.jpg",
        1,
    )
    assert _item(json.dumps(META_2018), 2014)[0][0][1] == "Case & Strap"


def test_a_literal_that_calls_something_is_not_run(tmp_path):
    victim = tmp_path / "made"
    line = f"{{'asin': 'B1', 'title': open('{victim}', 'w')}}"
    assert _item(line, 2014) == ([], {lines.NOT_RECORDS: 1})
    assert not victim.exists()


@pytest.mark.parametrize(
    ("year", "line", "reason"),
    [
        (2018, META_2014, lines.NOT_RECORDS),  # a file of the other release
        (2018, '{"asin": "B1", "title": "x', lines.NOT_RECORDS),
        (2014, "{'asin': 'B1', 'title': 'x", lines.NOT_RECORDS),
        (2014, "{'asin': 'B1', 'related': " + "[" * 5000 + "}", lines.NOT_RECORDS),
        (2018, '["asin"]', lines.NOT_RECORDS),
        (2018, "", lines.NOT_RECORDS),
        (2018, b'{"asin": "B1", "title": "\xff"}', lines.NOT_RECORDS),
        (2018, '{"title": "x"}', lines.NO_ITEM),
        (2018, '{"asin": 7}', lines.NO_ITEM),
        (2018, '{"asin": "B2", "title": "x"}', lines.NOT_REVIEWED),
        (2018, '{"asin": "B2", broken but nobody wants it', lines.NOT_REVIEWED),
        (2018, '{"asin": "B\\u0031x"}', lines.NOT_REVIEWED),
    ],
)
def test_item_lines_that_are_left_out(year, line, reason):
    assert _item(line, year) == ([], {reason: 1})


def test_an_asin_inside_a_text_does_not_hide_the_item():
    line = """{"title": "he said 'asin': 'B2'", "asin": "B1"}"""
    assert _item(line)[0][0][:2] == ("B1", "he said 'asin': 'B2'")


@pytest.mark.parametrize(
    ("changes", "column", "value"),
    [
        ({"title": "var aPageStart = (new Date()).getTime();"}, 1, ""),
        ({"title": None}, 1, ""),
        ({"title": ["Two", " parts"]}, 1, "Two parts"),
        ({"brand": {"x": 1}}, 2, ""),
        ({"category": []}, 3, ""),
        ({"category": "Phones"}, 4, ""),
        ({"category": [], "categories": [["A b", "C"], []]}, 3, "A_b C"),
        ({"category": ["", "A"]}, 4, "A"),
        ({"description": "one text"}, 5, "one text"),
        ({"price": 3.17}, 6, "3.17"),
        ({"price": ""}, 6, ""),
        ({"imageURLHighRes": []}, 7, "https://images.example/small.jpg"),
        ({"imageURLHighRes": [], "imageURL": "http://x/a b.jpg"}, 7, "http://x/ab.jpg"),
        ({"imageURLHighRes": None, "imageURL": ["http://g/no-img-sm.gif"]}, 7, ""),
    ],
)
def test_odd_values_of_an_item(changes, column, value):
    assert lines.item_cells({**META_2018, **changes})[column] == value
