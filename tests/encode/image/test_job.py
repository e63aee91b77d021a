"""Encoding a data set's pictures: reasons, reuse, resume after kill -9, class names."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.data.itememb import read_itememb
from recbole_mm.encode import encode_image, encode_text
from recbole_mm.encode.image.download import Limits
from recbole_mm.encode.image.encoders import PictureEncoder
from recbole_mm.encode.image.job import NoPicturesError
from recbole_mm.encode.image.labels import read_labels
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.errors import EncodeError
from recbole_mm.files import sha256_file

from ..conftest import needs, noise, second_process, wait_for_torn_part

needs("PIL", "torchvision", "sentence_transformers")

from PIL import Image  # noqa: E402

ITEMS = ["a", "b", "twin", "none", "broken", "empty", "z/1"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Write seven items; one has no picture, one a broken, one an empty one, two the same."""
    rows = "".join(f"{item}\tthing {item}\n" for item in ITEMS)
    (tmp_path / "d.item").write_text("item_id:token\ttitle:token_seq\n" + rows, encoding="utf-8")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed, name in enumerate(("a.png", "b.jpg", "z%2F1.png", "stranger.png")):
        Image.fromarray(noise(seed)).save(folder / name)
    (folder / "twin.jpg").write_bytes((folder / "b.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes((folder / "b.jpg").read_bytes()[:500])
    (folder / "empty.jpg").touch()
    return tmp_path


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of all pictures that are given to the encoder from now on."""
    seen: list[str] = []
    real = PictureEncoder.encode

    def encode(self, paths):
        seen.extend(Path(path).name for path in paths)
        return real(self, paths)

    monkeypatch.setattr(PictureEncoder, "encode", encode)
    return seen


def encode(shop: Path, model: Path, **more) -> Path:
    return encode_image(
        shop, "d", shop / "out", images=shop / "pictures", encoder=str(model), **more
    )


def test_items_get_their_vectors_and_the_rest_its_reasons(shop, clip, spied) -> None:
    path = encode(shop, clip)
    emb = read_itememb(path, "image")
    assert path.name == "d.image.itememb" and emb.ids == ["a", "b", "twin", "z/1"]
    np.testing.assert_array_equal(emb.vectors[1], emb.vectors[2])
    assert len({row.tobytes() for row in emb.vectors}) == 3
    assert len(spied) == 4 and "stranger.png" not in spied
    manifest = load_manifest(manifest_path(path))
    assert manifest.missing["none"] == "no picture"
    assert manifest.missing["empty"] == "the file is empty"
    assert manifest.missing["broken"].startswith("cannot be decoded")
    assert manifest.counts == {
        "items": 4, "missing": 3, "unusable": 2, "distinct_pictures": 4, "pictures_encoded": 4,
    }  # fmt: skip
    assert manifest.itememb_sha256 == sha256_file(path) and manifest.dim == 8
    assert {"pillow", "torchvision"} <= manifest.versions.keys()
    assert not (shop / "out" / "d.image.labels.json").exists()


def test_unchanged_pictures_are_not_encoded_again(shop, clip, spied) -> None:
    path = encode(shop, clip)
    before, rows = path.stat().st_ino, dict(zip(*_rows(path), strict=True))
    spied.clear()
    manifest = manifest_path(path).read_bytes()
    encode(shop, clip)
    assert spied == [] and path.stat().st_ino == before
    assert manifest_path(path).read_bytes() == manifest
    # A new picture, and a mended one, are.
    Image.fromarray(noise(9)).save(shop / "pictures" / "none.png")
    Image.fromarray(noise(8)).save(shop / "pictures" / "broken.jpg")
    encode(shop, clip)
    assert sorted(spied) == ["broken.jpg", "none.png"]
    after = dict(zip(*_rows(path), strict=True))
    assert after.keys() - rows.keys() == {"broken", "none"}
    assert {token: after[token] for token in rows} == rows


def _rows(path: Path) -> tuple[list[str], list[bytes]]:
    emb = read_itememb(path, "image")
    return emb.ids, [row.tobytes() for row in emb.vectors]


def test_googlenet_names_classes_that_texts_can_use(shop, googlenet_weights, bert) -> None:
    options = {"images": shop / "pictures", "weights": googlenet_weights, "batch_size": 2}
    path = encode_image(shop, "d", **options)
    labels = read_labels([shop], "d", "image")
    assert labels.keys() == {"a", "b", "twin", "z/1"}
    assert all(len(names) == 2 for names in labels.values())
    assert labels["b"] == labels["twin"]
    text = encode_text(
        shop, "d", modality="pseudo_text", fields=["@image"], encoder=str(bert), pooling="cls"
    )
    assert read_itememb(text, "pseudo_text").ids == ["a", "b", "twin", "z/1"]
    # A lost labels file, or another number of names, needs no encoding.
    sidecar = shop / "d.image.labels.json"
    content, stat = sidecar.read_bytes(), path.stat()
    sidecar.unlink()
    encode_image(shop, "d", **options)
    assert sidecar.read_bytes() == content and path.stat().st_mtime_ns == stat.st_mtime_ns
    encode_image(shop, "d", labels=3, **options)
    assert len(read_labels([shop], "d", "image")["a"]) == 3
    assert read_labels([shop], "d", "image")["a"][:2] == labels["a"]
    # Labels of other vectors are refused.
    plain = json.loads(content)
    sidecar.write_text(json.dumps({**plain, "itememb_sha256": "0"}), encoding="utf-8")
    with pytest.raises(EncodeError, match="made of other vectors"):
        read_labels([shop], "d", "image")
    sidecar.write_text("[]", encoding="utf-8")
    with pytest.raises(EncodeError, match="no labels of this package"):
        read_labels([shop], "d", "image")


def test_killed_run_resumes_to_the_same_bytes(shop, googlenet_weights, spied) -> None:
    """Real kill -9 of a real process."""
    items = [f"p{number}" for number in range(7)]
    rows = "".join(f"{item}\tx\n" for item in [*items, "broken"])
    (shop / "d.item").write_text("item_id:token\ttitle:token_seq\n" + rows, encoding="utf-8")
    for seed, item in enumerate(items):
        Image.fromarray(noise(seed, 24, 24)).save(shop / "pictures" / f"{item}.png")
    options = {
        "images": str(shop / "pictures"), "weights": str(googlenet_weights),
        "batch_size": 1, "chunk_size": 1,
    }  # fmt: skip
    code = (
        "from recbole_mm.encode import encode_image\n"
        f"encode_image({str(shop)!r}, 'd', **{options!r})"
    )
    parts = shop / ".d.image.parts"
    with second_process(code) as process:
        whole = encode_image(shop, "d", shop / "whole", **options)
        wait_for_torn_part(process, parts)
    assert parts.is_dir() and not (shop / "d.image.itememb").exists()
    spied.clear()
    path = encode_image(shop, "d", **options)
    assert len(spied) == 8 - 3 and not parts.exists()
    for name in ("d.image.itememb", "d.image.manifest.json", "d.image.labels.json"):
        assert path.with_name(name).read_bytes() == whole.with_name(name).read_bytes()
    assert "broken" in load_manifest(manifest_path(path)).missing


def test_pictures_by_address(shop, clip) -> None:
    served = partial(SimpleHTTPRequestHandler, directory=str(shop / "pictures"))
    served.func.log_message = lambda *args: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), served)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    rows = f"a\t{url}/a.png {url}/b.jpg\nb\t\nc\t{url}/gone.png\nd\t{url}/broken.jpg\n"
    (shop / "d.item").write_text("item_id:token\turl:token_seq\n" + rows, encoding="utf-8")
    try:
        path = encode_image(
            shop,
            "d",
            image_col="url",
            encoder=str(clip),
            limits=Limits(pause=0, allow_private=True),
        )
    finally:
        server.shutdown()
        server.server_close()
    assert read_itememb(path, "image").ids == ["a"]
    missing = load_manifest(manifest_path(path)).missing
    assert missing["b"] == "no picture" and "answered 404" in missing["c"]
    assert missing["d"].startswith("cannot be decoded")
    assert sorted(file.name for file in (shop / "d.pictures").iterdir()) == [
        "a.png", "d.jpg", "failed.json",
    ]  # fmt: skip
    # Now without the server: what is there suffices.
    again = encode_image(shop, "d", images=shop / "d.pictures", encoder=str(clip))
    assert read_itememb(again, "image").ids == ["a"]


def test_errors(shop, clip, tmp_path) -> None:
    with pytest.raises(NoPicturesError, match=r"--images=FOLDER.*--from_npy=vectors.npy"):
        encode_image(shop, "d")
    (tmp_path / "x").mkdir()
    with pytest.raises(EncodeError, match="no picture of any of the 7 items"):
        encode_image(shop, "d", images=tmp_path / "x", encoder=str(clip))
    (tmp_path / "x" / "a.jpg").write_bytes(b"text")
    with pytest.raises(EncodeError, match="no picture can be used .*no picture .JPEG"):
        encode_image(shop, "d", images=tmp_path / "x", encoder=str(clip))
    assert not (shop / "d.image.itememb").exists()
    encode(shop, clip)
    path = shop / "out" / "d.image.itememb"
    path.write_text("image_id:token\timage_emb:float_seq\na\t1 2 3\n", encoding="utf-8")
    with pytest.raises(EncodeError, match="edited"):
        encode(shop, clip)
    (shop / "d.item").write_text("item_id:token\ttitle:token_seq\n\tx\n", encoding="utf-8")
    with pytest.raises(EncodeError, match=r"d\.item: column item_id is empty"):
        encode_image(shop, "d", shop / "other", images=shop / "pictures", encoder=str(clip))
