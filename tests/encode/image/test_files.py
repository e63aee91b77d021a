"""Opening pictures: every odd one is converted or refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.encode.image import files as module
from recbole_mm.encode.image.files import (
    PictureError,
    file_hash,
    find_pictures,
    open_picture,
    picture_name,
)
from recbole_mm.errors import EncodeError

from ..conftest import needs

needs("PIL")

from PIL import Image  # noqa: E402

RED, BLUE = (255, 0, 0), (0, 0, 255)


def pixels(path: Path) -> np.ndarray:
    picture = open_picture(path)
    assert picture.mode == "RGB"
    return np.asarray(picture).astype(int)


def refused(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        open_picture(path)
    return str(caught.value)


def two_halves(width: int = 40, height: int = 20) -> Image.Image:
    """Return a picture whose left half is red and right half blue."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.gif"])
def test_usual_formats(tmp_path: Path, name: str) -> None:
    two_halves().save(tmp_path / name)
    shown = pixels(tmp_path / name)
    assert shown.shape == (20, 40, 3)
    assert np.abs(shown[10, 5] - RED).max() < 8 and np.abs(shown[10, 35] - BLUE).max() < 8


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png", format="JPEG")
    assert pixels(tmp_path / "a.png").shape == (20, 40, 3)
    (tmp_path / "b.jpg").write_bytes(b"<html>not found</html>")
    assert "no picture (JPEG" in refused(tmp_path / "b.jpg")


def test_cmyk(tmp_path: Path) -> None:
    two_halves().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(pixels(tmp_path / "a.jpg")[10, 5] - RED).max() < 20


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    layer = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    layer.paste((255, 0, 0, 255), (5, 0, 10, 10))
    layer.save(tmp_path / "rgba.png")
    palette = layer.quantize(4)
    palette.save(tmp_path / "palette.png")
    assert palette.mode == "P"
    Image.new("LA", (10, 10), (0, 0)).save(tmp_path / "grey.png")
    for name in ("rgba.png", "palette.png"):
        assert pixels(tmp_path / name)[5, 2].tolist() == [255, 255, 255]
        assert np.abs(pixels(tmp_path / name)[5, 8] - RED).max() < 4
    assert (pixels(tmp_path / "grey.png") == 255).all()


def test_grey_and_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(tmp_path / "16bit.png")
    assert (pixels(tmp_path / "16bit.png") == 128).all()
    Image.new("1", (8, 8), 1).save(tmp_path / "1bit.png")
    assert (pixels(tmp_path / "1bit.png") == 255).all()
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tif")
    assert "floating-point" in refused(tmp_path / "float.tif")


def test_animated_pictures_show_their_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, BLUE)]
    for name in ("a.gif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.abs(pixels(tmp_path / name)[10, 10] - RED).max() < 4


def test_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    two_halves().save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = pixels(tmp_path / "a.jpg")
    assert shown.shape == (40, 20, 3)
    assert np.abs(shown[5, 10] - RED).max() < 8 and np.abs(shown[35, 10] - BLUE).max() < 8


def test_cut_off_empty_and_unreadable(tmp_path: Path) -> None:
    two_halves(400, 300).save(tmp_path / "a.jpg")
    raw = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(raw[: len(raw) // 2])
    assert refused(tmp_path / "a.jpg").startswith("cannot be decoded (OSError: image file is trunc")
    (tmp_path / "empty.jpg").touch()
    assert refused(tmp_path / "empty.jpg") == "the file is empty"
    with pytest.raises(PictureError, match="the file is empty"):
        file_hash(tmp_path / "empty.jpg")
    assert "cannot be read (Is a directory)" in refused(tmp_path)
    assert "cannot be read (No such file" in refused(tmp_path / "absent.jpg")


def bomb(width: int, height: int) -> bytes:
    """Return a PNG that promises more pixels than it holds."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(bomb(side, side))
    assert "pixels" in refused(tmp_path / "a.png")
    assert "64,000,000" in refused(tmp_path / "a.png")


def test_a_thread_of_pixels_would_grow_when_resized(tmp_path: Path) -> None:
    Image.new("L", (5001, 100)).save(tmp_path / "a.png")
    assert "too narrow" in refused(tmp_path / "a.png")
    Image.new("L", (5000, 100)).save(tmp_path / "b.png")
    assert pixels(tmp_path / "b.png").shape == (100, 5000, 3)


def test_too_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_halves().save(tmp_path / "a.png")
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    assert "MiB, more than" in refused(tmp_path / "a.png")


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"):
        stream = io.BytesIO()
        two_halves().save(stream, format=name)
        for _ in range(60):
            raw = bytearray(stream.getvalue())
            for place in rng.integers(0, len(raw), 3):
                raw[place] = rng.integers(0, 256)
            (tmp_path / "a").write_bytes(bytes(raw))
            try:
                assert open_picture(tmp_path / "a").mode == "RGB"
            except PictureError as error:
                assert " at 0x" not in str(error)


def test_finding_by_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in (
        "B1.JPG", "B2.png", "B2.jpg", "sub/B3.webp", "a%2Fb.jpg", "B4.v2", "B5.txt", "stranger.jpg",
        "B6.v2.png",
    ):  # fmt: skip
        (tmp_path / name).touch()
    tokens = ["B1", "B2", "B3", "a/b", "B4.v2", "B5", "B6.v2", "none", "b1"]
    found = find_pictures(tmp_path, tokens)
    assert {token: path.relative_to(tmp_path).as_posix() for token, path in found.items()} == {
        "B1": "B1.JPG",
        "B2": "B2.jpg",
        "B3": "sub/B3.webp",
        "a/b": "a%2Fb.jpg",
        "B4.v2": "B4.v2",
        "B6.v2": "B6.v2.png",
    }
    with pytest.raises(EncodeError, match="no such folder"):
        find_pictures(tmp_path / "absent", tokens)


@pytest.mark.parametrize("token", ["a/b", "..", ".", "x" * 300, "ü/" * 40, "a:b*?", "con\\x"])
def test_names_are_file_names(token: str, tmp_path: Path) -> None:
    name = picture_name(token)
    assert "/" not in name and len(name) <= 200 and name.strip(". ")
    (tmp_path / f"{name}.jpg").touch()
    assert find_pictures(tmp_path, [token])[token].parent == tmp_path
