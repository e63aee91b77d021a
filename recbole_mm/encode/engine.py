"""What texts and pictures share: encode each content once, in chunks, and go on after a kill."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from tqdm import tqdm

from recbole_mm import processes
from recbole_mm.data.sidecar import ItemEmb
from recbole_mm.encode.manifest import (
    PICTURE_PACKAGES,
    TFIDF_PACKAGES,
    Manifest,
    package_versions,
)
from recbole_mm.encode.source import About, Asked
from recbole_mm.encode.store import Store
from recbole_mm.times import time_left

logger = logging.getLogger(__name__)

Previous = tuple[Manifest, ItemEmb] | None
# Vectors and notes of a chunk.
Part = tuple[np.ndarray, list[str]]
CUT = "cut"
_SILENCE = 20.0  # seconds


class Encoder(Protocol):
    """What turns units (texts, or paths of pictures) into vectors."""

    batch_size: int

    def describe(self) -> About:
        """Return all that decides the vectors, for the manifest."""

    def encode(self, units: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Return vectors ``(n, d)`` and a note per unit: empty, ``cut``, or why there is none."""


@dataclass(frozen=True)
class Content:
    """What an item is encoded from.

    Attributes
    ----------
    key
        Hash; items of one key have one vector.
    units
        Pairs of hash and text or path; the vectors of those that have one are averaged (twice the
        same counts twice).
    """

    key: str
    units: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Job:
    """One feature file to be made.

    Attributes
    ----------
    contents
        ``{item token: content}``, in the order of the file to be written.
    encoder
        The encoder's name, as the user gave it.
    revision, asked
        What decides whether vectors of an earlier file can be reused: the encoder's revision and
        the options that change its vectors.
    load
        Loads the encoder; not called if there is nothing to encode.
    order
        Sorting key of ``(hash, unit)``: a fixed order of the units.
    chunk_size
        Units between two saves.
    noun
        For the progress bar: ``text`` or ``picture``.
    fitted_on
        Of an encoder that is fitted on all contents together: their hash. Vectors of an earlier
        file can then be reused all or not at all.
    """

    contents: Mapping[str, Content]
    encoder: str
    revision: str
    asked: Asked
    load: Callable[[], Encoder]
    order: Callable[[tuple[str, str]], str | tuple[int, str]]
    chunk_size: int
    noun: str
    fitted_on: str = ""


@dataclass(frozen=True)
class Outcome:
    """What `encode_contents` found.

    Attributes
    ----------
    vectors
        ``{content key: (d,) float32}``.
    notes
        ``{content key: note}``, not empty: ``cut``, or why there is no vector.
    encoder
        The encoder's description; that of the earlier file, but for the name, if nothing had to be
        encoded.
    new
        Units encoded now.
    """

    vectors: dict[str, np.ndarray]
    notes: dict[str, str]
    encoder: About
    new: int


def encode_contents(store: Store, job: Job, previous: Previous) -> Outcome:
    """Encode what an earlier file does not hold; the store must be held for writing.

    A finished chunk is kept on disk, so that a killed run goes on where it stopped and ends with
    the same bytes. Several processes each encode each n-th chunk and read those of the others.
    """
    known = _reusable(previous, job)
    contents = {content.key: content for content in job.contents.values()}
    done = known.vectors.keys() | known.notes.keys()
    new = [content for key, content in contents.items() if key not in done]
    todo = sorted({pair for content in new for pair in content.units}, key=job.order)
    if not todo:
        return known
    encoder = job.load()
    units, notes = _encode_chunks(store, encoder, todo, job)
    vectors = dict(known.vectors)
    found = dict(known.notes)
    for content in new:
        usable = [key for key, _ in content.units if notes[key] in ("", CUT)]
        if usable:
            vectors[content.key] = _mean([units[key] for key in usable])
        # Without any vector the first unit says why.
        if note := _first(notes[key] for key in usable or [content.units[0][0]]):
            found[content.key] = note
    about: About = {**encoder.describe(), "name": job.encoder}
    if job.asked:
        about["asked"] = job.asked
    return Outcome(vectors, found, about, len(todo))


def _reusable(previous: Previous, job: Job) -> Outcome:
    """Return what an earlier file by the same encoder holds."""
    if previous is None:
        return Outcome({}, {}, {}, 0)
    manifest, emb = previous
    encoder = manifest.encoder
    made_by = (encoder.get("revision"), encoder.get("asked", {}), encoder.get("fitted_on", ""))
    if made_by != (job.revision, job.asked, job.fitted_on):
        return Outcome({}, {}, {}, 0)
    keys = manifest.contents
    vectors = {keys[i]: row for i, row in zip(emb.ids, emb.vectors, strict=True) if i in keys}
    notes = {keys[token]: CUT for token in manifest.truncated if token in keys}
    notes |= {keys[token]: why for token, why in manifest.missing.items() if token in keys}
    return Outcome(vectors, notes, {**encoder, "name": job.encoder}, 0)


def _first(notes: Iterable[str]) -> str:
    """Return the first note that is not empty, or the empty text."""
    return next(filter(None, notes), "")


def _mean(vectors: list[np.ndarray]) -> np.ndarray:
    """Return the mean of vectors; of one, the vector itself."""
    if len(vectors) == 1:
        return vectors[0]
    return np.asarray(np.mean(vectors, axis=0, dtype=np.float64).astype(np.float32))


class _Word:
    """A line in the log now and then, where no bar is seen."""

    def __init__(self, title: str, total: int):
        self._title, self._total = title, total
        self._started = self._told = time.monotonic()

    def said(self, done: int) -> None:
        """Tell how far it is, if the last word was long ago."""
        now = time.monotonic()
        if sys.stderr.isatty() or now - self._told < _SILENCE or done >= self._total:
            return
        self._told = now
        left = (now - self._started) / done * (self._total - done)
        logger.info("%s: %d of %d, %s", self._title, done, self._total, time_left(left))


def _encode_chunks(
    store: Store, encoder: Encoder, todo: list[tuple[str, str]], job: Job
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Encode chunk by chunk, or take chunks over from a killed run; by hash of the unit."""
    work_key = _work_key(encoder, todo, job)
    starts = range(0, len(todo), job.chunk_size)
    chunks = [todo[start : start + job.chunk_size] for start in starts]

    def made(number: int) -> Part:
        part = store.load_part(number, work_key)
        if part is None:
            part = encoder.encode([unit for _, unit in chunks[number]])
            store.save_part(number, work_key, *part)
        return part

    group = processes.group()
    own = range(group.rank, len(chunks), group.world)
    parts: dict[int, Part] = {}
    for number in _told(own, [len(chunks[number]) for number in own], job.noun):
        parts[number] = made(number)
    processes.wait()
    parts |= {number: made(number) for number in range(len(chunks)) if number not in parts}
    # Before the first removes what the others still read.
    processes.wait()
    vectors: dict[str, np.ndarray] = {}
    notes: dict[str, str] = {}
    for number, chunk in enumerate(chunks):
        for (key, _), vector, note in zip(chunk, *parts[number], strict=True):
            vectors[key], notes[key] = vector, note
    return vectors, notes


def _told(numbers: Sequence[int], sizes: Sequence[int], noun: str) -> Iterator[int]:
    """Yield the numbers of chunks, and tell how far it is; of several processes, the first does."""
    group = processes.group()
    title = f"encoding {noun}" + (f", share 1 of {group.world}" if group.world > 1 else "")
    word, done = _Word(title, sum(sizes)), 0
    silent = True if group.rank else None
    with tqdm(total=sum(sizes), desc=title, unit=noun, disable=silent, file=sys.stderr) as bar:
        for number, size in zip(numbers, sizes, strict=True):
            yield number
            done += size
            bar.update(size)
            word.said(done)


def _work_key(encoder: Encoder, todo: list[tuple[str, str]], job: Job) -> str:
    """Return a hash of all that the bits of a chunk depend on."""
    versions = package_versions({*PICTURE_PACKAGES, *TFIDF_PACKAGES})
    settings = [encoder.describe(), encoder.batch_size, job.chunk_size, versions]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode("utf-8"))
    for key, _ in todo:
        digest.update(key.encode("ascii"))
    return digest.hexdigest()


def publish(
    store: Store, tokens: list[str], outcome: Outcome, manifest: Manifest, previous: Previous
) -> None:
    """Write the vectors of these items and their manifest.

    Where nothing has changed, the vectors stay as they are and the manifest alone is written. Of
    several processes, the first writes.
    """
    if processes.group().rank > 0:
        return
    keys = manifest.contents
    if (
        previous
        and not outcome.new
        and tokens == previous[1].ids
        and all(keys[token] == previous[0].contents.get(token) for token in tokens)
    ):
        # How many were encoded belongs to the file, which is the one that was there.
        before = {name: n for name, n in previous[0].counts.items() if name.endswith("_encoded")}
        kept = replace(manifest, counts={**manifest.counts, **before})
        store.publish_manifest(kept.made_of(previous[0].itememb_sha256))
    else:
        store.publish(
            tokens, np.stack([outcome.vectors[keys[token]] for token in tokens]), manifest
        )
