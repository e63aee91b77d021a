"""Any vision model that transformers knows: SigLIP, DINOv2, ViT, ConvNeXt and the like."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recbole_mm.compat import prepare_torchvision
from recbole_mm.encode.image.encoders import GOOGLENET, Clip, GoogLeNet, PictureEncoder
from recbole_mm.encode.source import About, EncoderSource
from recbole_mm.errors import EncodeError
from recbole_mm.files import read_json

if TYPE_CHECKING:
    from PIL.Image import Image

_POOLER = "pooler."
_FEATURES, _POOLED, _FIRST, _MEAN = (
    "image features of the model", "model's pooler", "first token", "mean over the picture",
)  # fmt: skip


def encoder_class(source: EncoderSource) -> type[PictureEncoder]:
    """Return the class that runs a picture encoder.

    GoogLeNet is torchvision's; CLIP and folders of sentence-transformers, whose text sides encode
    into the same space, are run by that library; all else by `Vision`.
    """
    if source.name == GOOGLENET:
        return GoogLeNet
    if (source.path / "modules.json").is_file() or _model_type(source.path) == "clip":
        return Clip
    return Vision


def _model_type(folder: Path) -> str:
    """Return what kind of model ``config.json`` says a folder holds, or nothing."""
    try:
        plain = read_json(folder / "config.json")
    except (OSError, ValueError):
        return ""
    return str(plain.get("model_type", "")) if isinstance(plain, dict) else ""


class Vision(PictureEncoder):
    """A vision model of transformers with its own preparation of pictures.

    The vector is, in this order of preference: the image features of a model with two sides
    (SigLIP); what the model's own pooler makes (DINOv2, ConvNeXt), if the pooler's weights are in
    the file; the last state of the first token, where there is one that stands for the picture;
    the mean over the picture.
    """

    def __init__(self, source: EncoderSource, batch_size: int = 32):
        self.source = source
        self.batch_size = batch_size
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._prepare, network, self._has_pooler = _load(source)
        self._network = network.to(self._device).eval()
        self._pooling = ""
        self.dim = self._dim()

    def _dim(self) -> int:
        """Return the length of a vector, from a grey picture."""
        from PIL import Image

        try:
            return int(self.forward([Image.new("RGB", (64, 64), "grey")]).shape[1])
        except Exception as error:  # a model that wants other inputs fails in its own way
            raise _no_vision(self.source, error) from error

    def describe(self) -> About:
        """Return name, revision, pooling and preparation for the manifest."""
        return {
            "name": self.source.name,
            "revision": self.source.revision,
            "pooling": self._pooling,
            "normalised": False,
            "transform": f"{type(self._prepare).__name__} of the model",
        }

    def forward(self, pictures: list[Image]) -> np.ndarray:
        """Return the vectors ``(n, dim)`` of RGB pictures."""
        inputs = self._prepare(images=pictures, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            vectors, self._pooling = self._pooled(inputs)
        return np.asarray(vectors.flatten(1).float().cpu().numpy())

    def _pooled(self, inputs: Any) -> tuple[torch.Tensor, str]:
        """Return one vector per picture, and how it was pooled."""
        if hasattr(self._network, "get_image_features"):
            found = self._network.get_image_features(**inputs)
            return getattr(found, "pooler_output", found), _FEATURES
        found = self._network(**inputs)
        pooled = getattr(found, "pooler_output", None)
        if pooled is not None and self._has_pooler:
            return pooled, _POOLED
        states = found.last_hidden_state
        if states.ndim == 3 and any("cls_token" in name for name, _ in _parameters(self._network)):
            return states[:, 0], _FIRST
        return states.mean(dim=1 if states.ndim == 3 else (2, 3)), _MEAN


def _parameters(network: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return iter(network.named_parameters())


def _load(source: EncoderSource) -> tuple[Any, Any, bool]:
    """Return the preparation, the network, and whether its pooler (if any) is trained."""
    prepare_torchvision()
    from transformers import AutoImageProcessor, AutoModel

    # Weights from safetensors only: other formats can run code when they are read.
    where = {"local_files_only": True, "trust_remote_code": False}
    with _quiet():
        try:
            prepare = AutoImageProcessor.from_pretrained(str(source.path), **where)
            network, found = AutoModel.from_pretrained(
                str(source.path), use_safetensors=True, output_loading_info=True, **where
            )
        except Exception as error:  # a broken folder makes the library raise almost anything
            raise _no_vision(source, error) from error
    # The library makes up random weights for what a file lacks, and only logs it.
    lacking = sorted(found["missing_keys"])
    if made_up := [name for name in lacking if _POOLER not in name]:
        raise EncodeError(
            f"image encoder {source.name!r}: the weights in {source.path} lack {made_up[0]}"
            f"{' and others' if len(made_up) > 1 else ''}. Download the model again."
        )
    return prepare, network, not lacking


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's bars and reports off the terminal."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


def _no_vision(source: EncoderSource, error: Exception) -> EncodeError:
    first = (str(error) or type(error).__name__).strip().splitlines()[0]
    return EncodeError(
        f"image encoder {source.name!r} reads no pictures: {source.path} cannot be loaded as a "
        f"vision model of transformers ({first}). Expected googlenet, or a folder or name of one "
        "with safetensors weights and a preprocessor_config.json, such as clip-ViT-B-32 or "
        "facebook/dinov2-small."
    )
