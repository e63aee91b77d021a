"""Vision models of transformers, tiny and random: the library's own numbers, and how pooled."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from recbole_mm.encode.image.encoders import Clip, GoogLeNet, resolve_picture_encoder
from recbole_mm.encode.image.job import encode_image
from recbole_mm.encode.image.vision import Vision, encoder_class
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.errors import EncodeError

from ..conftest import needs, noise

needs("PIL", "torchvision", "sentence_transformers")

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

POOLED = {
    "dinov2": "model's pooler", "siglip": "image features of the model",
    "siglip2": "image features of the model", "vit": "first token", "convnext": "model's pooler",
}  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{seed}.png" for seed in range(5)]
    for seed, path in enumerate(paths):
        Image.fromarray(noise(seed, 40 + 8 * seed, 56)).save(path)
    return [str(path) for path in paths]


def expected(folder: Path, paths: list[str]) -> torch.Tensor:
    """Return what transformers makes of the pictures, one by one."""
    import transformers as t

    prepare = t.AutoImageProcessor.from_pretrained(folder)
    kind = folder.name
    if kind.startswith("siglip"):
        network = (t.SiglipModel if kind == "siglip" else t.Siglip2Model).from_pretrained(folder)
        make = lambda inputs: network.get_image_features(**inputs).pooler_output  # noqa: E731
    elif kind == "vit":
        network = t.ViTForImageClassification.from_pretrained(folder).vit
        make = lambda inputs: network(**inputs).last_hidden_state[:, 0]  # noqa: E731
    else:
        network = t.AutoModel.from_pretrained(folder)
        make = lambda inputs: network(**inputs).pooler_output.flatten(1)  # noqa: E731
    network.eval()
    with torch.no_grad():
        return torch.cat(
            [make(prepare(images=[Image.open(path)], return_tensors="pt")) for path in paths]
        )


def test_vectors_are_the_librarys_own_whatever_the_batch(vision, pictures) -> None:
    source = resolve_picture_encoder(str(vision))
    assert encoder_class(source) is Vision
    encoder = Vision(source, batch_size=2)
    vectors, notes = encoder.encode(pictures)
    assert notes == [""] * 5 and vectors.shape == (5, encoder.dim) == (5, 16)
    np.testing.assert_allclose(vectors, expected(vision, pictures).numpy(), atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4
    about = encoder.describe()
    assert about["pooling"] == POOLED[vision.name]
    assert about["revision"].startswith("sha256:") and "ImageProcessor" in about["transform"]


def test_the_manifest_says_which_model_and_how_pooled(vision, pictures, tmp_path) -> None:
    rows = "".join(f"{seed}\tx\n" for seed in range(5))
    (tmp_path / "d.item").write_text("item_id:token\ttitle:token_seq\n" + rows)
    path = encode_image(tmp_path, "d", tmp_path / "out", images=tmp_path, encoder=str(vision))
    manifest = load_manifest(manifest_path(path))
    assert manifest.encoder["pooling"] == POOLED[vision.name] and manifest.dim == 16
    assert manifest.encoder["name"] == str(vision) and manifest.counts["items"] == 5


def test_clip_and_googlenet_keep_their_own_classes(clip, googlenet_weights) -> None:
    assert encoder_class(resolve_picture_encoder(str(clip))) is Clip
    assert encoder_class(resolve_picture_encoder("googlenet", googlenet_weights)) is GoogLeNet


def test_weights_that_a_file_lacks_are_not_made_up(vision, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(vision, folder)
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(weights) if "layer" in name and name.endswith("weight"))
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncodeError, match="lack .*Download the model again"):
        Vision(resolve_picture_encoder(str(folder)))
    (folder / "model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(EncodeError, match="cannot be loaded as a vision model"):
        Vision(resolve_picture_encoder(str(folder)))


def test_a_text_model_reads_no_pictures(bert) -> None:
    source = resolve_picture_encoder(str(bert))
    assert encoder_class(source) is Vision
    with pytest.raises(EncodeError, match="reads no pictures.*preprocessor_config.json"):
        Vision(source)


def test_no_pickled_weights_are_read(vision, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(vision, folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(EncodeError, match="cannot be loaded as a vision model"):
        Vision(resolve_picture_encoder(str(folder)))
