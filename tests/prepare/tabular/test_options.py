"""Options of ``prepare tabular`` that contradict each other."""

from __future__ import annotations

import pytest

from recbole_mm.errors import ConfigError
from recbole_mm.prepare.tabular.options import TableOptions

GOOD = {"dataset": "shop", "inter": "i.csv", "session_col": "basket", "time_col": "when"}


def test_values_of_the_command_line():
    given = {**GOOD, "items": "g.csv", "text_cols": " name, maker,", "price_col": None, "core": 5}
    options = TableOptions.from_settings(given)
    assert options.text_cols == ("name", "maker")
    assert (options.item_col, options.price_col) == (None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "../x"}, "--dataset"),
        ({"user_col": "u"}, "either --session_col"),
        ({"session_col": None, "user_col": "u", "time_col": "none"}, "needs --time_col"),
        ({"gap_minutes": 3.0}, "no effect without --user_col"),
        ({"price_col": "cost"}, "need --items"),
        ({"image_col": "photo"}, "need --items"),
        ({"keep": ("buy",)}, "needs --event_col"),
        ({"min_session": 1}, "--min_session is 1"),
        ({"min_item": 0}, "--min_item is 0"),
        ({"time_col": "none", "timestamps": "real"}, "no effect without --time_col"),
    ],
)
def test_contradicting_options(changes, message):
    with pytest.raises(ConfigError, match=message):
        TableOptions(**{**GOOD, **changes})
