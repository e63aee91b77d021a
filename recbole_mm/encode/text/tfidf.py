"""TF-IDF and truncated SVD: vectors of words counted in the catalogue itself, without a model."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from recbole_mm.encode.source import About
from recbole_mm.errors import EncodeError

logger = logging.getLogger(__name__)

TFIDF = "tfidf"
DIMENSIONS = 256
_WORDS = {"ngram_range": (1, 2), "sublinear_tf": True, "min_df": 2}
_SVD = {"algorithm": "randomized", "n_iter": 5, "random_state": 0}
# Rounding: a row of length 1 of which no more is left, a direction relatively no stronger.
_NOTHING = 1e-6
_UNKNOWN = "no word that stands in another text too"
_NOT_KEPT = "none of its words weighs in the directions kept"


class FittedState(TypedDict):
    """What `TfidfEncoder` fitted.

    Attributes
    ----------
    words
        Words and pairs, one per column.
    idf
        ``(V,)``.
    directions
        ``V^T``, ``(d, V)`` float32.
    fitted_on, revision
        Hash of the texts, and what decides the vectors besides.
    """

    words: list[str]
    idf: NDArray[np.float64]
    directions: NDArray[np.float32]
    fitted_on: str
    revision: str


class TfidfEncoder:
    """TF-IDF weights of words and pairs of words, reduced by a truncated SVD.

    Fitted on the texts of the whole catalogue, which are known before any session. For a text `t`
    with `n(w, t)` occurrences of word or pair `w`, which stands in `N(w)` of `N` texts, two or
    more::

        x(w, t) = (1 + ln n(w, t)) (1 + ln((1 + N) / (1 + N(w)))),  then x(t) / |x(t)|
        z(t) = V^T x(t),  then z(t) / |z(t)|

    with the smooth idf of scikit-learn's ``TfidfVectorizer``; the columns of `V` are the first
    right singular vectors of all rows `x(t)` (latent semantic analysis, Deerwester et al. 1990).
    The order of the texts and the number of threads do not matter.

    Parameters
    ----------
    texts
        A text per item (per field, if fields are encoded one by one), equal ones as often as they
        occur: they count in `N` and `N(w)`.
    place
        The file that the texts come from, for errors.
    batch_size
        Of no effect.

    Attributes
    ----------
    dim
        Length of a vector: 256, or the rank of the rows, where that is smaller.

    Raises
    ------
    EncodeError
        If fewer than two words stand in two texts or more.
    """

    def __init__(self, texts: Iterable[str], place: Path, batch_size: int = 64):
        self.batch_size = batch_size
        self._place, self._revision = place, tfidf_revision()
        # One fixed order: sums of floats depend on it in the last bits.
        corpus = sorted(texts)
        self._fitted_on = corpus_hash(corpus)
        self._words = TfidfVectorizer(**_WORDS)
        rows = self._weigh(corpus)
        svd = TruncatedSVD(min(DIMENSIONS, *rows.shape), **_SVD)
        # So do sums shared out among threads.
        with threadpool_limits(1):
            svd.fit(rows)
        # Beyond the rank of the rows there is but rounding, which no model should scale up.
        there = svd.singular_values_ > _NOTHING * svd.singular_values_[0]
        self._directions = np.asfortranarray(svd.components_[there])
        self.dim = len(self._directions)
        logger.info(
            "TF-IDF of %d texts: %d words and pairs, %d dimensions hold %.0f%% of the variance.",
            *rows.shape, self.dim, 100 * svd.explained_variance_ratio_.sum(),
        )  # fmt: skip

    def _weigh(self, corpus: list[str]) -> csr_matrix:
        """Learn the words and return a row of weights per text."""
        try:
            rows = self._words.fit_transform(corpus)
            count = rows.shape[1]
        except ValueError:  # not one word is left
            count = 0
        if count < 2:
            raise EncodeError(
                f"{self._place}: text encoder {TFIDF!r} found {count} word(s) or pair(s) that "
                f"stand in two of the {len(corpus)} texts or more; it needs two. Add columns with "
                "--fields, or take another --text_encoder, such as minilm."
            )
        return rows

    def describe(self) -> About:
        """Return name, revision and what it was fitted on, for the manifest."""
        return {
            "name": TFIDF,
            "revision": self._revision,
            "fitted_on": self._fitted_on,
            "normalised": True,
        }

    def state(self) -> FittedState:
        """Return what was fitted, as plain data; directions to single precision."""
        return {
            "words": self._words.get_feature_names_out().tolist(),
            "idf": self._words.idf_,
            "directions": self._directions.astype(np.float32),
            "fitted_on": self._fitted_on,
            "revision": self._revision,
        }

    @classmethod
    def restored(cls, state: FittedState, batch_size: int = 64) -> TfidfEncoder:
        """Return the encoder that a state was taken of; new texts are encoded as if among its own.

        Raises
        ------
        ValueError
            The state does not fit together.
        """
        made = cls.__new__(cls)
        made.batch_size, made._place = batch_size, Path()
        made._fitted_on, made._revision = state["fitted_on"], state["revision"]
        if state["directions"].shape[1:] != (len(state["words"]),):
            raise ValueError("TF-IDF: directions and words differ in number")
        made._words = TfidfVectorizer(vocabulary=state["words"], **_WORDS)
        made._words.idf_ = state["idf"]
        made._directions = np.asfortranarray(state["directions"], dtype=np.float64)
        made.dim = len(made._directions)
        return made

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Encode texts.

        Returns
        -------
        vectors
            ``(n, dim)`` float32 of length 1; zeros where there is a note.
        notes
            Why a text has no vector, else empty.
        """
        rows = self._words.transform(texts)
        vectors = rows @ self._directions.T
        lengths = np.linalg.norm(vectors, axis=1)
        kept = lengths > _NOTHING
        scaled = np.where(kept, 1 / np.where(kept, lengths, 1), 0)[:, None] * vectors
        known = np.diff(rows.indptr) > 0
        notes = [
            "" if good else _NOT_KEPT if some else _UNKNOWN
            for good, some in zip(kept, known, strict=True)
        ]
        return scaled.astype(np.float32), notes


def tfidf_revision() -> str:
    """Return what decides the vectors beside the texts: scikit-learn's version and settings."""
    settings = json.dumps([DIMENSIONS, _WORDS, _SVD, _NOTHING], sort_keys=True)
    digest = hashlib.sha256(settings.encode("utf-8")).hexdigest()
    return f"scikit-learn {metadata.version('scikit-learn')}, settings {digest[:12]}"


def corpus_hash(texts: Iterable[str]) -> str:
    """Return ``sha256:`` and the hash of texts, equal ones as often as they occur, in any order."""
    digest = hashlib.sha256()
    for text in sorted(texts):
        # A line end never stands in a clean text, so that it divides texts without doubt.
        digest.update(f"{text}\n".encode())
    return f"sha256:{digest.hexdigest()}"
