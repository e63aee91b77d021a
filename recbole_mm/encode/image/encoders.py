"""Picture encoders: torchvision's GoogLeNet, and CLIP through sentence-transformers."""

from __future__ import annotations

import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from recbole_mm.compat import prepare_torchvision
from recbole_mm.encode.image.files import PictureError, open_picture
from recbole_mm.encode.loading import load_model
from recbole_mm.encode.source import About, EncoderSource, resolve_encoder
from recbole_mm.errors import EncodeError
from recbole_mm.files import sha256_file

if TYPE_CHECKING:
    from PIL.Image import Image
    from torchvision.models import GoogLeNet_Weights

GOOGLENET = "googlenet"
_CLASSES = 1000
_WIDTH = 1024
# torchvision's own naming: the first digits of the SHA-256 stand in the file's name.
_STAMP = re.compile(r"-([0-9a-f]{8,64})\.(pth|pt|safetensors)$")


def require_packages() -> None:
    """Raise an EncodeError if torchvision or pillow is missing."""
    missing = [name for name in ("torchvision", "PIL") if not find_spec(name)]
    if missing:
        raise EncodeError(
            f"encoding pictures needs {' and '.join(missing)}, not installed here. Install with "
            "`pip install 'recbole_mm[image,text]'`."
        )


def resolve_picture_encoder(
    name: str, weights: str | Path | None = None, download: bool = False
) -> EncoderSource:
    """Find a picture encoder on this machine, or fetch it where that is asked for.

    Parameters
    ----------
    name
        ``googlenet``, or a folder or cached name of a vision model.
    weights
        Of GoogLeNet: a checkpoint of torchvision, ``.pth`` or ``.safetensors``. None: the file in
        torch's own cache.
    download
        Let the library fetch what is missing.

    Raises
    ------
    EncodeError
        If something is missing, with the file to fetch and the option that takes it.
    """
    require_packages()
    if name != GOOGLENET:
        if weights:
            raise EncodeError(f"--weights belongs to googlenet; {name!r} is a folder or a name.")
        return resolve_encoder(name, download=download)
    path = Path(weights).expanduser() if weights else _cached_weights(download)
    if not path.is_file():
        raise EncodeError(f"{path}: no such file. {_how_to_fetch()}")
    sha256 = sha256_file(path)
    stamp = _STAMP.search(path.name)
    if stamp and not sha256.startswith(stamp[1]):
        raise EncodeError(
            f"{path}: its SHA-256 begins with {sha256[:8]}, its name says {stamp[1]}: the file is "
            f"damaged or incomplete. {_how_to_fetch()}"
        )
    return EncoderSource(name, path, f"sha256:{sha256}")


def _imagenet() -> GoogLeNet_Weights:
    """Return torchvision's description of GoogLeNet's ImageNet weights."""
    prepare_torchvision()
    from torchvision.models import GoogLeNet_Weights

    return GoogLeNet_Weights.IMAGENET1K_V1


def _how_to_fetch() -> str:
    """Say where GoogLeNet's weights come from and which option takes them."""
    url = _imagenet().url
    return (
        f"Fetch {url} on a machine with a network and give it as --weights={Path(url).name}, or "
        "let torchvision fetch it: --download."
    )


def _cached_weights(download: bool) -> Path:
    """Return torch's cached copy of the ImageNet weights; where allowed, torchvision fetches it."""
    imagenet = _imagenet()
    path = Path(torch.hub.get_dir(), "checkpoints", Path(imagenet.url).name)
    if path.is_file():
        return path
    if not download:
        raise EncodeError(f"GoogLeNet's ImageNet weights are not here. {_how_to_fetch()}")
    try:
        imagenet.get_state_dict(
            progress=False, check_hash=True, weights_only=True, map_location="cpu"
        )
    except Exception as error:  # the network fails in as many ways as there are layers
        raise EncodeError(
            f"GoogLeNet's ImageNet weights could not be fetched ({error}). {_how_to_fetch()}"
        ) from error
    return path


class PictureEncoder(ABC):
    """Opens pictures and encodes those that can be opened.

    Attributes
    ----------
    batch_size
        Pictures per forward pass.
    dim
        Length of a vector.
    """

    batch_size: int
    dim: int
    source: EncoderSource

    @abstractmethod
    def __init__(self, source: EncoderSource, batch_size: int = 32):
        """Load the model of ``source``."""

    @abstractmethod
    def describe(self) -> About:
        """Return all that decides the vectors, for the manifest."""

    @abstractmethod
    def forward(self, pictures: list[Image]) -> np.ndarray:
        """Return the vectors ``(n, dim)`` float32 of RGB pictures."""

    def encode(self, paths: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Encode picture files.

        Returns
        -------
        vectors
            ``(n, dim)`` float32, finite; zeros where there is a note.
        notes
            Why a picture cannot be used, else empty.

        Raises
        ------
        EncodeError
            If a vector is not finite.
        """
        vectors = np.zeros((len(paths), self.dim), dtype=np.float32)
        notes = [""] * len(paths)
        for start in range(0, len(paths), self.batch_size):
            rows, pictures = [], []
            for row in range(start, min(start + self.batch_size, len(paths))):
                try:
                    pictures.append(open_picture(Path(paths[row])))
                    rows.append(row)
                except PictureError as error:
                    notes[row] = str(error)
            if rows:
                vectors[rows] = self.forward(pictures)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise EncodeError(
                f"image encoder {self.source.name!r} made nan or inf of "
                f"{paths[int(np.argmin(finite))]}. Are its weights whole?"
            )
        return vectors, notes


class GoogLeNet(PictureEncoder):
    """torchvision's GoogLeNet: the 1024 numbers after global average pooling, in evaluation mode.

    Pictures are prepared as its ImageNet weights want it: short side 256, centre 224 x 224, mean
    and deviation of ImageNet, then ``transform_input`` (the network was trained on pixels in
    -1 ... 1). In training mode, batch normalisation would mix the pictures of a batch.
    """

    dim = _WIDTH

    def __init__(self, source: EncoderSource, batch_size: int = 32):
        self.source = source
        self.batch_size = batch_size
        self._prepare = _imagenet().transforms()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network = _network(source.path).to(self._device)

    def describe(self) -> About:
        """Return name, revision and preparation for the manifest."""
        return {
            "name": self.source.name,
            "revision": self.source.revision,
            "pooling": "global average",
            "normalised": False,
            "transform": "short side 256, centre 224, ImageNet mean and deviation, transform_input",
        }

    def forward(self, pictures: list[Image]) -> np.ndarray:
        """Return pooled features ``(n, 1024)`` of RGB pictures."""
        batch = torch.stack([self._prepare(picture) for picture in pictures])
        with torch.inference_mode():
            pooled = self._network(batch.to(self._device))
        return np.asarray(pooled.float().cpu().numpy())


def _network(path: Path) -> torch.nn.Module:
    """Build GoogLeNet without classifier from a checkpoint."""
    state = googlenet_state(path)
    from torchvision.models import googlenet

    network: torch.nn.Module = googlenet(
        weights=None, aux_logits=False, init_weights=False, transform_input=True,
        num_classes=len(state["fc.bias"]),
    )  # fmt: skip
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _no_googlenet(path, str(error).splitlines()[-1].strip()) from error
    network.fc = torch.nn.Identity()
    return network.eval()


def googlenet_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint of torchvision's GoogLeNet, without the two auxiliary classifiers.

    Raises
    ------
    EncodeError
        If the file is damaged or holds something else. Nothing in it is executed.
    """
    prepare_torchvision()
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError,
            SafetensorError) as error:  # fmt: skip
        raise _no_googlenet(path, str(error).splitlines()[0]) from error
    if not isinstance(state, dict) or not isinstance(state.get("fc.bias"), torch.Tensor):
        raise _no_googlenet(path, "no fc.bias in it")
    return {name: value for name, value in state.items() if not name.startswith(("aux1.", "aux2."))}


def _no_googlenet(path: Path, why: str) -> EncodeError:
    """Return the error of a file that is no checkpoint of GoogLeNet."""
    return EncodeError(
        f"{path}: no checkpoint of torchvision's GoogLeNet ({why}). Expected its state dict. "
        f"{_how_to_fetch()}"
    )


def classifier(source: EncoderSource) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """Return weight, bias and class names of GoogLeNet's classifier; None without ImageNet's."""
    state = googlenet_state(source.path)
    if len(state["fc.bias"]) != _CLASSES:
        return None
    names = list(_imagenet().meta["categories"])
    return state["fc.weight"].numpy(), state["fc.bias"].numpy(), names


class Clip(PictureEncoder):
    """The picture side of a CLIP model, whose text side encodes into the same space."""

    def __init__(self, source: EncoderSource, batch_size: int = 32):
        self.source = source
        self.batch_size = batch_size
        self._model = load_model(source)
        if "image" not in getattr(self._model, "modalities", ()):
            raise EncodeError(
                f"image encoder {source.name!r} reads no pictures. Expected googlenet or a CLIP "
                "model, such as clip-ViT-B-32."
            )
        self.dim = int(self._model.get_embedding_dimension())

    def describe(self) -> About:
        """Return name, revision and normalisation for the manifest."""
        modules = {type(module).__name__ for module in self._model}
        return {
            "name": self.source.name,
            "revision": self.source.revision,
            "pooling": "model's own",
            "normalised": "Normalize" in modules,
        }

    def forward(self, pictures: list[Image]) -> np.ndarray:
        """Return the vectors ``(n, dim)`` of RGB pictures."""
        vectors = self._model.encode(
            pictures, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(vectors, dtype=np.float32)
