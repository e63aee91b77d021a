"""Dumps of JSON lines, turned block by block into parquet parts that are kept.

Only one block of the unpacked text is in memory, so a file may be larger than the memory. Each part
is stamped when it is whole; a run that was killed goes on after the last such part, and since a
part depends on its block alone, the result is the same, byte for byte.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol, TypedDict

from recbole_mm.errors import DataError
from recbole_mm.files import atomic_write, read_json, sha256_file
from recbole_mm.prepare.reading import Tally, byte_bar

if TYPE_CHECKING:
    import polars as pl

BLOCK_BYTES = 1 << 24
_LONGEST_LINE = 1 << 28
_GZIP = b"\x1f\x8b"
# Part of the stamp: parts of an older version are made again.
_VERSION = 1


class _Note(TypedDict):
    """What stands beside a part: its bytes, and the lines it was made of."""

    size: int
    sha256: str
    lines: int
    left_out: dict[str, int]
    first: dict[str, list[int]]


class LineReader(Protocol):
    """Turns lines into a table; ``stamp`` names all that decides what comes out."""

    stamp: str
    expects: str
    harmless: frozenset[str]

    def read(self, block: bytes, first_line: int) -> tuple[pl.DataFrame, Tally]:
        """Return the table of a block of whole lines, and what was left out."""
        ...


@dataclass(frozen=True)
class Parts:
    """A dump as parquet parts in file order; ``lines`` counts all lines of the dump."""

    source: Path
    files: tuple[Path, ...]
    lines: int
    left_out: Tally

    def scan(self) -> pl.LazyFrame:
        """Return all parts as one lazy table, in file order."""
        import polars as pl

        return pl.scan_parquet(list(self.files))

    def report(self) -> dict[str, object]:
        """Return what ``dataset.json`` says about the dump."""
        return {
            "file": self.source.name,
            "lines": self.lines,
            "left_out": self.left_out.plain(),
        }


def stream_parts(
    source: Path, cache: Path, reader: LineReader, block_bytes: int = BLOCK_BYTES
) -> Parts:
    """Read a dump, plain or gzip, into parts under ``cache``; sound parts are not made again.

    Parameters
    ----------
    source
        One record per line.
    cache
        Gets one folder per dump, named by its file name, size, time and reader.
    reader
        Decides the columns.
    block_bytes
        Unpacked bytes per part.

    Raises
    ------
    DataError
        If the file is damaged or empty, or its beginning holds no record at all.
    """
    folder = cache / f"{source.name}-{_stamp(source, reader, block_bytes)}"
    parts = _finished(folder)
    if parts is None:
        parts = []
        for number, (first_line, block) in enumerate(_blocks(source, block_bytes)):
            part = _sound_part(folder, number) or _make_part(
                folder, number, first_line, block, reader
            )
            if number == 0:
                _refuse_other_files(source, part, reader)
            parts.append(part)
        if not parts:
            raise DataError(f"{source}: the file is empty. Download it again.")
        with atomic_write(folder / "whole.json") as stream:
            json.dump({"parts": len(parts)}, stream)
    left_out = Tally()
    for part in parts:
        left_out.merge(Tally(part["left_out"], part["first"]))
    files = tuple(_part_path(folder, number) for number in range(len(parts)))
    return Parts(source, files, sum(part["lines"] for part in parts), left_out)


def _stamp(source: Path, reader: LineReader, block_bytes: int) -> str:
    """Return a short name for all that decides the parts."""
    state = source.stat()
    key = [_VERSION, state.st_size, state.st_mtime_ns, reader.stamp, block_bytes]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.parquet"


def _finished(folder: Path) -> list[_Note] | None:
    """Return the notes of all parts if the whole dump was read and nothing is damaged."""
    try:
        count = read_json(folder / "whole.json")["parts"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    parts = [_sound_part(folder, number) for number in range(count)]
    return None if None in parts else [part for part in parts if part is not None]


def _sound_part(folder: Path, number: int) -> _Note | None:
    """Return the note of a part whose bytes are as they were written, else None."""
    path = _part_path(folder, number)
    try:
        note: _Note = read_json(path.with_suffix(".json"))
        if note["size"] == path.stat().st_size and note["sha256"] == sha256_file(path):
            return note
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _make_part(
    folder: Path, number: int, first_line: int, block: bytes, reader: LineReader
) -> _Note:
    """Read a block and write its part, then its note, which makes it count."""
    frame, left_out = reader.read(block, first_line)
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    with atomic_write(_part_path(folder, number), "wb") as stream:
        stream.write(buffer.getvalue())
    note: _Note = {
        "size": len(buffer.getvalue()),
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "lines": block.count(b"\n") + (not block.endswith(b"\n")),
        "left_out": left_out.lines,
        "first": left_out.first,
    }
    with atomic_write(_part_path(folder, number).with_suffix(".json")) as stream:
        json.dump(note, stream)
    return note


def _refuse_other_files(source: Path, part: _Note, reader: LineReader) -> None:
    """Raise a DataError if no line of the first part could be read."""
    broken = {k: n for k, n in part["left_out"].items() if k not in reader.harmless}
    if part["lines"] == sum(broken.values()):
        reasons = ", ".join(f"{number} line(s) {reason}" for reason, number in broken.items())
        raise DataError(
            f"{source}: none of the first {part['lines']} line(s) can be read ({reasons}). "
            f"Expected {reader.expects}. Is it the right file, of the right release (--year)?"
        )


def _blocks(source: Path, block_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the number of the first line and the bytes of blocks of whole lines."""
    first_line, rest = 1, b""
    with open(source, "rb") as raw, byte_bar(source) as bar:
        stream: IO[bytes] = raw
        if raw.peek(2)[:2] == _GZIP:
            stream = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment]
        while chunk := _read(source, stream, block_bytes):
            bar.update(raw.tell() - bar.n)
            whole, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                yield first_line, whole + newline
                first_line += whole.count(newline) + 1
            if len(rest) > _LONGEST_LINE:
                raise DataError(
                    f"{source}, line {first_line}: longer than {_LONGEST_LINE >> 20} MiB. Expected "
                    "one record per line."
                )
    if rest:
        yield first_line, rest


def _read(source: Path, stream: IO[bytes], size: int) -> bytes:
    """Read unpacked bytes; a damaged gzip file is a DataError."""
    try:
        return stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{source}: the file is damaged or was not downloaded to its end ({error}). "
            "Download it again."
        ) from error
