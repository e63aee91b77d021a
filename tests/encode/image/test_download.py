"""Fetching pictures from a real server on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recbole_mm.encode.image import network
from recbole_mm.encode.image.download import FAILED, Limits, download_pictures
from recbole_mm.errors import EncodeError

PICTURE = b"\x89PNG picture" * 100
FAST = Limits(pause=0.0, timeout=2.0, retries=2, allow_private=True)


class Shop:
    """A server, what it was asked for, and when."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []
        self.agents: set[str] = set()
        self.busy = 0
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.asked.append((self.path, time.monotonic()))
                shop.agents.add(self.headers["User-Agent"])
                getattr(shop, self.path.split("/")[1].split(".")[0], shop.missing)(self)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    @staticmethod
    def answer(handler, status=200, body=PICTURE, length=None, **headers) -> None:
        handler.send_response(status)
        headers = {"Content_Type": "image/png", **headers}
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    def good(self, handler) -> None:
        self.answer(handler)

    def missing(self, handler) -> None:
        self.answer(handler, 404, b"")

    def page(self, handler) -> None:
        self.answer(handler, body=b"<html>", Content_Type="text/html; charset=utf-8")

    def empty(self, handler) -> None:
        self.answer(handler, body=b"")

    def promised(self, handler) -> None:
        self.answer(handler, body=b"x", length=50 << 20)

    def endless(self, handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(200):
                handler.wfile.write(b"x" * (1 << 16))
        except OSError:
            return

    def broken(self, handler) -> None:
        self.answer(handler, body=PICTURE, length=len(PICTURE) + 50)

    def limited(self, handler) -> None:
        self.busy += 1
        if self.busy < 3:
            self.answer(handler, 429, b"", Retry_After="0")
        else:
            self.answer(handler)

    def error(self, handler) -> None:
        self.answer(handler, 503, b"")

    def moved(self, handler) -> None:
        self.answer(handler, 302, b"", Location="/good.png")

    def circle(self, handler) -> None:
        self.answer(handler, 302, b"", Location="/circle.png")

    def outside(self, handler) -> None:
        self.answer(handler, 302, b"", Location="file:///etc/passwd")

    def inward(self, handler) -> None:
        port = self.server.server_port
        self.answer(handler, 302, b"", Location=f"http://localhost:{port}/good.png")


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.server.shutdown()
    made.server.server_close()


def fetch(shop: Shop, folder: Path, *names: str, limits: Limits = FAST) -> dict[str, str]:
    urls = {name.split(".")[0]: f"{shop.url}/{name}" for name in names}
    return download_pictures(urls, folder, limits)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != FAILED)


def test_pictures_arrive_and_are_not_fetched_again(shop: Shop, tmp_path: Path) -> None:
    urls = {"a/b": f"{shop.url}/good.PNG?size=2", "c": f"{shop.url}/moved", "d": f"{shop.url}/good"}
    assert download_pictures(urls, tmp_path, FAST) == {}
    assert files(tmp_path) == ["a%2Fb.png", "c", "d"]
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {PICTURE}
    assert all(agent.startswith("recbole_mm/") for agent in shop.agents)
    asked = len(shop.asked)
    (tmp_path / "d").unlink()
    (tmp_path / "d.jpg").write_bytes(b"the user's own")
    assert download_pictures(urls, tmp_path, FAST) == {}
    assert len(shop.asked) == asked


@pytest.mark.parametrize(
    ("name", "reason", "final"),
    [
        ("missing.png", "answered 404", True),
        ("page.png", "sent text/html, no picture", True),
        ("empty.png", "is empty", True),
        ("promised.png", "more than 10 MiB", True),
        ("endless.png", "more than 10 MiB", True),
        ("broken.png", "ProtocolError", False),
        ("error.png", "answered 503", False),
        ("circle.png", "answered 302", False),
        ("outside.png", "is no address", True),
    ],
)
def test_what_is_no_picture_is_named(
    shop: Shop, tmp_path: Path, name: str, reason: str, final: bool
) -> None:
    failed = fetch(shop, tmp_path, name, "good.png")
    assert list(failed) == [name.split(".")[0]]
    assert reason in failed[name.split(".")[0]]
    assert files(tmp_path) == ["good.png"]
    # What was refused for good is not asked for again, and still has its reason.
    asked = len(shop.asked)
    assert fetch(shop, tmp_path, name, "good.png") == failed
    assert (len(shop.asked) == asked) is final
    # Another address is.
    again = download_pictures({name.split(".")[0]: f"{shop.url}/good.png"}, tmp_path, FAST)
    assert again == {}


def test_retries_are_bounded(shop: Shop, tmp_path: Path) -> None:
    assert fetch(shop, tmp_path, "limited.png") == {}
    assert len(shop.asked) == 3
    fetch(shop, tmp_path, "error.png")
    assert shop.paths().count("/error.png") == 3
    fetch(shop, tmp_path, "circle.png")
    assert shop.paths().count("/circle.png") == 6


@pytest.mark.parametrize(
    "url", ["http://[::1/x.png", "http://\u2100.com/x.png", "http://a..b/x", "http://x:99999/"]
)
def test_an_address_that_cannot_be_read_costs_only_itself(
    url: str, shop: Shop, tmp_path: Path
) -> None:
    urls = {"bad": url, "good": f"{shop.url}/good.png"}
    failed = download_pictures(urls, tmp_path, FAST)
    assert list(failed) == ["bad"] and "is no address" in failed["bad"]
    assert files(tmp_path) == ["good.png"]


def test_private_addresses_are_not_asked(shop: Shop, tmp_path: Path) -> None:
    """Not by number, name or decimal; what is allowed later is fetched then."""
    port = shop.server.server_port
    names = ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "0x7f.1", "0.0.0.0")
    urls = {str(k): f"http://{name}:{port}/good.png" for k, name in enumerate(names)}
    failed = download_pictures(urls, tmp_path, replace(FAST, allow_private=False))
    assert all("no public address (--allow_private" in failed[token] for token in urls), failed
    assert shop.asked == [] and files(tmp_path) == []
    assert download_pictures({"0": urls["0"]}, tmp_path, FAST) == {}


def test_a_redirect_to_a_private_address_is_not_followed(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first server is taken for a public one; where it sends to is looked at all the same."""
    looked: list[str] = []

    def look(host: str, port: int) -> list[str]:
        looked.append(host)
        return ["127.0.0.1"] if host == "shop.example" else network_look(host, port)

    network_look = network.public_addresses
    monkeypatch.setattr(network, "public_addresses", look)
    url = f"http://shop.example:{shop.server.server_port}/inward"
    failed = download_pictures({"a": url}, tmp_path, replace(FAST, allow_private=False))
    assert "localhost leads to" in failed["a"] and looked == ["shop.example", "localhost"]
    assert shop.paths() == ["/inward"] and files(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1",
        "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "::7f00:1",
        "2001:db8::1",
    ],
)  # fmt: skip
def test_what_is_no_public_address(address: str) -> None:
    assert not network.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_what_is_a_public_address(address: str) -> None:
    assert network.is_public(address)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y.jpg", "B000.jpg", "http://", "a b"]
)
def test_only_web_addresses(url: str, tmp_path: Path) -> None:
    failed = download_pictures({"a": url}, tmp_path, FAST)
    assert "no http or https address" in failed["a"]


def test_no_more_than_asked_for(shop: Shop, tmp_path: Path) -> None:
    urls = {f"i{k}": f"{shop.url}/good{k}".replace("good", "good.") for k in range(5)}
    failed = download_pictures(urls, tmp_path, Limits(count=2, pause=0, allow_private=True))
    assert sorted(failed) == ["i2", "i3", "i4"] and "--max_downloads" in failed["i4"]
    assert len(shop.asked) == 2
    failed = download_pictures(urls, tmp_path, Limits(count=2, pause=0, allow_private=True))
    assert sorted(failed) == ["i4"] and len(shop.asked) == 4


def test_a_host_is_left_alone_between_two_requests(shop: Shop, tmp_path: Path) -> None:
    fetch(shop, tmp_path, "good.1", "good.2", limits=FAST)
    urls = {f"p{k}": f"{shop.url}/good.{k}" for k in range(3)}
    download_pictures(urls, tmp_path, Limits(pause=0.15, allow_private=True))
    times = [when for _, when in shop.asked[-3:]]
    assert times[1] - times[0] > 0.14 and times[2] - times[1] > 0.14


def test_without_network_it_gives_up(tmp_path: Path) -> None:
    # A port that nobody listens on.
    urls = {f"i{k}": f"http://127.0.0.1:9/{k}.png" for k in range(50)}
    limits = Limits(pause=0, timeout=1, retries=0, failures=4, allow_private=True)
    with pytest.raises(EncodeError, match=r"4 connections in a row failed.*Is there a network"):
        download_pictures(urls, tmp_path, limits)


def test_broken_notes_cost_only_another_try(shop: Shop, tmp_path: Path, caplog) -> None:
    fetch(shop, tmp_path, "missing.png")
    notes = json.loads((tmp_path / FAILED).read_text(encoding="utf-8"))
    assert notes == {"missing": [f"{shop.url}/missing.png", notes["missing"][1]]}
    (tmp_path / FAILED).write_text("[", encoding="utf-8")
    fetch(shop, tmp_path, "missing.png")
    assert shop.paths().count("/missing.png") == 2
    assert "cannot be used" in caplog.text
