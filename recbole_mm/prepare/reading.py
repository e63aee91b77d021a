"""What the readers of published dumps share: counts of what was left out, clean texts, a bar."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

_FIRST_SHOWN = 5
_BLANK = re.compile(r"\s+")


@dataclass
class Tally:
    """Lines that were left out: by reason their number and the first few line numbers."""

    lines: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[int]] = field(default_factory=dict)

    def add(self, reason: str, numbers: Iterable[int]) -> None:
        """Count lines of the file; their numbers start at 1."""
        numbers = list(numbers)
        if numbers:
            self.lines[reason] = self.lines.get(reason, 0) + len(numbers)
            self.first[reason] = [*self.first.get(reason, []), *numbers][:_FIRST_SHOWN]

    def merge(self, other: Tally) -> None:
        """Add the counts of a later part."""
        for reason, number in other.lines.items():
            self.lines[reason] = self.lines.get(reason, 0) + number
            self.first[reason] = [*self.first.get(reason, []), *other.first[reason]][:_FIRST_SHOWN]

    def plain(self) -> dict[str, object]:
        """Return what ``dataset.json`` says."""
        return {
            reason: {"count": number, "first_at": self.first[reason]}
            for reason, number in sorted(self.lines.items())
        }


def clean(text: str) -> str:
    """Return a text with HTML entities resolved and white space collapsed."""
    return _BLANK.sub(" ", html.unescape(text)).strip()


def byte_bar(path: Path) -> tqdm:
    """Return a progress bar over the bytes of a file."""
    return tqdm(
        total=path.stat().st_size, desc=path.name, unit="B", unit_scale=True,
        disable=None, file=sys.stderr,
    )  # fmt: skip
