"""GoogLeNet and CLIP against direct calls of torchvision and transformers."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import recbole_mm
from recbole_mm.encode.image import encoders as module
from recbole_mm.encode.image.encoders import (
    Clip,
    GoogLeNet,
    classifier,
    googlenet_state,
    resolve_picture_encoder,
)
from recbole_mm.encode.image.labels import top_classes
from recbole_mm.encode.source import resolve_encoder
from recbole_mm.encode.text.encoder import TextEncoder
from recbole_mm.errors import EncodeError

from ..conftest import needs, noise

needs("PIL", "torchvision")

from PIL import Image  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Write seven pictures; the third is none."""
    place = tmp_path_factory.mktemp("pictures")
    paths = [place / f"{seed}.png" for seed in range(7)]
    for seed, path in enumerate(paths):
        Image.fromarray(noise(seed, 60 + 9 * seed, 300)).save(path)
    paths[2].write_bytes(b"no picture")
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def googlenet(googlenet_weights: Path) -> GoogLeNet:
    return GoogLeNet(resolve_picture_encoder("googlenet", googlenet_weights), batch_size=4)


@pytest.fixture(scope="module")
def reference(googlenet_weights: Path) -> torch.nn.Module:
    """Return torchvision's network as its own `weights=` would set it up."""
    from torchvision.models import googlenet as build

    network = build(aux_logits=True, transform_input=True, init_weights=False)
    network.load_state_dict(torch.load(googlenet_weights, weights_only=True))
    network.aux1 = network.aux2 = None
    network.aux_logits = False
    return network.eval()


def test_googlenet_is_torchvision_s(googlenet, reference, folder) -> None:
    from torchvision.models import GoogLeNet_Weights

    vectors, notes = googlenet.encode(folder)
    assert vectors.shape == (7, 1024) and vectors.dtype == np.float32
    assert [bool(note) for note in notes] == [False, False, True, False, False, False, False]
    assert "no picture" in notes[2] and not vectors[2].any()
    prepare = GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    batch = torch.stack([prepare(Image.open(folder[row]).convert("RGB")) for row in (0, 5)])
    with torch.no_grad():
        logits = reference(batch)
        head, reference.fc = reference.fc, torch.nn.Identity()
        pooled = reference(batch)
        reference.fc = head
    np.testing.assert_allclose(vectors[[0, 5]], pooled.numpy(), rtol=1e-3, atol=1e-3)
    assert np.abs(vectors[0] - vectors[5]).max() > 0.1
    weight, bias, names = classifier(googlenet.source)
    assert len(names) == 1000 and names[281] == "tabby"
    best = top_classes(vectors[[0, 5]], weight, bias, 2)
    np.testing.assert_array_equal(best, logits.topk(2).indices.numpy())


def test_every_part_of_the_preparation_matters(googlenet, reference, folder) -> None:
    vectors, _ = googlenet.encode(folder[:1])
    from torchvision.models import GoogLeNet_Weights

    batch = GoogLeNet_Weights.IMAGENET1K_V1.transforms()(Image.open(folder[0]))[None]
    head, reference.fc = reference.fc, torch.nn.Identity()
    reference.transform_input = False
    with torch.no_grad():
        other = reference(batch).numpy()
    reference.fc, reference.transform_input = head, True
    assert np.abs(other - vectors).max() > 0.1


def test_vectors_do_not_depend_on_batch_or_neighbours(googlenet, folder, monkeypatch) -> None:
    vectors, _ = googlenet.encode(folder)
    monkeypatch.setattr(googlenet, "batch_size", 1)
    alone, _ = googlenet.encode(folder[::-1])
    np.testing.assert_allclose(alone[::-1], vectors, rtol=1e-3, atol=1e-3)


def test_a_picture_is_encoded_as_it_is_shown(googlenet, tmp_path) -> None:
    picture = Image.fromarray(noise(1))
    picture.save(tmp_path / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 8  # a camera held sideways
    picture.rotate(-90, expand=True).save(tmp_path / "turned.png", exif=exif)
    vectors, notes = googlenet.encode([str(tmp_path / "plain.png"), str(tmp_path / "turned.png")])
    assert notes == ["", ""]
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-3, atol=1e-3)


def test_safetensors_give_the_same(googlenet, googlenet_weights, folder, tmp_path) -> None:
    path = tmp_path / "googlenet.safetensors"
    save_file(torch.load(googlenet_weights, weights_only=True), path)
    again = GoogLeNet(resolve_picture_encoder("googlenet", path))
    np.testing.assert_array_equal(again.encode(folder[:2])[0], googlenet.encode(folder[:2])[0])
    assert again.source.revision != googlenet.source.revision


def test_auxiliary_classifiers_are_dropped(googlenet_weights) -> None:
    whole = torch.load(googlenet_weights, weights_only=True)
    kept = googlenet_state(googlenet_weights)
    gone = {name.split(".")[0] for name in whole.keys() - kept.keys()}
    assert gone == {"aux1", "aux2"} and len(kept) == 344


def refused(path: Path) -> str:
    with pytest.raises(EncodeError) as caught:
        GoogLeNet(resolve_picture_encoder("googlenet", path))
    message = str(caught.value)
    assert "https://download.pytorch.org/models/googlenet-1378be20.pth" in message
    assert "--weights=googlenet-1378be20.pth" in message
    return message


def test_wrong_weights_are_named(googlenet_weights, tmp_path) -> None:
    assert "no such file" in refused(tmp_path / "absent.pth")
    (tmp_path / "googlenet-1378be20.pth").write_bytes(googlenet_weights.read_bytes()[:-9])
    assert "its name says 1378be20" in refused(tmp_path / "googlenet-1378be20.pth")
    (tmp_path / "a.pth").write_bytes(googlenet_weights.read_bytes()[:-9])
    refused(tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_bytes(b"x" * 99)
    refused(tmp_path / "a.safetensors")
    torch.save({"conv.weight": torch.ones(2)}, tmp_path / "b.pth")
    assert "no fc.bias" in refused(tmp_path / "b.pth")
    state = googlenet_state(googlenet_weights)
    state.pop("conv1.bn.bias")
    torch.save(state, tmp_path / "c.pth")
    assert "conv1.bn.bias" in refused(tmp_path / "c.pth")


def test_nothing_in_a_checkpoint_is_executed(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.mkdir, (tmp_path / "sentinel",))

    (tmp_path / "a.pth").write_bytes(pickle.dumps({"fc.bias": Evil()}, protocol=2))
    refused(tmp_path / "a.pth")
    torch.save({"fc.bias": Evil()}, tmp_path / "b.pth")
    refused(tmp_path / "b.pth")
    assert not (tmp_path / "sentinel").exists()


def test_other_classes_get_no_names(googlenet_weights, tmp_path) -> None:
    state = googlenet_state(googlenet_weights)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:10], state["fc.bias"][:10]
    torch.save(state, tmp_path / "ten.pth")
    source = resolve_picture_encoder("googlenet", tmp_path / "ten.pth")
    assert classifier(source) is None
    assert GoogLeNet(source).dim == 1024


def test_broken_weights_make_no_vectors(googlenet_weights, folder, tmp_path) -> None:
    state = googlenet_state(googlenet_weights)
    state["conv1.bn.bias"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    encoder = GoogLeNet(resolve_picture_encoder("googlenet", tmp_path / "nan.pth"))
    with pytest.raises(EncodeError, match="made nan or inf"):
        encoder.encode(folder[:1])


def test_cached_weights_are_found_and_absent_ones_named(
    googlenet_weights, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(
        EncodeError, match=r"not (on this machine|here)\. Fetch .*--weights=googlenet-1378be20.pth"
    ):
        resolve_picture_encoder("googlenet")
    # torchvision's own download, on a machine without network.
    environment = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EncodeError, match=r"could not be fetched .*--weights=googlenet-1378be20"):
        resolve_picture_encoder("googlenet", download=True)
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    cached = tmp_path / "checkpoints" / "googlenet-1378be20.pth"
    cached.write_bytes(googlenet_weights.read_bytes())
    monkeypatch.setattr(module, "_STAMP", module.re.compile("no stamp"))
    assert resolve_picture_encoder("googlenet").path == cached


def test_missing_packages(monkeypatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(EncodeError, match=r"torchvision and PIL.*recbole_mm\[image,text\]"):
        resolve_picture_encoder("googlenet")


def test_clip_is_transformers_own(clip, folder) -> None:
    from transformers import CLIPModel, CLIPProcessor

    encoder = Clip(resolve_picture_encoder(str(clip)), batch_size=2)
    vectors, notes = encoder.encode(folder)
    assert vectors.shape == (7, 8) and notes[2] and not notes[3]
    processor, network = CLIPProcessor.from_pretrained(clip), CLIPModel.from_pretrained(clip).eval()
    shown = [Image.open(folder[row]) for row in (0, 6)]
    with torch.no_grad():
        images = network.get_image_features(**processor(images=shown, return_tensors="pt"))
    np.testing.assert_allclose(vectors[[0, 6]], images.pooler_output.numpy(), atol=1e-5)
    # The text side lies in the same space, and reads no more than it has positions.
    words = TextEncoder(resolve_encoder(str(clip)))
    texts, cut = words.encode(["red shirt", "a" * 60])
    assert cut == ["", "cut"] and words.max_tokens == 16
    inputs = processor.tokenizer(["red shirt"], return_tensors="pt")
    with torch.no_grad():
        expected = network.get_text_features(**inputs).pooler_output.numpy()
    np.testing.assert_allclose(texts[:1], expected, atol=1e-5)


def test_a_text_model_reads_no_pictures(bert) -> None:
    with pytest.raises(EncodeError, match="reads no pictures"):
        Clip(resolve_picture_encoder(str(bert)))
    with pytest.raises(EncodeError, match="--weights belongs to googlenet"):
        resolve_picture_encoder(str(bert), "x.pth")


def test_torchvision_of_another_build_works_and_transformers_after_it(
    googlenet_weights, folder
) -> None:
    """In a process of its own, since the remedy counts before the first import only."""
    code = (
        "import sys\n"
        "from recbole_mm.encode.image.encoders import GoogLeNet, resolve_picture_encoder\n"
        "assert 'torchvision' not in sys.modules and 'transformers' not in sys.modules\n"
        f"source = resolve_picture_encoder('googlenet', {str(googlenet_weights)!r})\n"
        f"vectors, _ = GoogLeNet(source).encode([{folder[0]!r}])\n"
        "assert vectors.shape == (1, 1024) and vectors.any()\n"
        "from transformers import PreTrainedModel\n"
        "print('fits')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(recbole_mm.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "fits\n"), done.stderr
