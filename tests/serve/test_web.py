"""The HTTP interface over a real socket, in a real second process."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from recbole_mm import cli
from recbole_mm.serve.recommender import Recommender
from recbole_mm.serve.web.limits import Rates

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

CLIENTS, QUESTIONS = 200, 3


class Service:
    """`recbole-mm serve` in a process of its own, on a free port."""

    def __init__(self, pack: Path, *options: str) -> None:
        command = [sys.executable, "-m", "recbole_mm", "serve", f"--pack={pack}", "--port=0"]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        self.told = self.process.stdout.readline()
        assert "http://127.0.0.1:" in self.told, self.process.communicate()
        self.port = int(self.told.split("http://127.0.0.1:")[1].split()[0])

    def ask(self, method: str, path: str, body: Any = None, raw: bytes | None = None) -> Any:
        """Return status and content."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kind = answer.headers["content-type"]
        return answer.status, json.loads(content) if "json" in kind else content.decode()

    def end(self) -> tuple[int, str]:
        """Ask it to end and return exit code and last words."""
        self.process.send_signal(signal.SIGTERM)
        _, words = self.process.communicate(timeout=600)
        return self.process.returncode, words


@pytest.fixture(scope="module")
def service(packed) -> Iterator[Service]:
    made = Service(packed("AlterRec"), "--rate=0")
    yield made
    code, words = made.end()
    assert code == 0 and "Traceback" not in words, words


@pytest.fixture(scope="module")
def recommender(packed) -> Recommender:
    return Recommender.load(packed("AlterRec"))


def question(tokens: list[str], number: int) -> dict[str, Any]:
    """Return a question like no other: sessions, k and filters differ."""
    sessions = [
        tokens[1 + number % 50 : 2 + number % 50 + place] for place in range(number % 4 + 1)
    ]
    asked: dict[str, Any] = {"sessions": [*sessions, []], "k": 1 + number % 12}
    if number % 3 == 0:
        asked["exclude_seen"] = True
    if number % 5 == 0:
        asked["leave_out"] = tokens[1 : 1 + number % 40]
    if number % 7 == 0:
        asked["keep_to"] = tokens[20:50]
    if number % 11 == 0:
        asked["parts"] = True
    return asked


def test_two_hundred_clients_at_once_lose_nothing(service, recommender) -> None:
    """Each client asks three questions; every answer is what `recommend` gives."""
    tokens = recommender.items.tokens

    def client(number: int) -> list[Any]:
        return [
            service.ask("POST", "/recommend", question(tokens, number * QUESTIONS + turn))
            for turn in range(QUESTIONS)
        ]

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = [one for found in clients.map(client, range(CLIENTS)) for one in found]
    assert len(answers) == CLIENTS * QUESTIONS
    for number, (status, content) in enumerate(answers):
        asked = question(tokens, number)
        assert status == 200, content
        expected = recommender.recommend(asked.pop("sessions"), asked.pop("k"), **asked)
        assert len(content["recommendations"]) == len(expected)
        for found, wanted in zip(content["recommendations"], expected, strict=True):
            assert [item["item_id"] for item in found["items"]] == wanted.items
            scores = [item["score"] for item in found["items"]]
            # Products of matrices of another height differ in the last bits.
            assert scores == pytest.approx(wanted.scores, rel=1e-5, abs=1e-6)
            assert [item["title"] for item in found["items"]] == wanted.titles
            assert (found["note"], found["skipped"]) == (wanted.note, wanted.skipped)
            for name, share in wanted.parts.items():
                told = [item["parts"][name] for item in found["items"]]
                assert told == pytest.approx(share, rel=1e-4, abs=1e-5)


def test_new_items_come_with_their_features(service, recommender) -> None:
    vectors = recommender.restored.dataset.item_features.tables["text"][[4, 9]].tolist()
    new = [{"item_id": f"new{n}", "vectors": {"text": one}} for n, one in enumerate(vectors)]
    asked = {"sessions": [["new0", "i0017"], ["i0003"]], "k": 62, "new_items": new}
    longer = recommender.with_new_items(
        [{"item_id": "new0"}, {"item_id": "new1"}], "neighbours",
        {"text": {one["item_id"]: one["vectors"]["text"] for one in new}},
    )  # fmt: skip
    expected = longer.recommend(asked["sessions"], 62)
    for _ in range(2):
        status, content = service.ask("POST", "/recommend", asked)
        assert status == 200, content
        for found, wanted in zip(content["recommendations"], expected, strict=True):
            assert [item["item_id"] for item in found["items"]] == wanted.items
            assert found["skipped"] == 0 and {"new0", "new1"} <= set(wanted.items)
    for wrong, reason in (
        ({"item_id": "i0003"}, "known already"),
        ({"item_id": "n", "vectors": {"text": [1.0, 2.0]}}, "expected (1, 12)"),
        ({"item_id": "n", "columns": {"image": "/etc/passwd"}}, "give vectors instead"),
    ):
        status, content = service.ask("POST", "/recommend", {**asked, "new_items": [wrong]})
        assert status == 422 and reason in content["detail"], content


def test_health_card_and_the_page_about_itself(service, packed) -> None:
    status, health = service.ask("GET", "/health")
    assert status == 200
    assert health == {
        "status": "ok", "model": "AlterRec", "dataset": "toy", "items": 60, "waiting": 0,
    }  # fmt: skip
    status, card = service.ask("GET", "/model")
    assert (status, card) == (200, json.loads((packed("AlterRec") / "card.json").read_text()))
    status, described = service.ask("GET", "/openapi.json")
    assert status == 200 and {"/recommend", "/health", "/model"} <= set(described["paths"])
    status, page = service.ask("GET", "/docs")
    assert status == 200 and "openapi.json" in page


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"sessions": []}, "at least 1"),
        ({"sessions": [["i0001"]], "k": 0}, "greater than or equal to 1"),
        ({"sessions": [["i0001"]], "k": 1001}, "less than or equal to 1000"),
        ({"sessions": [["i0001"]], "top": 5}, "top"),
        ({"sessions": "i0001"}, "list"),
        ({"sessions": [[{"id": 1}]]}, "string"),
        ({"sessions": [["x"] * 1001]}, "at most 1000"),
        ({"sessions": [["x"]] * 257}, "at most 256"),
        ({"sessions": [["x" * 257]]}, "at most 256"),
        ({"sessions": [["i0001"]], "keep_to": ["unheard-of"]}, "leave no item"),
        ({}, "sessions"),
    ],
)
def test_bad_input_is_answered_422_with_the_reason(service, body, reason) -> None:
    status, content = service.ask("POST", "/recommend", body)
    assert status == 422
    assert reason in json.dumps(content["detail"])


def test_what_is_no_json_or_too_large_is_refused(service) -> None:
    status, content = service.ask("POST", "/recommend", raw=b'{"sessions": [[')
    assert status == 422 and "JSON" in json.dumps(content)
    large = json.dumps({"sessions": [["x" * 200] * 900] * 10}).encode()
    assert len(large) > 1 << 20
    status, content = service.ask("POST", "/recommend", raw=large)
    assert status == 413 and "1048576 bytes" in content["detail"]
    assert service.ask("GET", "/health")[0] == 200


def test_a_client_that_is_too_fast_is_told_so(packed) -> None:
    service = Service(packed("AlterRec"), "--rate=5", "--most_waiting=3")
    found = [service.ask("GET", "/health")[0] for _ in range(30)]
    assert found[:5] == [200] * 5 and found.count(429) >= 20
    time.sleep(1.1)
    status, content = service.ask("POST", "/recommend", {"sessions": [["i0001"]] * 4})
    assert status == 503 and "ask again" in content["detail"]
    assert service.ask("POST", "/recommend", {"sessions": [["i0001"]] * 3})[0] == 200
    assert service.end()[0] == 0


def test_answers_are_sent_at_once() -> None:
    """Asyncio turns Nagle's delay of 40 ms off where the socket names its protocol."""
    from recbole_mm.serve.web.command import _listen

    with _listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_rates_by_hand() -> None:
    clock = [0.0]
    rates = Rates(2, lambda: clock[0])
    assert [rates.allows("a") for _ in range(3)] == [True, True, False]
    assert rates.allows("b")
    clock[0] = 0.5
    assert [rates.allows("a") for _ in range(2)] == [True, False]
    assert all(Rates(0).allows("a") for _ in range(1000))


def test_the_command_refuses_in_one_line(packed, tmp_path, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", f"--pack={packed('AlterRec')}", f"--port={port}"]) == 2
    assert "cannot listen on 127.0.0.1" in capsys.readouterr().err
    for wrong in (
        [f"--pack={tmp_path}"],
        [f"--pack={packed('AlterRec')}", "--port=99999"],
        [f"--pack={packed('AlterRec')}", "--rate=-1"],
        [f"--pack={packed('AlterRec')}", "--epochs=1"],
    ):
        assert cli.main(["serve", *wrong]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1, told
