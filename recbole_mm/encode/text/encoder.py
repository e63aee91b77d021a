"""Text encoders of sentence-transformers and transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from recbole_mm.encode.engine import CUT
from recbole_mm.encode.loading import load_model
from recbole_mm.encode.source import HALF, About, EncoderSource
from recbole_mm.errors import EncodeError


class TextEncoder:
    """A loaded text encoder.

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
        self._model = load_model(source)
        self.dim = int(self._model.get_embedding_dimension())
        self.max_tokens = int(getattr(self._model, "max_seq_length", 0) or 0)

    def describe(self) -> About:
        """Return name, revision, pooling, normalisation and reading length for the manifest."""
        modules = {type(module).__name__: module for module in self._model}
        pooling = getattr(modules.get("Pooling"), "pooling_mode", None)
        return {
            "name": self.source.name,
            "revision": self.source.revision,
            "pooling": str(pooling or self.source.asked.get("pooling") or "model's own"),
            "normalised": "Normalize" in modules,
            "max_tokens": self.max_tokens,
        }

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Encode texts.

        Returns
        -------
        vectors
            ``(n, dim)`` float32, finite.
        notes
            ``cut`` where the text is longer than the model reads, else empty.

        Raises
        ------
        EncodeError
            If a vector is not finite.
        """
        half = self.source.asked.get("precision") == HALF
        with torch.autocast(self._model.device.type, dtype=torch.bfloat16, enabled=half):
            vectors = self._model.encode(
                list(texts),
                batch_size=self.batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        vectors = np.asarray(vectors, dtype=np.float32)
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise EncodeError(
                f"text encoder {self.source.name!r} made nan or inf of the text "
                f"{texts[int(np.argmin(finite))][:100]!r}. Choose another encoder."
            )
        return vectors, [CUT if long else "" for long in self._too_long(texts)]

    def _too_long(self, texts: Sequence[str]) -> list[bool]:
        """Tell which texts have more tokens than the model reads."""
        tokenizer = getattr(self._model, "tokenizer", None)
        if not self.max_tokens or not callable(tokenizer):
            return [False] * len(texts)
        tokens = tokenizer(
            list(texts), truncation=False, padding=False, verbose=False,
            return_attention_mask=False, return_token_type_ids=False,
        )["input_ids"]  # fmt: skip
        return [len(ids) > self.max_tokens for ids in tokens]
