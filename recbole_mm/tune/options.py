"""Options of ``tune``, ``sweep`` and ``paper``; light, so that ``--help`` answers at once."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from recbole_mm import options


def _option(parser: ArgumentParser, name: str, help_: str, **more: Any) -> None:
    """Add an option that may be given once."""
    parser.add_argument(f"--{name}", help=help_, **{"action": options.Once, **more})


def _words(
    parser: ArgumentParser,
    name: str,
    help_: str,
    split: Callable[[str], list] = options.words,
    **more: Any,
) -> None:
    """Add an option of several words."""
    parser.add_argument(
        f"--{name}", help=help_, action=options.Flat, nargs="+", type=split, default=[],
        metavar="WORD", **more,
    )  # fmt: skip


def _common(parser: ArgumentParser) -> None:
    """Add what says on which data, and with which settings beside those that are tried."""
    _option(parser, "dataset", "data set, such as Cellphones or ml-100k")
    _words(parser, "config_files", "YAML files, later ones win", options.files)
    _words(parser, "plugins", "Python modules that register models", options.comma_words)


def add_tune_options(parser: ArgumentParser) -> None:
    """Add the options of ``tune``."""
    _words(parser, "models", 'models and variants: "SRIM SRIM:preset=hybrid SASRec"')
    _common(parser)
    _option(
        parser, "trials", "trials of each model (default 20)", type=options.whole_above_0,
        default=20,
    )  # fmt: skip
    _option(parser, "seconds", "seconds of each model, over its trials", type=options.above_0)
    _option(parser, "space", "folder of search spaces of your own, <Model>.yaml", metavar="FOLDER")
    _option(parser, "output", "folder of studies, table and best settings", metavar="FOLDER")


def add_sweep_options(parser: ArgumentParser) -> None:
    """Add the options of ``sweep``."""
    _option(parser, "model", "model, such as SRIM")
    _option(parser, "key", "key that is swept, such as n_layers")
    _words(parser, "values", 'its values: "0 1 2 3 4"')
    _option(parser, "key2", "a second key: every pair of values, and a heat map", metavar="KEY")
    _words(parser, "values2", "values of the second key")
    _common(parser)
    _words(parser, "seeds", 'seeds, such as "0 1 2"', options.numbers)
    _option(parser, "output", "folder of the runs and tables", metavar="FOLDER")
    _option(parser, "jobs", "runs side by side (default 1)", type=int, default=1)
    parser.add_argument(
        "--table_only", action="store_true", help="write the tables again, without running anything"
    )


def add_paper_options(parser: ArgumentParser) -> None:
    """Add the options of ``paper``."""
    _option(parser, "name", "srim, alterrec, mmsbr, mdsrec or unisrec", required=True)
    _option(parser, "study", "table or figure of it; --list names them (default: the first)")
    _option(parser, "data_path", "folder that holds one folder per data set", metavar="FOLDER")
    _words(parser, "datasets", "other data sets than the paper's", options.comma_words)
    _words(parser, "config_files", "YAML files, later ones win", options.files)
    _words(parser, "plugins", "Python modules that register models", options.comma_words)
    _words(parser, "seeds", 'seeds, such as "0 1 2"', options.numbers)
    _option(parser, "output", "folder of the runs and tables", metavar="FOLDER")
    _option(parser, "jobs", "runs side by side (default 1)", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="list studies and data sets, and stop")


COMMANDS = {
    "tune": options.Command(
        "Search the best settings of several models under one budget.",
        add_tune_options,
        "recbole_mm.tune.search:tune_command",
    ),
    "sweep": options.Command(
        "Run one model with every value of a key, or of two.",
        add_sweep_options,
        "recbole_mm.tune.sweep:sweep_command",
    ),
    "paper": options.Command(
        "Make a table or figure of a paper, in its layout.",
        add_paper_options,
        "recbole_mm.tune.paper:paper_command",
    ),
}
