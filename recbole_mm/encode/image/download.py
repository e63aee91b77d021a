"""Fetching pictures by address: politely, within bounds, and resumable."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm
from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, LocationValueError

from recbole_mm.encode.image.files import EXTENSIONS, PictureError, find_pictures, picture_name
from recbole_mm.encode.image.network import PrivateAddressError, pool_manager
from recbole_mm.errors import EncodeError
from recbole_mm.files import atomic_write, read_json
from recbole_mm.version import __version__

logger = logging.getLogger(__name__)

FAILED = "failed.json"
_BLOCK = 1 << 16
_LONGEST_PAUSE = 60.0
# A server that says so will not have the picture tomorrow either.
_GONE = (400, 401, 403, 404, 405, 410, 451)


@dataclass(frozen=True)
class Limits:
    """Bounds of a download.

    Attributes
    ----------
    count
        Pictures fetched in one call.
    megabytes
        Largest picture, in MiB.
    pause
        Seconds between two requests to one host.
    timeout
        Seconds without an answer; a picture may take ten times as long in all.
    retries
        Further tries after a failed connection or a busy server, with growing pauses.
    failures
        Connections that fail one after the other before the whole download is given up.
    allow_private
        Also fetch from this machine and from local networks.
    """

    count: int = 100_000
    megabytes: float = 10.0
    pause: float = 0.2
    timeout: float = 20.0
    retries: int = 3
    failures: int = 10
    allow_private: bool = False


class _PatientRetry(Retry):
    """Waits as long as a server asks for, but no longer than a minute."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Return the seconds that the server asks to wait, bounded."""
        seconds = super().get_retry_after(response)
        return seconds and min(seconds, _LONGEST_PAUSE)


@dataclass
class _State:
    """What goes on during a download."""

    last: dict[str, float] = field(default_factory=dict)
    unreachable: int = 0


def download_pictures(
    urls: Mapping[str, str], folder: str | Path, limits: Limits | None = None
) -> dict[str, str]:
    """Fetch the pictures that are not in ``folder`` yet, one after the other.

    A picture is put in place whole or not at all, so that a killed call goes on where it stopped.
    Addresses that a server refused for good are noted in ``failed.json`` and not asked for again
    unless they change; remove that file to try them once more.

    Parameters
    ----------
    urls
        ``{item token: http or https address}``.
    folder
        Where the pictures go, named by item.
    limits
        Bounds; None takes the defaults.

    Returns
    -------
    dict
        ``{item token: why there is no picture}`` of the items whose picture could not be had.

    Raises
    ------
    EncodeError
        If nothing can be reached, or the folder cannot be written.
    """
    folder, limits = Path(folder), limits or Limits()
    folder.mkdir(parents=True, exist_ok=True)
    there = find_pictures(folder, urls)
    notes = _read_notes(folder / FAILED)
    failed = {token: notes[token][1] for token in urls if _noted(notes, token, urls[token], there)}
    wanted = [token for token in urls if token not in there and token not in failed]
    for token in wanted[limits.count :]:
        failed[token] = f"not fetched: more than {limits.count} pictures (--max_downloads)"
    wanted = wanted[: limits.count]
    logger.info("%d pictures to fetch, %d are in %s already.", len(wanted), len(there), folder)
    try:
        for token, reason, final in _fetch_all(wanted, urls, folder, limits):
            failed[token] = reason
            if final:
                notes[token] = (urls[token], reason)
    except OSError as error:
        raise EncodeError(f"{folder}: cannot be written ({error}).") from error
    finally:
        _write_notes(folder / FAILED, notes)
    return failed


def _noted(
    notes: Mapping[str, tuple[str, str]], token: str, url: str, there: Mapping[str, Path]
) -> bool:
    """Return whether this very address was refused for good before."""
    return token not in there and token in notes and notes[token][0] == url


def _fetch_all(
    wanted: list[str], urls: Mapping[str, str], folder: Path, limits: Limits
) -> Iterator[tuple[str, str, bool]]:
    """Fetch pictures; yield token, reason and finality of each that cannot be had."""
    retry = _PatientRetry(
        total=limits.retries + 5, connect=limits.retries, read=limits.retries,
        status=limits.retries, redirect=5, status_forcelist=(429, 500, 502, 503, 504),
        backoff_factor=limits.pause, raise_on_status=False, raise_on_redirect=False,
    )  # fmt: skip
    agent = f"recbole_mm/{__version__} (research; one picture at a time)"
    state = _State()
    with pool_manager(
        limits.allow_private,
        headers={"User-Agent": agent, "Accept": "image/*", "Accept-Encoding": "identity"},
        retries=retry,
        timeout=Timeout(connect=limits.timeout, read=limits.timeout),
    ) as pool:  # fmt: skip
        for token in tqdm(wanted, "fetching pictures", disable=None, file=sys.stderr):
            try:
                _fetch(pool, urls[token], folder / picture_name(token), limits, state)
                state.unreachable = 0
            except _RefusedError as error:
                state.unreachable = 0
                yield token, str(error), error.final
            except HTTPError as error:
                _count_failure(state, limits, urls[token], error)
                yield token, f"{urls[token]}: {type(error).__name__}", False


class _RefusedError(PictureError):
    """A server answered, but not with a picture that can be used."""

    def __init__(self, message: str, final: bool = True):
        super().__init__(message)
        self.final = final


def _count_failure(state: _State, limits: Limits, url: str, error: Exception) -> None:
    """Give up after too many failures in a row: without network each would take minutes."""
    state.unreachable += 1
    if state.unreachable >= limits.failures:
        raise EncodeError(
            f"{state.unreachable} connections in a row failed, the last one to {url} "
            f"({type(error).__name__}). Is there a network? What was fetched is kept; start again "
            "later, or put the pictures into the folder yourself and leave --image_col out."
        ) from error


def _fetch(pool: PoolManager, url: str, target: Path, limits: Limits, state: _State) -> None:
    """Fetch one picture; its final name says that it is whole."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _RefusedError(f"{url!r} is no address ({error})") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise _RefusedError(f"{url!r} is no http or https address")
    _wait(state, parts.netloc, limits.pause)
    try:
        answer = pool.request("GET", url, preload_content=False)
    except PrivateAddressError as error:
        raise _RefusedError(f"{url!r}: {error} (--allow_private fetches it)", False) from error
    except (LocationValueError, UnicodeError) as error:
        raise _RefusedError(f"{url!r} is no address") from error
    with answer:
        _check_answer(answer, url)
        extension = Path(parts.path).suffix.lower()
        extension = extension if extension in EXTENSIONS else ""
        with atomic_write(target.with_name(target.name + extension), "wb") as stream:
            for block in _blocks(answer, url, limits):
                stream.write(block)


def _wait(state: _State, host: str, pause: float) -> None:
    """Leave a host alone for a while after the last request."""
    if host in state.last:
        time.sleep(max(0.0, state.last[host] + pause - time.monotonic()))
    state.last[host] = time.monotonic()


def _check_answer(answer: BaseHTTPResponse, url: str) -> None:
    """Refuse an answer that is no picture."""
    if answer.status != 200:
        final = answer.status in _GONE
        raise _RefusedError(f"{url}: the server answered {answer.status}", final)
    kind = answer.headers.get("Content-Type", "image/*").lower()
    if not kind.startswith(("image/", "application/octet-stream", "binary/")):
        raise _RefusedError(f"{url}: the server sent {kind.partition(';')[0]}, no picture")


def _blocks(answer: BaseHTTPResponse, url: str, limits: Limits) -> Iterator[bytes]:
    """Yield the content; stop where it becomes too large or too slow."""
    most = int(limits.megabytes * (1 << 20))
    too_large = _RefusedError(f"{url}: more than {limits.megabytes:g} MiB")
    told = answer.headers.get("Content-Length", "").strip()
    if told.isdigit() and int(told) > most:
        raise too_large
    end, size = time.monotonic() + 10 * limits.timeout, 0
    # decode_content: a few compressed bytes could become gigabytes; blocks are counted unpacked.
    for block in answer.stream(_BLOCK, decode_content=True):
        size += len(block)
        if size > most:
            raise too_large
        if time.monotonic() > end:
            raise _RefusedError(f"{url}: took longer than {10 * limits.timeout:g} s", final=False)
        yield block
    if size == 0:
        raise _RefusedError(f"{url}: the answer is empty")


def _read_notes(path: Path) -> dict[str, tuple[str, str]]:
    """Return ``{item token: (address, reason)}``; a broken file is as good as none."""
    try:
        plain = read_json(path)
        return {str(token): (str(url), str(reason)) for token, (url, reason) in plain.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be used (%s); all its addresses are tried again.", path, error)
        return {}


def _write_notes(path: Path, notes: Mapping[str, tuple[str, str]]) -> None:
    """Keep the addresses that were refused for good."""
    if notes or path.exists():
        with atomic_write(path) as stream:
            json.dump(notes, stream, indent=1, ensure_ascii=False)
            stream.write("\n")
