"""Finding pictures in a folder and opening them safely: an odd one never stops a run."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from recbole_mm.errors import EncodeError

if TYPE_CHECKING:
    from PIL.Image import Image

# In order of preference, where an item has several.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", "")
# What is in a file decides, not its name. Formats that other programs render are left out.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_BYTES = 50 << 20
MAX_PIXELS = 64_000_000
# Resizing the short side to 256 makes the long one this many times as long.
MAX_ASPECT = 50
_LONGEST_NAME = 200


class PictureError(Exception):
    """A picture cannot be used; the message is the reason that the manifest gives."""


def picture_name(token: str) -> str:
    """Return the file name, without extension, of an item's picture.

    Characters that no file name can hold everywhere are written ``%2F``; a name too long for a file
    is replaced by a hash.
    """
    name = quote(token, safe=" !#$&'()+,;=@[]{}^~")
    if len(name) <= _LONGEST_NAME and name.strip(". "):
        return name
    return f"sha256-{sha256(token.encode()).hexdigest()}"


def find_pictures(folder: str | Path, tokens: Iterable[str]) -> dict[str, Path]:
    """Return ``{item token: file}`` of the items that have a picture under ``folder``.

    A file belongs to the item whose token is the file's name without extension, or that name with
    ``%2F`` and the like resolved. Sub-folders are searched too. Of several files of one item the
    one whose extension stands first in `EXTENSIONS`, and then the first by path, is taken.

    Raises
    ------
    EncodeError
        If there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EncodeError(
            f"{folder}: no such folder. Expected pictures named by item, such as "
            f"{folder / 'B000123.jpg'} (--images=FOLDER)."
        )
    found: dict[str, list[tuple[int, Path]]] = {}
    for root, _, names in os.walk(folder):
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension.lower() not in EXTENSIONS:
                # `B000.v2` is an item's name without extension.
                stem, extension = name, ""
            rank = EXTENSIONS.index(extension.lower())
            found.setdefault(stem, []).append((rank, Path(root, name)))
    files = {}
    for token in tokens:
        candidates = found.get(picture_name(token), []) + found.get(token, [])
        if candidates:
            files[token] = min(candidates)[1]
    return files


def file_hash(path: Path) -> str:
    """Return 32 hexadecimal digits of the SHA-256 of a picture's file.

    Raises
    ------
    PictureError
        If it is empty, too large, or cannot be read.
    """
    return sha256(_read(path)).hexdigest()[:32]


def _read(path: Path) -> bytes:
    """Return a file's bytes."""
    try:
        size = path.stat().st_size
        if size == 0:
            raise PictureError("the file is empty")
        if size > MAX_BYTES:
            raise PictureError(f"the file has {size >> 20} MiB, more than {MAX_BYTES >> 20}")
        return path.read_bytes()
    except OSError as error:
        raise PictureError(f"the file cannot be read ({error.strerror})") from error


def open_picture(path: Path) -> Image:
    """Open a picture as RGB, upright, the first frame only, transparency on white.

    Raises
    ------
    PictureError
        If it is empty, no picture, damaged, cut off, or has too many pixels.
    """
    raw = _read(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(raw)
    except PictureError:
        raise
    except Exception as error:  # a damaged file makes the library raise almost anything
        # Addresses of objects would make two manifests of one folder differ.
        words = re.sub(r"<[^>]*>", "", str(error)).strip()
        raise PictureError(f"cannot be decoded ({type(error).__name__}: {words})") from error


def _decode(raw: bytes) -> Image:
    """Turn the bytes of a file into an RGB picture."""
    from io import BytesIO

    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        picture: Image.Image = Image.open(BytesIO(raw), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise PictureError(f"no picture ({', '.join(_FORMATS)})") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"more than {MAX_PIXELS:,} pixels") from error
    # The size is known before the pixels are decoded, which a few bytes can blow up to gigabytes.
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"{width} x {height} pixels, more than {MAX_PIXELS:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PictureError(f"{width} x {height} pixels: too narrow")
    picture.seek(0)
    picture.load()
    return _as_rgb(ImageOps.exif_transpose(picture))


def _as_rgb(picture: Image) -> Image:
    """Convert any mode to RGB; transparent parts become white."""
    from PIL import Image

    if picture.mode.startswith("I"):
        # Pillow would cut 16-bit greys off at 255.
        greys = np.clip(np.asarray(picture, dtype=np.float64) / 257, 0, 255)
        return Image.fromarray(np.rint(greys).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise PictureError("floating-point pixels have no known range")
    if "A" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")
