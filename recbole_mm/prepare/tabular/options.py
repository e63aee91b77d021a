"""What stands where in the tables of ``prepare tabular``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recbole_mm.errors import ConfigError
from recbole_mm.prepare.settings import A_DATASET_NAME, DATASET_NAME, given_options

NONE = "none"
"""As a column's name: there is none, do not guess one."""


@dataclass(frozen=True)
class TableOptions:
    """What stands where in the tables; the command line's options carry the same names.

    Columns that are None (or an empty ``text_cols``) are guessed from the tables' column names,
    see `recbole_mm.prepare.tabular.guess.complete`.
    """

    dataset: str = ""
    inter: str = ""
    session_col: str | None = None
    user_col: str | None = None
    item_col: str | None = None
    time_col: str | None = None
    event_col: str | None = None
    keep: tuple[str, ...] = ()
    timestamps: str | None = None
    gap_minutes: float | None = None
    items: str | None = None
    items_item_col: str | None = None
    text_cols: tuple[str, ...] = ()
    price_col: str | None = None
    image_col: str | None = None
    min_session: int = 2
    min_item: int = 1
    source_note: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        wrong = next((text for bad, text in self._rules() if bad), None)
        if wrong:
            raise ConfigError(f"prepare tabular: {wrong}")

    def _rules(self) -> list[tuple[bool, str]]:
        """Return what must not be, and what is said then."""
        of_items = self.text_cols or self.price_col or self.image_col or self.items_item_col
        return [
            (
                bool(self.dataset and not DATASET_NAME.fullmatch(self.dataset)),
                f"--dataset is {self.dataset!r}, expected {A_DATASET_NAME}.",
            ),
            (
                bool(self.session_col and self.user_col),
                "give either --session_col=<column> or --user_col=<column> (with --time_col and "
                "--gap_minutes, to cut users into sessions).",
            ),
            (
                bool(self.user_col and self.time_col == NONE),
                "--user_col needs --time_col: sessions are cut at pauses.",
            ),
            (
                bool(self.gap_minutes is not None and self.session_col),
                "--gap_minutes has no effect without --user_col. Leave it out.",
            ),
            (
                bool(self.timestamps and self.time_col == NONE),
                "--timestamps has no effect without --time_col. Leave it out.",
            ),
            (
                bool(of_items) and not self.items,
                "--text_cols, --price_col, --image_col and --items_item_col need --items=<file> "
                "(the file of --inter, if all stands in one table).",
            ),
            (
                bool(self.keep) and not self.event_col,
                "--keep names kinds of events and needs --event_col=<column of the kind>.",
            ),
            (
                self.min_session < 2 or self.min_item < 1,
                f"--min_session is {self.min_session} (expected 2 or more, for a target) "
                f"and --min_item is {self.min_item} (expected 1 or more).",
            ),
        ]

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> TableOptions:
        """Build options from parsed command-line values, where None means the default.

        Raises
        ------
        ConfigError
            If an option contradicts another one.
        """
        return cls(**given_options(cls, settings, lists=("text_cols", "keep")))
