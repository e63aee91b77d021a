"""Building sentence-transformers models from folders: pooling, reading length, safe weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from recbole_mm.compat import prepare_torchvision
from recbole_mm.encode.source import EncoderSource
from recbole_mm.errors import EncodeError
from recbole_mm.files import read_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

# Weights from safetensors only: other formats can run code when they are read.
_WEIGHTS = {"use_safetensors": True}


def load_model(source: EncoderSource) -> SentenceTransformer:
    """Load a model from a folder.

    Without pooling option a sentence-transformers folder is taken as it is, and any other folder
    of transformers gets the library's own choice, the mean over tokens. With one, the transformer
    of the folder is followed by that pooling and nothing else: ``mean`` over the tokens that the
    attention mask keeps, ``cls`` the first token's last state, ``pooler`` that state after BERT's
    trained pooler, ``tanh(W x + b)``.

    Raises
    ------
    EncodeError
        If the folder cannot be loaded, or has no trained pooler to take.
    """
    # transformers imports torchvision if it is there, fit or not; see compat.
    prepare_torchvision()
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = _build(source)
        _limit_length(model, source.asked.get("max_length"))
        return model
    except EncodeError:
        raise
    except Exception as error:  # a broken folder makes the library raise almost anything
        raise EncodeError(
            f"encoder {source.name!r}: {source.path} cannot be loaded ({error}). Expected a "
            "complete folder of sentence-transformers or transformers with safetensors weights; "
            "download it again."
        ) from error
    finally:
        logging.enable_progress_bar()


def _build(source: EncoderSource) -> SentenceTransformer:
    """Load the model as it is, or its transformer with the pooling asked for."""
    from sentence_transformers import SentenceTransformer

    pooling = source.asked.get("pooling")
    if pooling is None:
        return SentenceTransformer(
            str(source.path), local_files_only=True, trust_remote_code=False, model_kwargs=_WEIGHTS
        )
    folder = _transformer_folder(source.path)
    if pooling == "pooler":
        return SentenceTransformer(modules=[_with_pooler(source, folder)])
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = _transformer(folder)
    width = transformer.get_embedding_dimension()
    return SentenceTransformer(modules=[transformer, Pooling(width, pooling)])


def _transformer(folder: Path, **more: object) -> Transformer:
    """Load the transformer alone."""
    from sentence_transformers.base.modules import Transformer

    return Transformer(str(folder), model_kwargs=_WEIGHTS, **more)


def _with_pooler(source: EncoderSource, folder: Path) -> Transformer:
    """Load a transformer whose output is its trained pooler's."""
    # Without these weights the library makes up random ones and only logs it.
    if not any(name.endswith("pooler.dense.weight") for name in _tensor_names(folder)):
        raise EncodeError(
            f"encoder {source.name!r}: {folder} holds no trained pooler. Use --pooling=cls or "
            "--pooling=mean, or a BERT model that has one."
        )
    output = {"text": {"method": "forward", "method_output_name": "pooler_output"}}
    return _transformer(folder, modality_config=output, module_output_name="sentence_embedding")


def _tensor_names(folder: Path) -> list[str]:
    """Return the names of the weights in a model folder."""
    index = folder / "model.safetensors.index.json"
    try:
        if index.is_file():
            return list(read_json(index)["weight_map"])
        with safe_open(str(folder / "model.safetensors"), framework="np") as stream:
            return list(stream.keys())
    except SafetensorError as error:
        raise EncodeError(f"{folder}: its safetensors weights are damaged ({error}).") from error


def _transformer_folder(folder: Path) -> Path:
    """Return the folder of the transformer inside a sentence-transformers folder."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return folder
    return folder / read_json(modules)[0]["path"]


def _limit_length(model: SentenceTransformer, asked: int | None) -> None:
    """Cut texts to the asked number of tokens, and never read more than there are positions."""
    config = getattr(model[0], "config", None)
    positions = getattr(config and config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (model.max_seq_length, positions, asked) if limit]
    if limits and min(limits) != model.max_seq_length:
        model.max_seq_length = min(limits)
