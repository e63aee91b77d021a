"""Give a kind of input to its check as often as asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.drawn import Drawn
from tests.fuzz.engine import fresh


class Escape(AssertionError):  # noqa: N818 (what a fuzzer looks for)
    """Something came out that should not."""


def draw(drawn: Drawn, good: Path, work: Path, n: int, number: int | None) -> int:
    """Draw ``n`` inputs and check each.

    Parameters
    ----------
    good
        Folder that `Drawn.make` wrote.
    work
        Folder for a copy.
    number
        Seed; None draws the same inputs each time.

    Returns
    -------
    int
        Inputs that were checked.

    Raises
    ------
    Escape
        Carries the story of the smallest input found.
    """
    fresh(good, work)
    checked: list[Any] = []
    with drawn.opened(good) as check:

        @settings(
            max_examples=n, derandomize=number is None, database=None, deadline=None,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink],
            print_blob=False,
        )  # fmt: skip
        @given(drawn.strategy(good))
        def one(value: Any) -> None:
            if story := check(good, work, value):
                raise Escape(story)
            checked.append(value)

        (one if number is None else seed(number)(one))()
    return len(checked)
