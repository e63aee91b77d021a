"""Times as people say them."""

from recbole_mm.times import span, time_left


def test_the_unit_suits_the_time():
    found = [span(seconds) for seconds in (0.4, 99, 100, 5999, 6000, 90000)]
    assert found == ["0 s", "99 s", "2 min", "100 min", "1.7 h", "25.0 h"]
    assert time_left(180) == "about 3 min left"
