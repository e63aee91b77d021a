"""Writing recommendations, batch by batch: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from recbole_mm.errors import DataError
from recbole_mm.files import atomic_write
from recbole_mm.serve.recommender import Recommendation

KINDS = (".csv", ".parquet", ".jsonl")


class Writer(Protocol):
    """Takes recommendations with the names of their sessions."""

    def add(self, names: Sequence[str], found: Sequence[Recommendation]) -> None:
        """Write some."""

    def end(self) -> None:
        """Write what is left."""


@contextmanager
def writer(output: str | None, parts: Sequence[str]) -> Iterator[Writer]:
    """Open a file for recommendations; it appears under its name when all are written.

    Parameters
    ----------
    output
        Its name, whose end tells the kind; None writes CSV to standard output.
    parts
        Names of the parts of the score, a column each.

    Raises
    ------
    DataError
        The name ends in something else.
    """
    if output is None:
        made: Writer = CsvWriter(sys.stdout, parts)
        yield made
        made.end()
        return
    check_output(output)
    kind = Path(output).suffix.lower()
    with atomic_write(output, "wb" if kind == ".parquet" else "w") as stream:
        made = _WRITERS[kind](stream, parts)
        yield made
        made.end()


def check_output(output: str | None) -> None:
    """Refuse a name of another kind, before anything is computed."""
    if output is not None and Path(output).suffix.lower() not in KINDS:
        raise DataError(f"--output={output}: expected a name that ends in {', '.join(KINDS)}.")


def _rows(
    names: Sequence[str], found: Sequence[Recommendation], parts: Sequence[str]
) -> Iterator[tuple[Any, ...]]:
    """Yield one row per recommended item."""
    for name, one in zip(names, found, strict=True):
        shares = [one.parts.get(part, [None] * len(one.items)) for part in parts]
        for place, item in enumerate(one.items):
            own = (share[place] for share in shares)
            yield (
                name, place + 1, item, one.scores[place], one.titles[place], one.note, one.skipped,
                *own,
            )  # fmt: skip


def _header(parts: Sequence[str]) -> list[str]:
    names = ["session_id", "rank", "item_id", "score", "title", "note", "skipped"]
    return [*names, *(f"part_{part}" for part in parts)]


class CsvWriter:
    """One row per recommended item."""

    def __init__(self, stream: IO[str], parts: Sequence[str]) -> None:
        self._rows = csv.writer(stream, lineterminator="\n")
        self._parts = parts
        self._rows.writerow(_header(parts))

    def add(self, names: Sequence[str], found: Sequence[Recommendation]) -> None:
        """Write some."""
        self._rows.writerows(_rows(names, found, self._parts))

    def end(self) -> None:
        """Do nothing: all is written."""


class ParquetWriter:
    """One row per recommended item; kept in columns until the end."""

    def __init__(self, stream: IO[bytes], parts: Sequence[str]) -> None:
        self._stream, self._parts = stream, parts
        self._frames: list[Any] = []
        self.add((), ())

    def add(self, names: Sequence[str], found: Sequence[Recommendation]) -> None:
        """Keep some."""
        import polars

        text, whole, number = polars.String, polars.Int64, polars.Float64
        kinds = [text, whole, text, number, text, text, whole, *[number] * len(self._parts)]
        schema = dict(zip(_header(self._parts), kinds, strict=True))
        rows = list(_rows(names, found, self._parts))
        self._frames.append(polars.DataFrame(rows, schema=schema, orient="row"))

    def end(self) -> None:
        """Write the file."""
        import polars

        buffer = io.BytesIO()
        polars.concat(self._frames).write_parquet(buffer)
        self._stream.write(buffer.getvalue())


class JsonWriter:
    """One line per session."""

    def __init__(self, stream: IO[str], parts: Sequence[str]) -> None:
        self._stream = stream

    def add(self, names: Sequence[str], found: Sequence[Recommendation]) -> None:
        """Write some."""
        for name, one in zip(names, found, strict=True):
            line = {"session_id": name, **as_plain(one)}
            self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def end(self) -> None:
        """Do nothing: all is written."""


def as_plain(found: Recommendation) -> dict[str, Any]:
    """Return a recommendation as JSON says it: a list of items, a note, what was skipped."""
    items: list[dict[str, Any]] = [
        {"item_id": item, "score": score, "title": title}
        for item, score, title in zip(found.items, found.scores, found.titles, strict=True)
    ]
    for place, item in enumerate(items):
        if found.parts:
            item["parts"] = {name: share[place] for name, share in found.parts.items()}
    return {"items": items, "note": found.note, "skipped": found.skipped}


_WRITERS: dict[str, Any] = {".csv": CsvWriter, ".parquet": ParquetWriter, ".jsonl": JsonWriter}
