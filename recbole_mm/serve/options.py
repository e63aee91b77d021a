"""Options of ``pack``, ``recommend`` and ``serve``; light, so that ``--help`` answers at once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from recbole_mm import options

# As `recbole_mm.evaluation.new_items` has them, without importing torch.
POLICIES = ("neighbours", "zero")


def _option(parser: ArgumentParser, name: str, help_: str, **more: Any) -> None:
    """Add an option that may be given once."""
    parser.add_argument(f"--{name}", help=help_, **{"action": options.Once, **more})


def _flag(parser: ArgumentParser, name: str, help_: str) -> None:
    parser.add_argument(f"--{name}", help=help_, action="store_true")


def _plugins(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--plugins", help="Python modules that register models", action=options.Flat, nargs="+",
        type=options.comma_words, default=[], metavar="WORD",
    )  # fmt: skip


def add_pack_options(parser: ArgumentParser) -> None:
    """Add the options of ``pack``."""
    _option(parser, "run", "run folder of a trained model", required=True, metavar="FOLDER")
    _option(parser, "output", "folder of the pack", required=True, metavar="FOLDER")
    _plugins(parser)


def add_serve_options(parser: ArgumentParser) -> None:
    """Add the options of ``serve``."""
    _option(parser, "pack", "folder of a pack", required=True, metavar="FOLDER")
    _option(parser, "host", "address to listen on (default 127.0.0.1)", default="127.0.0.1")
    _option(parser, "port", "port (default 8000; 0 takes a free one)", type=int, default=8000)
    _option(
        parser, "rate", "requests per second and client (default 1000; 0: any)",
        type=options.not_negative, default=1000.0,
    )  # fmt: skip
    _option(
        parser, "most_waiting", "sessions that may wait (default 4096)",
        type=options.whole_above_0, default=4096,
    )  # fmt: skip
    _option(parser, "device", "cpu or cuda", choices=("cpu", "cuda"), default="cpu")
    _plugins(parser)


def add_recommend_options(parser: ArgumentParser) -> None:
    """Add the options of ``recommend``."""
    _option(parser, "run", "run folder or pack", required=True, metavar="FOLDER")
    _option(
        parser, "sessions", "sessions as .csv, .tsv, .inter, .parquet or .jsonl; - reads stdin",
        required=True, metavar="FILE",
    )  # fmt: skip
    _option(parser, "output", ".csv, .parquet or .jsonl; none prints CSV", metavar="FILE")
    _option(parser, "topk", "items per session (default 10)", type=int, default=10)
    _flag(parser, "exclude_seen", "leave out the items of the session")
    _option(parser, "leave_out", "ids never recommended: a file with one per line, or words")
    _option(parser, "keep_to", "the only ids recommended: a file with one per line, or words")
    _flag(parser, "parts", "also say what each part of the score adds")
    _option(parser, "session_col", "column of the session (default: as in training)")
    _option(parser, "item_col", "column of the item (default: as in training)")
    _option(parser, "time_col", "column that orders a session (default: as in training, or none)")
    _option(
        parser, "new_items", "items that were not there in training: a table of their columns",
        metavar="FILE",
    )  # fmt: skip
    _option(
        parser, "new_item_ids", "what new items get in the place of what is learned by id",
        choices=POLICIES, default="neighbours",
    )  # fmt: skip
    parser.add_argument(
        "--new_vectors", help="their vectors, encoded already: text=FILE image=FILE", nargs="+",
        action=options.Flat, type=options.words, default=[], metavar="WORD",
    )  # fmt: skip
    _option(parser, "device", "cpu or cuda", choices=("cpu", "cuda"), default="cpu")
    _plugins(parser)


COMMANDS = {
    "pack": options.Command(
        "Put a trained model into a folder of its own, to be used without its data.",
        add_pack_options,
        "recbole_mm.serve.cli:pack_command",
    ),
    "recommend": options.Command(
        "Recommend items to sessions, by a run or a pack.",
        add_recommend_options,
        "recbole_mm.serve.cli:recommend_command",
    ),
    "serve": options.Command(
        "Recommend over HTTP, by a pack.",
        add_serve_options,
        "recbole_mm.serve.web.command:serve_command",
    ),
}
