"""What is fuzzed of a trained model in use: the files of a pack, sessions, new items, requests."""

from __future__ import annotations

import copy
import http.client
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars

from recbole_mm import cli
from recbole_mm.data.itememb import write_itememb
from recbole_mm.encode import encode_text
from recbole_mm.files import sha256_file
from recbole_mm.run.execute import run
from recbole_mm.serve.card import CARD, read_card
from recbole_mm.serve.pack import ITEMS, MODEL, PACK
from recbole_mm.serve.reading import Columns, read_sessions
from recbole_mm.serve.recommender import Recommender
from recbole_mm.testing.case import SMALL, write_toy
from recbole_mm.trainer.checkpoint import load_checkpoint, save_checkpoint
from tests.fuzz.targets import OUT, Target

# What a request may be answered; anything else is a fault of the service.
ANSWERS = (200, 400, 413, 422, 429, 503)
_SETTINGS: dict[str, Any] = {
    "hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1, "epochs": 1, "use_gpu": False,
    "train_batch_size": 256, "MAX_ITEM_LIST_LENGTH": 8, "floor": False, "part_metrics": "none",
}  # fmt: skip


def make_pack(folder: Path) -> Path:
    """Write a pack of a model that reads vectors and graphs, and good files of what it is asked."""
    data = folder / "data"
    write_toy(data, SMALL, ())
    encode_text(data / SMALL.name, SMALL.name, fields=["class"], encoder="tfidf")
    settings = {"data_path": str(data), "run_folder": str(folder / "run"), **_SETTINGS}
    run("AlterRec", SMALL.name, (), {**settings, "text_encoder": "tfidf"})
    Recommender.load(folder / "run").pack(folder / "pack")
    for name in ("data", "run"):
        shutil.rmtree(folder / name)
    _write_questions(folder)
    return folder


def _write_questions(folder: Path) -> None:
    rows = [("ann", "i0003", 5), ("ann", "i0017", 7), ("bob", "i0030", 6), ("eve", "x", 9)]
    frame = polars.DataFrame(rows, schema=["session_id", "item_id", "timestamp"], orient="row")
    frame.write_csv(folder / "sessions.csv")
    frame.write_csv(folder / "sessions.tsv", separator="\t")
    frame.write_parquet(folder / "sessions.parquet")
    lines = [["i0003", "i0017"], {"session_id": "bob", "items": ["i0030"]}, []]
    (folder / "sessions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "new.csv").write_text('item_id,title,class\nn1,"A, new",kind1\nn2,,kind3 kind4\n')
    ids, width = ["n1", "n2"], _width(folder / "pack")
    vectors = np.random.default_rng(2).standard_normal((2, width)).astype(np.float32)
    write_itememb(folder / "new.itememb", "text", ids, vectors)
    (folder / "ids.txt").write_text("i0001\ni0002\nnobody\n")
    question = {"sessions": [["i0003", "i0017"], []], "k": 3, "leave_out": ["i0001"], "parts": True,
                "new_items": [{"item_id": "n1", "columns": {"class": "kind1"}, "vectors": {}}],
                "new_item_ids": "zero"}  # fmt: skip
    (folder / "question.json").write_text(json.dumps(question))


def _width(pack: Path) -> int:
    features = load_checkpoint(pack / MODEL)["dataset"]["features"]
    return int(features["tables"]["text"].shape[1])


# ---- Readers ----


def renew(pack: Path) -> None:
    """Write the checksums of a pack again, so that what stands behind them is read, too."""
    description = json.loads((pack / PACK).read_text("utf-8"))
    for name in (ITEMS, MODEL):
        description["sha256"][name] = sha256_file(pack / name)
    (pack / PACK).write_text(json.dumps(description))


def use(folder: Path) -> object:
    """Restore the pack and ask it."""
    recommender = Recommender.load(folder / "pack")
    return recommender.recommend([["i0003", "i0017"], ["i0030"], []], 5, parts=True)


def _renewed(folder: Path) -> object:
    """Restore a pack whose damage no checksum shows."""
    renew(folder / "pack")
    return use(folder)


def _recommend(folder: Path, sessions: str, *words: str) -> int:
    """Run the command; its exit code is all there is to see."""
    code = cli.main([
        "recommend", f"--run={folder / 'pack'}", f"--sessions={folder / sessions}", "--topk=3",
        f"--output={folder / 'out' / 'found.csv'}", *words,
    ])  # fmt: skip
    assert code in (0, 2), code
    return code


def _new_items(folder: Path) -> int:
    return _recommend(folder, "sessions.csv", f"--new_items={folder / 'new.csv'}")


def _new_vectors(folder: Path) -> int:
    words = f"--new_items={folder / 'new.csv'}", f"--new_vectors=text={folder / 'new.itememb'}"
    return _recommend(folder, "sessions.csv", *words)


def read_asked(folder: Path, name: str) -> object:
    """Read sessions without the rest of the command."""
    return read_sessions(str(folder / name), Columns())


@cache
def state_of(pack: Path) -> dict[str, Any]:
    """Return what a pack's model file holds."""
    return load_checkpoint(pack / MODEL)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write another state into a pack, with all checksums as they should be."""
    save_checkpoint(folder / "pack" / MODEL, copy.copy(state))
    renew(folder / "pack")


PACK_FILES = ("pack/*",)
PACK_TARGETS = [
    Target("pack: description", f"pack/{PACK}", use, make=make_pack),
    Target("pack: model", f"pack/{MODEL}", use, make=make_pack),
    Target("pack: model, renewed", f"pack/{MODEL}", _renewed, PACK_FILES, make_pack),
    Target("pack: items", f"pack/{ITEMS}", use, make=make_pack),
    Target("pack: items, renewed", f"pack/{ITEMS}", _renewed, PACK_FILES, make_pack),
    Target("pack: card", f"pack/{CARD}", lambda f: read_card(f / "pack"), make=make_pack),
    *(Target(f"sessions: {kind}", f"sessions.{kind}",
             lambda f, kind=kind: _recommend(f, f"sessions.{kind}"), OUT, make_pack)  # type: ignore[misc]
      for kind in ("csv", "tsv", "jsonl", "parquet")),
    Target("new items", "new.csv", _new_items, OUT, make_pack),
    Target("new vectors", "new.itememb", _new_vectors, (*OUT, "new.itememb.*"), make_pack),
    Target("ids to leave out", "ids.txt",
           lambda f: _recommend(f, "sessions.csv", f"--leave_out={f / 'ids.txt'}"), OUT, make_pack),
]  # fmt: skip


# ---- The service ----


class Service:
    """A pack served over a real socket, by a thread of this process."""

    def __init__(self, pack: Path) -> None:
        import uvicorn

        from recbole_mm.serve.web.app import Limits, make_app
        from recbole_mm.serve.web.command import _listen

        self.socket = _listen("127.0.0.1", 0)
        app = make_app(Recommender.load(pack), Limits(rate=0))
        settings = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="on")
        self.server = uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()

    def ask(self, body: bytes) -> int:
        """Return the status of the answer, which must say something as JSON."""
        status, content = self._request("POST", "/recommend", body)
        found = json.loads(content)
        assert "recommendations" in found if status == 200 else found["detail"], found
        return status

    def waiting(self) -> int:
        """Return the number of sessions that wait."""
        return int(json.loads(self._request("GET", "/health", None)[1])["waiting"])

    def _request(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self.socket.getsockname()[:2], timeout=600)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def end(self) -> None:
        """Stop it."""
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()


@contextmanager
def service_of(folder: Path) -> Iterator[Service]:
    """Serve the pack of a folder."""
    service = Service(folder / "pack")
    try:
        yield service
    finally:
        service.end()


def check_answer(service: Service, body: bytes) -> int:
    """Ask, and insist on a proper answer."""
    status = service.ask(body)
    assert status in ANSWERS, status
    return status
