"""The ``prepare`` command: options, and the way to the source."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import NoReturn

from recbole_mm.errors import ConfigError

SOURCES = ("ml-100k", "synthetic", "tabular", "amazon", "amazon-m2", "microlens")
DEFAULT_OUT = "./atomic_data"
# Options that only some sources know.
_ONLY_FOR = {
    "gap_minutes": ("ml-100k", "tabular", "microlens"),
    "seed": ("synthetic", "amazon-m2"),
    "dataset": ("tabular", "amazon"),
    "inter": ("tabular",),
    "session_col": ("tabular",),
    "user_col": ("tabular",),
    "item_col": ("tabular",),
    "time_col": ("tabular",),
    "items": ("tabular",),
    "items_item_col": ("tabular",),
    "text_cols": ("tabular", "amazon"),
    "price_col": ("tabular",),
    "image_col": ("tabular",),
    "event_col": ("tabular",),
    "keep": ("tabular",),
    "min_session": ("tabular", "amazon", "microlens"),
    "min_item": ("tabular", "amazon", "microlens"),
    "timestamps": ("tabular",),
    "source_note": ("tabular",),
    "licence": ("tabular",),
    "raw": ("amazon", "amazon-m2", "microlens"),
    "preset": ("amazon", "microlens"),
    **dict.fromkeys(("year", "reviews", "meta", "cache"), ("amazon",)),
    **dict.fromkeys(("sequences", "session_gap", "repeats", "require", "core"), ("amazon",)),
    **dict.fromkeys(("locales", "phase", "valid_share"), ("amazon-m2",)),
}
# What to type after a source; {0} is the data set, {1} the folder.
_NEXT = {
    "amazon": "recbole-mm encode --dataset={0} --data_path={1}",
    "amazon-m2": "recbole-mm encode --dataset={0} --data_path={1} --recipe=alterrec",
    "microlens": "recbole-mm encode --dataset={0} --data_path={1}",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"prepare: {message}. See recbole-mm prepare --help.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the source and all options of ``prepare`` to ``parser``.

    Importing this module loads neither pandas nor torch, so ``--help`` stays fast.
    """
    add = parser.add_argument
    add("source", choices=SOURCES, help="where the interactions come from")
    add(
        "--out",
        "--data_path",
        dest="out",
        metavar="FOLDER",
        help=f"folder that gets one folder per data set (default {DEFAULT_OUT})",
    )
    add(
        "--force",
        nargs="?",
        const=True,
        default=False,
        type=_truth,
        metavar="true|false",
        help="overwrite existing files",
    )
    add(
        "--gap_minutes",
        type=float,
        help="ml-100k, tabular with --user_col: a longer pause opens a new session (default 10, "
        "tabular 30); microlens: cut users so (default: one sequence per user)",
    )
    add(
        "--seed",
        type=int,
        help="synthetic: seed of items and sessions; amazon-m2: seed of the validation part "
        "(default 2020)",
    )
    _add_table_arguments(parser)
    _add_amazon_arguments(parser)


def _add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``prepare tabular``."""
    add = parser.add_argument_group(
        "tabular", "Columns that are not named are guessed by their names; none: there is none."
    ).add_argument
    add("--dataset", metavar="NAME", help="name of the data set, also of its folder")
    add(
        "--inter", metavar="FILE", help="interactions: CSV, tab-separated, JSON lines, Parquet, .gz"
    )
    add("--session_col", metavar="COLUMN", help="column of the session id")
    add("--user_col", metavar="COLUMN", help="instead: user column; needs --time_col")
    add("--item_col", metavar="COLUMN", help="column of the item id")
    add("--time_col", metavar="COLUMN", help="column of the time; none: file order counts")
    add("--event_col", metavar="COLUMN", help="column of the kind of event; needs --keep")
    add("--keep", metavar="A,B", help="kinds of events that count, such as purchase")
    add("--timestamps", choices=("real", "positional"), help="default: told from the numbers")
    add("--items", metavar="FILE", help="item table, in any of these forms")
    add("--items_item_col", metavar="COLUMN", help="its id column (default: --item_col)")
    add("--text_cols", metavar="A,B", help="its text columns, in order")
    add("--price_col", metavar="COLUMN", help="its price column")
    add("--image_col", metavar="COLUMN", help="its column with a picture's path or address")
    add("--min_session", type=int, help="fewest rows of a session (default 2)")
    add("--min_item", type=int, help="fewest rows of an item (default 1)")
    add("--source_note", metavar="TEXT", help="where the data come from, for dataset.json")
    add("--licence", metavar="TEXT", help="their licence, for dataset.json")


def _add_amazon_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``prepare amazon``, ``amazon-m2`` and ``microlens``.

    --dataset, --text_cols, --min_session, --min_item and --gap_minutes stand above.
    """
    add = parser.add_argument_group("amazon, amazon-m2, microlens").add_argument
    add(
        "--raw",
        metavar="FOLDER",
        help="raw files (default ./amazon_raw, ./amazon_m2_raw, ./microlens_raw)",
    )
    add(
        "--preset",
        metavar="NAME",
        help="amazon: Cellphones, Grocery, Sports, Scientific, Pantry, Instruments, Arts, Office, "
        "Baby, Sports2014, Clothing, Scientific2023, Instruments2023, Games2023, Baby2023; "
        "microlens: 50k (default), 100k, 1M",
    )
    add(
        "--year",
        type=int,
        metavar="2014|2018|2023",
        help="release of your own files (default 2018)",
    )
    add(
        "--reviews",
        metavar="FILE",
        help="reviews, JSON lines, packed or not; of 2023 also ratings, CSV",
    )
    add("--meta", metavar="FILE", help="metadata of the items")
    add("--cache", metavar="FOLDER", help="what was read already (default <out>/.amazon_cache)")
    add(
        "--sequences",
        nargs="?",
        const=True,
        type=_truth,
        metavar="true|false",
        help="one sequence per user",
    )
    add("--session_gap", type=int, metavar="DAYS", help="or sessions: longest pause; 0: one day")
    add("--repeats", metavar="keep|first", help="a user's later reviews of an item (default keep)")
    add("--require", metavar="A,B", help="columns an item must have, or row for any metadata")
    add("--core", type=int, help="fewest reviews of a user and of an item (default 5)")
    add("--locales", metavar="ES,FR", help="amazon-m2: shops (default ES,FR,IT; also DE, JP, UK)")
    add("--phase", type=int, metavar="1|2", help="amazon-m2: test sessions of which phase (2)")
    add("--valid_share", type=float, help="amazon-m2: share drawn for validation (default 0.1)")


def prepare_command(args: argparse.Namespace) -> int:
    """Prepare a data set as the command line says, print where it stands, and return 0.

    Parameters
    ----------
    args
        What a parser with :func:`add_arguments` returned. A mapping ``args.options`` of further
        ``{key: value}`` is read too.

    Raises
    ------
    ConfigError
        If an option is unknown, of the wrong type, or not one of the chosen source.
    DataError
        If the input is bad, or files exist and ``--force`` is not given.
    """
    settings = _settings(args)
    _check_source(settings)
    folders = _prepare(settings)
    from recbole_mm.data.card import load_dataset_card

    for folder in folders:
        card = load_dataset_card(folder)
        print(f"{card.name} written to {folder}")
        for key, value in card.report.items():
            print(f"  {key}: {value}")
        if settings.source in _NEXT:
            print("  next: " + _NEXT[settings.source].format(card.name, folder.parent))
    return 0


def _prepare(settings: argparse.Namespace) -> list[Path]:
    """Call the source and return the folders it wrote."""
    out = settings.out or DEFAULT_OUT
    more = {"out": out, "force": settings.force}
    if settings.source == "synthetic":
        from recbole_mm.prepare.synthetic.shop import SEED, prepare_synthetic

        return [prepare_synthetic(seed=SEED if settings.seed is None else settings.seed, **more)]
    if settings.source == "ml-100k":
        from recbole_mm.prepare.movielens import GAP_MINUTES, prepare_movielens

        gap = GAP_MINUTES if settings.gap_minutes is None else settings.gap_minutes
        return [prepare_movielens(gap_minutes=gap, **more)]
    if settings.source == "amazon":
        from recbole_mm.prepare.amazon.presets import AmazonOptions
        from recbole_mm.prepare.amazon.reviews import prepare_amazon

        return [prepare_amazon(AmazonOptions.from_settings(vars(settings)), **more)]
    if settings.source == "amazon-m2":
        from recbole_mm.prepare.amazon_m2.cup import M2Options, prepare_amazon_m2

        return prepare_amazon_m2(M2Options.from_settings(vars(settings)), **more)
    if settings.source == "microlens":
        from recbole_mm.prepare.microlens import MicroLensOptions, prepare_microlens

        return [prepare_microlens(MicroLensOptions.from_settings(vars(settings)), **more)]
    from recbole_mm.prepare.tabular.job import prepare_tabular
    from recbole_mm.prepare.tabular.options import TableOptions

    return [prepare_tabular(TableOptions.from_settings(vars(settings)), **more)]


def _settings(args: argparse.Namespace) -> argparse.Namespace:
    """Merge what the caller's parser read with ``args.options`` over the defaults."""
    parser = _Parser(prog="recbole-mm prepare", add_help=False, allow_abbrev=False)
    add_arguments(parser)
    options = dict(getattr(args, "options", None) or {})
    known = vars(parser.parse_args([args.source])).keys() | {"data_path"}
    for key in options:
        if key not in known - {"source"}:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean --{close[0]}?" if close else "See recbole-mm prepare --help."
            raise ConfigError(f"prepare: unknown option --{key}. {hint}")
    settings = parser.parse_args([args.source, *(f"--{k}={v}" for k, v in options.items())])
    for key, value in vars(args).items():
        name = "out" if key == "data_path" else key
        if name in vars(settings) and value is not None and value is not False:  # 0 is a value
            setattr(settings, name, value)
    return settings


def _check_source(settings: argparse.Namespace) -> None:
    """Refuse options that the chosen source would ignore."""
    for key, sources in _ONLY_FOR.items():
        if getattr(settings, key) is not None and settings.source not in sources:
            raise ConfigError(
                f"prepare {settings.source}: --{key} has no effect here, it belongs to "
                f"{' and '.join(sources)}. Leave it out."
            )
    if settings.gap_minutes is not None and not 0 < settings.gap_minutes < float("inf"):
        raise ConfigError(f"--gap_minutes is {settings.gap_minutes}, expected a positive number.")
    if settings.seed is not None and settings.seed < 0:
        raise ConfigError(f"--seed is {settings.seed}, expected 0 or a positive whole number.")


def _truth(text: str) -> bool:
    """Read true or false."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
