"""The commands ``pack`` and ``recommend``."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from recbole_mm import compat
from recbole_mm.errors import ConfigError
from recbole_mm.serve.new_files import read_new_items, read_new_vectors
from recbole_mm.serve.reading import Asked, Columns, read_ids, read_sessions
from recbole_mm.serve.recommender import Recommender
from recbole_mm.serve.wishes import Wish
from recbole_mm.serve.writing import Writer, check_output, writer


def pack_command(args: argparse.Namespace) -> int:
    """Pack a run and say what the pack holds."""
    compat.quiet_warnings()
    recommender = Recommender.load(args.run)
    folder = recommender.pack(args.output)
    size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 2**20
    config, items = recommender.config, len(recommender.items) - 1
    print(f"{folder}: {config['model']} on {config['dataset']}, {items} items, {size:.1f} MB")
    print(f"its scores equal those of {args.run} bit by bit; restored without the training data")
    print(f"recbole-mm recommend --run={folder} --sessions=FILE")
    return 0


def recommend_command(args: argparse.Namespace) -> int:
    """Recommend to the sessions of a file."""
    check_output(args.output)
    compat.quiet_warnings()
    # What is quick to refuse comes before the model is restored.
    leave_out, keep_to = read_ids(args.leave_out), read_ids(args.keep_to)
    given = Columns(*(args.session_col or "", args.item_col or "", args.time_col or ""))
    recommender = _with_new_items(Recommender.load(args.run, args.device), args)
    asked = read_sessions(args.sessions, _columns(given, recommender))
    exclude_seen = args.exclude_seen or recommender.config["history"] == "mask"
    names = recommender.part_names() if args.parts else []
    wish = Wish.of(
        recommender.items, args.topk, exclude_seen, leave_out or (), keep_to, bool(names)
    )
    start = time.perf_counter()
    with writer(args.output, names) as out:
        counts = _recommend(recommender, asked, wish, out)
    print(_summary(counts, time.perf_counter() - start), file=sys.stderr)
    return 0


def _with_new_items(recommender: Recommender, args: argparse.Namespace) -> Recommender:
    """Add the items of --new_items, if there are any."""
    vectors = read_new_vectors(args.new_vectors)
    if args.new_items is None:
        if vectors:
            raise ConfigError("--new_vectors needs --new_items, a table with a row per item.")
        return recommender
    rows = read_new_items(args.new_items, recommender.config["ITEM_ID_FIELD"])
    return recommender.with_new_items(rows, args.new_item_ids, vectors)


def _columns(given: Columns, recommender: Recommender) -> Columns:
    """Return the names of the columns: as given, or else as in training."""
    config = recommender.config
    return Columns(
        given.session or config["USER_ID_FIELD"],
        given.item or config["ITEM_ID_FIELD"],
        given.time or config["TIME_FIELD"],
    )


def _recommend(recommender: Recommender, asked: Asked, wish: Wish, out: Writer) -> Counter[str]:
    """Write the recommendations batch by batch, and count what became of the sessions."""
    size = recommender.scorer.batch_size
    counts: Counter[str] = Counter(sessions=0, recommended=0, skipped=0)
    bar = tqdm(total=len(asked), unit="session", disable=not sys.stderr.isatty())
    with bar:
        for start in range(0, len(asked), size):
            part = slice(start, start + size)
            sessions = asked.sessions[part]
            found = list(recommender.stream(sessions, wish))
            out.add(asked.names[part], found)
            bar.update(len(found))
            counts["sessions"] += len(found)
            counts["recommended"] += sum(len(one.items) for one in found)
            counts["skipped"] += sum(one.skipped for one in found)
            counts.update(one.note for one in found if one.note)
    return counts


def _summary(counts: Counter[str], seconds: float) -> str:
    """Return one line about what was recommended."""
    notes = [f"{n} got {note}" for note, n in sorted(counts.items()) if note.startswith("popular")]
    rate = counts["sessions"] / max(seconds, 1e-9)
    parts = [
        f"{counts['recommended']} items recommended to {counts['sessions']} session(s)",
        *notes,
        f"{counts['skipped']} unknown item(s) skipped",
        f"{seconds:.1f} s, {rate:.0f} sessions/s",
    ]
    return "; ".join(parts)
