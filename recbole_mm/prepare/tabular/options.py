"""What stands where in the tables of ``prepare tabular``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recbole_mm.errors import ConfigError
from recbole_mm.prepare.settings import A_DATASET_NAME, DATASET_NAME, given_options


@dataclass(frozen=True)
class TableOptions:
    """What stands where in the tables; the command line's options carry the same names."""

    dataset: str
    inter: str
    session_col: str | None = None
    user_col: str | None = None
    item_col: str = "item_id"
    time_col: str | None = None
    timestamps: str | None = None
    gap_minutes: float | None = None
    items: str | None = None
    items_item_col: str | None = None
    text_cols: tuple[str, ...] = ()
    price_col: str | None = None
    min_session: int = 2
    min_item: int = 1
    source_note: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if not DATASET_NAME.fullmatch(self.dataset):
            raise ConfigError(f"--dataset is {self.dataset!r}, expected {A_DATASET_NAME}.")
        if (self.session_col is None) == (self.user_col is None):
            raise ConfigError(
                "prepare tabular: give either --session_col=<column> or --user_col=<column> (with "
                "--time_col and --gap_minutes, to cut users into sessions)."
            )
        if self.user_col and not self.time_col:
            raise ConfigError("--user_col needs --time_col: sessions are cut at pauses.")
        if self.gap_minutes is not None and not self.user_col:
            raise ConfigError("--gap_minutes has no effect without --user_col. Leave it out.")
        if self.timestamps and not self.time_col:
            raise ConfigError("--timestamps has no effect without --time_col. Leave it out.")
        if not self.items and (self.text_cols or self.price_col or self.items_item_col):
            raise ConfigError("--text_cols, --price_col and --items_item_col need --items=<file>.")
        if self.min_session < 2 or self.min_item < 1:
            raise ConfigError(
                f"--min_session is {self.min_session} (expected 2 or more, for a target) "
                f"and --min_item is {self.min_item} (expected 1 or more)."
            )

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> TableOptions:
        """Build options from parsed command-line values, where None means the default.

        Raises
        ------
        ConfigError
            If an option is missing or contradicts another one.
        """
        for key in ("dataset", "inter"):
            if settings.get(key) is None:
                raise ConfigError(f"prepare tabular: --{key} is missing.")
        return cls(**given_options(cls, settings, lists=("text_cols",)))
