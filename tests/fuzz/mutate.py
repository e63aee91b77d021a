"""Seeded damage to bytes: flips, cuts, repeats, and bytes that readers stumble over."""

from __future__ import annotations

import random

# Whole values and separators that mean something to one reader or another.
NASTY = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n", b"\t", b"\t\t", b'"', b"'",
    b"nan", b"inf", b"-inf", b"-1", b"0", b"1e309", b"9" * 400, b"NA", b"null", b"~", b"[PAD]",
    b"{", b"}", b"[" * 3000, b'{"a":' * 2000, b"]", b":", b",", b"- ", b"&a [*a]", b"../../x",
    b"!!python/name:os.system", b"__class__", b"\xc3\x28", "é".encode(), "\u202e".encode(),
    b"true", b"1.5", b"%s%n",
)  # fmt: skip


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Return damaged bytes; one to four things happen to them."""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        data = draw.choice(_WAYS)(data, draw)
    return data


def _place(data: bytes, draw: random.Random) -> int:
    return draw.randrange(len(data) + 1)


def _flip(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return b"\x80"
    changed = bytearray(data)
    changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)]


def _drop(data: bytes, draw: random.Random) -> bytes:
    start = _place(data, draw)
    return data[:start] + data[start + draw.randrange(1, 20) :]


def _insert(data: bytes, draw: random.Random) -> bytes:
    place = _place(data, draw)
    return data[:place] + draw.choice(NASTY) + data[place:]


def _replace_word(data: bytes, draw: random.Random) -> bytes:
    """Put a nasty value into the place of a cell, a number, or a word."""
    words = data.replace(b"\n", b"\t").split(b"\t")
    word = draw.choice(words)
    return data.replace(word, draw.choice(NASTY), 1) if word else _insert(data, draw)


def _repeat_line(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    place = draw.randrange(len(lines))
    return b"\n".join([*lines[:place], lines[place], *lines[place:]])


def _swap_lines(data: bytes, draw: random.Random) -> bytes:
    lines = data.split(b"\n")
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def _noise(data: bytes, draw: random.Random) -> bytes:
    place = _place(data, draw)
    return data[:place] + draw.randbytes(draw.randrange(1, 12)) + data[place:]


_WAYS = (_flip, _flip, _cut, _drop, _insert, _replace_word, _replace_word, _repeat_line,
         _swap_lines, _noise)  # fmt: skip
