"""Real models of toy size, made once, pictures, and a real second process that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import recbole_mm
from recbole_mm.compat import prepare_torchvision
from recbole_mm.files import sha256_file

_EXTRAS = {"PIL": "image", "torchvision": "image"}
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] red blue shirt jeans usb charger a b c ##s , .".split()


def needs(*packages: str) -> None:
    """Skip what needs a package that is not installed; an import that fails is no reason to."""
    for package in packages:
        if find_spec(package) is None:
            extra = _EXTRAS.get(package, "text")
            pytest.skip(
                f"{package} is missing: install recbole_mm[{extra}]", allow_module_level=True
            )
    prepare_torchvision()


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a two-layer BERT of transformers."""
    needs("sentence_transformers")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    BertModel(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a CLIP model of transformers for pictures of 32 x 32."""
    needs("sentence_transformers", "PIL")
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder = tmp_path_factory.mktemp("clip")
    letters = list(bytes_to_unicode().values())
    vocab = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    numbered = {word: number for number, word in enumerate(vocab)}
    (folder / "vocab.json").write_text(json.dumps(numbered), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    shape = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "projection_dim": 8,
    }  # fmt: skip
    text = {
        **shape, "vocab_size": len(vocab), "max_position_embeddings": 16, "bos_token_id": 0,
        "eos_token_id": 1, "pad_token_id": 1,
    }  # fmt: skip
    vision = {**shape, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).eval().save_pretrained(folder)
    return folder


TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip


@pytest.fixture(scope="session", params=["dinov2", "siglip", "siglip2", "vit", "convnext"])
def vision(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder, named by its kind, with a tiny random vision model of transformers."""
    needs("sentence_transformers", "PIL")
    import torch

    folder = tmp_path_factory.mktemp("vision") / str(request.param)
    torch.manual_seed(0)
    model, prepare = tiny_vision(str(request.param))
    model.eval().save_pretrained(folder)
    prepare.save_pretrained(folder)
    return folder


def tiny_vision(kind: str) -> tuple[Any, Any]:
    """Make a network with random weights from its configuration, and its preparation."""
    import transformers as t

    def two_sides(config: type, network: type, prepare: object, **vision: int) -> tuple[Any, Any]:
        text = {"vocab_size": 50, "max_position_embeddings": 16, "projection_size": 16}
        special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
        sides = {"vision_config": TINY | vision, "text_config": TINY | text | special}
        return network(config(**sides)), prepare

    if kind == "siglip":
        square = t.SiglipImageProcessor(size={"height": 32, "width": 32})
        return two_sides(t.SiglipConfig, t.SiglipModel, square, image_size=32, patch_size=8)
    if kind == "siglip2":
        patches = t.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
        return two_sides(t.Siglip2Config, t.Siglip2Model, patches, num_patches=16, patch_size=8)
    if kind == "dinov2":
        size = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
        config = t.Dinov2Config(**TINY, mlp_ratio=2, image_size=28, patch_size=7)
        return t.Dinov2Model(config), t.BitImageProcessor(**size)
    if kind == "vit":  # a classifier, as published: its file has no pooler
        shape = t.ViTConfig(**TINY, image_size=32, patch_size=8)
        square = t.ViTImageProcessor(size={"height": 32, "width": 32})
        return t.ViTForImageClassification(shape), square
    stages = t.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1])
    return t.ConvNextModel(stages), t.ConvNextImageProcessor(size={"shortest_edge": 32})


@pytest.fixture(scope="session")
def googlenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint like torchvision's own: auxiliary classifiers and all, random weights."""
    needs("torchvision")
    import torch
    from torchvision.models import GoogLeNet

    torch.manual_seed(0)
    network = GoogLeNet(aux_logits=True, init_weights=False)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                # Strong enough for a picture to be told from another after 22 layers.
                torch.nn.init.kaiming_normal_(module.weight)
            if isinstance(module, torch.nn.BatchNorm2d):
                # Statistics unlike those of a batch, so that training mode would show.
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("weights") / "googlenet.pth"
    torch.save(network.state_dict(), path)
    return path.rename(path.with_name(f"googlenet-{sha256_file(path)[:8]}.pth"))


def noise(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """Return a smooth random picture ``(height, width, 3)`` of bytes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return coarse.repeat(-(-height // 6), 0)[:height].repeat(-(-width // 8), 1)[:, :width]


# Part 3, the fourth, is written but does not get its place: the process waits there.
_TORN = "000003.safetensors"
_STOP = f"""
import os, time
replace = os.replace
def stop(old, new):
    if os.path.basename(new) == {_TORN!r}:
        time.sleep(600)
    replace(old, new)
os.replace = stop
"""


@contextmanager
def second_process(code: str) -> Iterator[subprocess.Popen]:
    """Run code in a process of its own, which stops while it writes part 3; end: kill -9."""
    environment = {**os.environ, "PYTHONPATH": str(Path(recbole_mm.__file__).parent.parent)}
    process = subprocess.Popen([sys.executable, "-c", _STOP + code], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_torn_part(process: subprocess.Popen, parts: Path) -> None:
    """Wait until ``process`` has finished three chunks and is writing the fourth."""
    deadline = time.monotonic() + 600
    while not list(parts.glob(f".{_TORN}.*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    assert len(list(parts.glob("0*.safetensors"))) == 3
