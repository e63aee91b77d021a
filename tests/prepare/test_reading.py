from __future__ import annotations

from recbole_mm.prepare.reading import Tally, clean


def test_only_the_first_lines_are_named():
    tally = Tally()
    tally.add("x", range(4))
    other = Tally()
    other.add("x", [9, 10, 11])
    other.add("y", [12])
    other.add("z", [])
    tally.merge(other)
    assert tally.plain() == {
        "x": {"count": 7, "first_at": [0, 1, 2, 3, 9]},
        "y": {"count": 1, "first_at": [12]},
    }


def test_texts_are_cleaned():
    assert clean(" Fits\n the &quot;X&quot; &amp;\tmore ") == 'Fits the "X" & more'
