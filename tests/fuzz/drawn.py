"""Inputs that hypothesis draws: of the right form, with odd content, shrunk when they escape."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from recbole_mm import key_table, registry
from recbole_mm.testing.case import SMALL
from tests.fuzz.engine import attempt, attempt_command
from tests.fuzz.packs import (
    PACK_FILES,
    PACK_TARGETS,
    check_answer,
    make_pack,
    service_of,
    state_of,
    use,
    write_state,
)
from tests.fuzz.targets import TARGETS, WORDS, Target, make_folder

BY_NAME = {target.name: target for target in (*TARGETS, *PACK_TARGETS)}
# Gets the folder of good files, its copy, and what was drawn; returns the story of an escape.
Check = Callable[[Path, Path, Any], str]
# Opens what is needed for all inputs; gives what makes the check.
Opened = Callable[[Path], AbstractContextManager[Check]]


@dataclass(frozen=True)
class Drawn:
    """One kind of input.

    Attributes
    ----------
    strategy
        Returns what draws inputs, given the folder of good files.
    opened
        Opens what all inputs share, and gives the check of one.
    make
        Writes the folder of good files.
    """

    name: str
    strategy: Callable[[Path], SearchStrategy[Any]]
    opened: Opened
    make: Callable[[Path], Path] = make_folder


# ---- Values ----

odd_texts = st.sampled_from([
    "", " ", "0", "-1", "1e999", "nan", "NaN", "inf", "null", "~", "true", "[PAD]", "[", "{a: b}",
    "../../x", "i0003", "i0017", "kind1", "x" * 300, "9" * 60, "é\u202e", "\ud800", "\x00",
    "\ufeff", '"', "'", "a\tb", "a\nb", "a\r\nb", ",", "$1,299.00", "1.299,00 €", "2026-01-01",
    "2026-01-01T00:00:00Z", "1600000000000", "1600000000", "!!python/name:os.system", "%s",
])  # fmt: skip
texts = odd_texts | st.text(max_size=12)
numbers = st.integers(-3, 40) | st.sampled_from([2**31, 2**63, 10**30]) | st.floats(width=32)
leaves = st.none() | st.booleans() | numbers | texts
values: SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def _paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every place of a document, of long lists to their first members."""
    found = [before]
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)):
        inner = list(enumerate(value))[:4]
    for key, one in inner:
        found += _paths(one, (*before, key))
    return found


def _changed(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """Return a document with one place changed; None of a change takes the place out."""
    if not path:
        return change(value)
    key, *rest = path
    found = list(value) if isinstance(value, (list, tuple)) else dict(value)
    found[key] = _changed(found[key], tuple(rest), change)
    return tuple(found) if isinstance(value, tuple) else found


def _without(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in value.items() if name != key}


@st.composite
def changed(draw: st.DrawFn, good: Any, other: SearchStrategy[Any] = values) -> Any:
    """Return a good document with one to three places changed, left out, or doubled."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(good)))
        way = draw(st.sampled_from(["other", "other", "gone", "wrapped", "more"]))
        if way == "gone" and path and isinstance(path[-1], str):
            good = _changed(good, path[:-1], partial(_without, path[-1]))
        elif way == "wrapped":
            good = _changed(good, path, lambda one: [one])
        elif way == "more":
            good = _changed(good, path, lambda one: one * 2 if isinstance(one, (str, list)) else {})
        else:
            new = draw(other)
            good = _changed(good, path, lambda _, new=new: new)
    return good


def _as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _as_yaml(value: Any) -> bytes:
    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    return str(text).encode("utf-8", "surrogatepass")


@st.composite
def tables(draw: st.DrawFn, good: bytes, separator: str = ",") -> bytes:
    """Return a table whose cells, rows or columns are others here and there."""
    rows = [list(row) for row in csv.reader(io.StringIO(good.decode()), delimiter=separator)]
    rows = rows[: draw(st.integers(1, len(rows)))]
    for _ in range(draw(st.integers(0, 5))):
        row = draw(st.integers(0, len(rows) - 1))
        if rows[row]:
            rows[row][draw(st.integers(0, len(rows[row]) - 1))] = draw(texts)
    if draw(st.booleans()):
        rows += draw(st.lists(st.lists(texts, max_size=5), max_size=3))
    stream = io.StringIO()
    ends = draw(st.sampled_from(["\n", "\r\n"]))
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    csv.writer(stream, delimiter=separator, lineterminator=ends, quoting=quoting).writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogatepass")


# ---- What is drawn ----


def _of_file(name: str, strategy: Callable[[bytes], SearchStrategy[bytes]]) -> Drawn:
    """Return drawn content for the file of a target."""
    target = BY_NAME[name]
    return Drawn(
        name, lambda good: strategy((good / target.file).read_bytes()),
        lambda _: nullcontext(lambda good, work, data: attempt(target, good, work, data)),
        target.make,
    )  # fmt: skip


def _document(name: str) -> Drawn:
    """Return changed documents for a JSON file."""
    return _of_file(name, lambda data: changed(json.loads(data)).map(_as_json))


def _table(name: str, separator: str = ",") -> Drawn:
    return _of_file(name, lambda data: tables(data, separator))


def _configurations(_: bytes) -> SearchStrategy[bytes]:
    keys = st.sampled_from(sorted(key_table.known_keys(registry.spec_of("SASRec")))) | texts
    return (st.dictionaries(keys, values, max_size=4) | values).map(_as_yaml)


def _lines(_: bytes) -> SearchStrategy[bytes]:
    named = st.fixed_dictionaries({"items": values}, optional={"session_id": values})
    line = st.lists(texts | st.integers(), max_size=5) | named | values
    return st.lists(line, max_size=5).map(lambda found: b"\n".join(map(_as_json, found)))


# ---- The command line ----

_COMMANDS = {
    "run": ["--explain"], "compare": ["--table_only"], "encode": ["--modality=text"], "audit": [],
    "export": [], "pack": [], "recommend": [], "blend": [], "serve": ["--pack=none"],
}  # fmt: skip
_SERVING = (
    "--run=runs/Pop-s1", "--run=none", "--output=out/pack", "--output=runs", "--output=out/x.csv",
    "--sessions=raw.csv", "--sessions=goods.csv", "--sessions=none.csv", "--topk=0", "--topk=x",
    "--session_col=user", "--item_col=item", "--time_col=time", "--new_items=goods.csv", "--parts",
    "--new_vectors=text=vectors.npy", "--keep_to=ids.txt", "--leave_out=picture.png", "--port=x",
    "--runs=runs/Pop-s1", "--runs=none", "--device=x", "--exclude_seen", "--new_item_ids=x",
)  # fmt: skip


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Return arguments, some of them sensible; none that trains, downloads or listens."""
    command = draw(st.sampled_from(sorted(_COMMANDS)))
    serving = command in ("pack", "recommend", "blend", "serve")
    words = draw(st.lists(st.sampled_from(_SERVING if serving else WORDS), max_size=4))
    if not serving and draw(st.booleans()):
        keys = sorted(key_table.known_keys(registry.spec_of("SASRec")))
        words.append(f"--{draw(st.sampled_from(keys))}={draw(texts)}")
    if draw(st.booleans()):
        words += [f"--dataset={SMALL.name}", "--data_path=."] if not serving else []
        words += ["--model=SASRec"] if command == "run" else []
    if draw(st.integers(0, 4)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(texts))
    return [command, *words, *_COMMANDS[command]]


# ---- Packs and requests ----


def _states(good: Path) -> SearchStrategy[Any]:
    # Sizes stay small: a forged pack may ask for memory, as any model may.
    small = st.none() | st.booleans() | st.integers(-3, 99) | st.text(max_size=3) | st.just([])
    return changed(state_of(good / "pack"), small)


def _restore(good: Path, work: Path, state: Any) -> str:
    """Check a pack that holds another state, with all checksums as they should be."""

    def read(folder: Path) -> object:
        write_state(folder, state)
        return use(folder)

    target = replace(BY_NAME["pack: model, renewed"], read=read, writes=PACK_FILES)
    return attempt(target, good, work, b"")


def _questions(good: Path) -> SearchStrategy[bytes]:
    return changed(json.loads((good / "question.json").read_bytes())).map(_as_json)


@st.composite
def _bodies(draw: st.DrawFn, good: Path) -> bytes:
    body: bytes = draw(_questions(good) | values.map(_as_json))
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(body)))
        body = body[:place] + draw(st.binary(max_size=4) | st.just(b"[" * 5000)) + body[place:]
    return body


class _Asked:
    """Serves the pack while bodies are checked."""

    def __init__(self, good: Path) -> None:
        self._service = service_of(good)

    def __enter__(self) -> Check:
        service = self._service.__enter__()
        asked = Target("request", "question.json", lambda f: check_answer(
            service, (f / "question.json").read_bytes()))  # fmt: skip

        def check(good: Path, work: Path, body: bytes) -> str:
            story = attempt(asked, good, work, body)
            waiting = service.waiting()
            return story or (f"{waiting} session(s) wait for ever" if waiting else "")

        return check

    def __exit__(self, *error: object) -> None:
        self._service.__exit__(None, None, None)


DRAWN = [
    Drawn("command line", lambda _: command_lines(),
          lambda _: nullcontext(lambda good, work, argv: attempt_command(argv, good, work))),
    _of_file("configuration", _configurations),
    *(_document(name) for name in ("card", "manifest", "labels", "plan", "result")),
    _table("table of interactions"),
    _table("table of items"),
    *(_document(name) for name in ("pack: description", "pack: items, renewed", "pack: card")),
    Drawn("pack: state", _states, lambda _: nullcontext(_restore), make_pack),
    _table("sessions: csv"),
    _table("sessions: tsv", "\t"),
    _of_file("sessions: jsonl", _lines),
    _table("new items"),
    Drawn("request", _bodies, _Asked, make_pack),
]  # fmt: skip
