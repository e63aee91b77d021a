"""Bounds of size and rate, before a request is read any further."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

# As ASGI names them.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
# Clients whose rate is remembered; the one that was silent longest is forgotten first.
_CLIENTS = 10_000


class Rates:
    """How often each client may ask: ``rate`` requests per second, and as many at once.

    Parameters
    ----------
    rate
        Requests per second; 0 for any number.
    now
        A clock in seconds.
    """

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._now = rate, now
        # Requests that a client has left, and when that was so.
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str) -> bool:
        """Return whether a client may ask now, and count it."""
        if not self.rate:
            return True
        now, full = self._now(), max(self.rate, 1.0)
        left, then = self._left.pop(client, (full, now))
        left = min(full, left + (now - then) * self.rate)
        allowed = left >= 1
        self._left[client] = (left - allowed, now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return allowed


class Bounded:
    """An ASGI application in front of another: refuses bodies too large and clients too fast.

    Parameters
    ----------
    app
        The application behind.
    most_bytes
        Largest body.
    rates
        How often a client may ask.
    """

    def __init__(self, app: App, most_bytes: int, rates: Rates) -> None:
        self.app, self.most_bytes, self.rates = app, most_bytes, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 413 or 429."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = (scope.get("client") or ("",))[0]
        if not self.rates.allows(client):
            reason = f"more than {self.rates.rate:g} requests per second; ask again in a second"
            await _refuse(send, 429, reason)
            return
        body = await self._body(receive)
        if body is None:
            reason = f"the body is larger than {self.most_bytes} bytes; ask for fewer sessions"
            await _refuse(send, 413, reason)
            return
        await self.app(scope, _again(body, receive), send)

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the body, or None as soon as it is too large."""
        parts, size = [], 0
        while True:
            message = await receive()
            part = message.get("body", b"")
            size += len(part)
            if size > self.most_bytes:
                return None
            parts.append(part)
            if message["type"] != "http.request" or not message.get("more_body"):
                return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read already, then what comes behind it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return waiting.pop() if waiting else await receive()

    return give


async def _refuse(send: Send, status: int, reason: str) -> None:
    """Answer with a reason, in the form of all other errors."""
    body = json.dumps({"detail": reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", b"1"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
