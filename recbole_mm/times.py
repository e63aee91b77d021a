"""Times as people say them."""

from __future__ import annotations


def time_left(seconds: float) -> str:
    """Return how long something will take, in words: ``about 3 min left``."""
    return f"about {span(seconds)} left"


def span(seconds: float) -> str:
    """Return a time in the unit that suits it, such as ``40 s``, ``3 min`` or ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
