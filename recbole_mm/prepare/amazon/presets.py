"""The Amazon review data sets of the papers: which raw files, and what is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from recbole_mm.errors import ConfigError, DataError
from recbole_mm.prepare.amazon.published import PAGES, address
from recbole_mm.prepare.settings import A_DATASET_NAME, DATASET_NAME, given_options

TEXTS = ("title", "brand", "categories", "description")
REQUIRABLE = ("row", *TEXTS, "price", "image_url")
DEFAULT_RAW = "./amazon_raw"


@dataclass(frozen=True)
class AmazonOptions:
    """What is read and what is done with it; the command line's options carry the same names.

    Attributes
    ----------
    dataset
        Name of the data set.
    year
        Release: 2014, 2018 or 2023.
    reviews, meta
        The two raw files, or their published names; an empty ``meta`` makes no ``.item``.
    raw
        Folder in which published names are looked for.
    cache
        Folder of what was read already; default: ``.amazon_cache`` beside the data sets.
    sequences
        One session per user.
    session_gap
        Else: most days (UTC) between two reviews of a session; 0: the reviews of one day.
    repeats
        ``first`` keeps only a user's first review of an item, ``keep`` all.
    require
        Columns that an item must have, ``row`` for any metadata at all.
    core
        Fewest reviews of a user and of an item, before users are cut into sessions.
    min_session, min_item
        Fewest rows of a session and of an item, afterwards.
    text_cols
        Columns that make an item's text.
    """

    dataset: str = ""
    year: int = 2018
    reviews: str = ""
    meta: str = ""
    raw: str = DEFAULT_RAW
    cache: str = ""
    sequences: bool = False
    session_gap: int | None = None
    repeats: str = "keep"
    require: tuple[str, ...] = ()
    core: int = 5
    min_session: int = 2
    min_item: int = 1
    text_cols: tuple[str, ...] = TEXTS

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> AmazonOptions:
        """Build options from parsed command-line values, where None means the preset's or default.

        Raises
        ------
        ConfigError
            If an option is missing, unknown or contradicts another one.
        """
        given = given_options(cls, settings, lists=("require", "text_cols"))
        base = _preset(settings.get("preset"))
        if given.get("sequences"):
            base = replace(base, session_gap=None)
        elif "session_gap" in given and "sequences" not in given:
            base = replace(base, sequences=False)
        return replace(base, **given).checked()

    def checked(self) -> AmazonOptions:
        """Return the options if they fit each other.

        Raises
        ------
        ConfigError
            Naming the option that is wrong.
        """
        wrong = next((text for bad, text in self._rules() if bad), None)
        if wrong:
            raise ConfigError(f"prepare amazon: {wrong}")
        return self

    def _rules(self) -> list[tuple[bool, str]]:
        """Return what must not be, and what is said then."""
        gap = self.session_gap
        unknown = [name for name in self.require if name not in REQUIRABLE]
        strange = [name for name in self.text_cols if name not in TEXTS]
        return [
            (not self.reviews, "give --preset=<name>, or --reviews=<file> and --dataset=<name>."),
            (
                not DATASET_NAME.fullmatch(self.dataset),
                f"--dataset is {self.dataset!r}, expected {A_DATASET_NAME}.",
            ),
            (self.year not in PAGES, f"--year is {self.year}, expected 2014, 2018 or 2023."),
            (
                self.sequences == (gap is not None),
                "give either --sequences=true (one sequence per user) or --session_gap=<days>.",
            ),
            (
                gap is not None and gap < 0,
                f"--session_gap is {gap}, expected 0 or more days.",
            ),
            (
                self.repeats not in ("keep", "first"),
                f"--repeats is {self.repeats}, expected keep or first.",
            ),
            (
                self.core < 1 or self.min_item < 1 or self.min_session < 2,
                f"--core is {self.core}, --min_item {self.min_item} (expected 1 or more) and "
                f"--min_session {self.min_session} (expected 2 or more).",
            ),
            (
                bool(unknown),
                f"--require names {', '.join(unknown)}, expected some of {', '.join(REQUIRABLE)}.",
            ),
            (
                bool(strange),
                f"--text_cols names {', '.join(strange)}, expected some of {', '.join(TEXTS)}.",
            ),
            (bool(self.require) and not self.meta, "--require needs --meta=<file>."),
        ]

    def files(self) -> tuple[Path, Path | None]:
        """Return the paths of the two raw files.

        Raises
        ------
        DataError
            Naming the missing ones, where they are published, and the command to type then.
        """
        wanted = {"reviews": self.reviews, "meta": self.meta}
        found = {key: self._find(name) for key, name in wanted.items() if name}
        missing = [wanted[key] for key, path in found.items() if path is None]
        if missing:
            raise DataError(self._how_to_get(missing))
        reviews = found["reviews"]
        return Path(str(reviews)), found.get("meta")

    def _find(self, name: str) -> Path | None:
        """Return where a raw file is: as named, or in the raw folder, packed or not."""
        folders = (Path(self.raw) / str(self.year), Path(self.raw), Path())
        for path in (folder / name for folder in folders):
            for candidate in (path, path.with_name(path.name.removesuffix(".gz"))):
                if candidate.is_file():
                    return candidate
        return None

    def _how_to_get(self, missing: list[str]) -> str:
        """Say which files are missing and where they come from."""
        place = Path(self.raw) / str(self.year)
        preset = next((k for k, v in PRESETS.items() if v.reviews == self.reviews), None)
        if preset is None:
            return (
                f"no such file: {', '.join(missing)}, nor is it in {place}. Give its path. Reviews "
                f"and metadata of {self.year} are published at {PAGES[self.year]}"
            )
        addresses = (address(self.year, name) for name in missing)
        return (
            f"missing raw file(s): {', '.join(missing)}. Put them, packed or not, into the folder "
            f"{place}. They are published at {' and '.join(addresses)} (page of the "
            f"release: {PAGES[self.year]}). Then type: recbole-mm prepare amazon "
            f"--preset={preset} --raw={self.raw}"
        )


def _sessions(name: str, category: str) -> AmazonOptions:
    """Return a data set of SRIM and MMSBR: a session is a user's day, items have all attributes."""
    return AmazonOptions(
        dataset=f"Amazon_{name}",
        reviews=f"{category}_5.json.gz",
        meta=f"meta_{category}.json.gz",
        session_gap=0,
        require=("title", "categories", "price", "image_url"),
        core=1,  # The published file is the 5-core of the release already.
        min_item=5,
        text_cols=("title", "brand", "categories"),
    )


def _sequences(name: str, category: str) -> AmazonOptions:
    """Return a data set of UniSRec, MISSRec and MDSRec: all reviews of 2018, then the core."""
    return AmazonOptions(
        dataset=f"Amazon_{name}",
        reviews=f"{category}.json.gz",
        meta=f"meta_{category}.json.gz",
        sequences=True,
        repeats="first",
        require=("row",),
        text_cols=("title", "categories", "brand"),
    )


def _sequences_2014(name: str, category: str) -> AmazonOptions:
    """Return a data set of MMRec and MDSRec: the 5-core of 2014."""
    return AmazonOptions(
        dataset=f"Amazon_{name}",
        year=2014,
        reviews=f"reviews_{category}_5.json.gz",
        meta=f"meta_{category}.json.gz",
        sequences=True,
        repeats="first",
    )


def _sequences_2023(name: str, category: str) -> AmazonOptions:
    """Return a data set of 2023: all reviews, then the core, as the rules of 2018."""
    return AmazonOptions(
        dataset=f"Amazon_{name}",
        year=2023,
        reviews=f"{category}.jsonl.gz",
        meta=f"meta_{category}.jsonl.gz",
        sequences=True,
        repeats="first",
        require=("row",),
    )


PRESETS: dict[str, AmazonOptions] = {
    "Cellphones": _sessions("Cellphones", "Cell_Phones_and_Accessories"),
    "Grocery": _sessions("Grocery", "Grocery_and_Gourmet_Food"),
    "Sports": _sessions("Sports", "Sports_and_Outdoors"),
    "Scientific": _sequences("Scientific", "Industrial_and_Scientific"),
    "Pantry": _sequences("Pantry", "Prime_Pantry"),
    "Instruments": _sequences("Instruments", "Musical_Instruments"),
    "Arts": _sequences("Arts", "Arts_Crafts_and_Sewing"),
    "Office": _sequences("Office", "Office_Products"),
    "Baby": _sequences_2014("Baby", "Baby"),
    "Sports2014": _sequences_2014("Sports2014", "Sports_and_Outdoors"),
    "Clothing": _sequences_2014("Clothing", "Clothing_Shoes_and_Jewelry"),
    "Scientific2023": _sequences_2023("Scientific2023", "Industrial_and_Scientific"),
    "Instruments2023": _sequences_2023("Instruments2023", "Musical_Instruments"),
    "Games2023": _sequences_2023("Games2023", "Video_Games"),
    "Baby2023": _sequences_2023("Baby2023", "Baby_Products"),
}


def _preset(name: object) -> AmazonOptions:
    """Return the options of a preset, or the defaults without a name."""
    if name is None:
        return AmazonOptions()
    if name not in PRESETS:
        raise ConfigError(f"--preset is {name}, expected one of {', '.join(PRESETS)}.")
    return PRESETS[name]
