"""Scores from the items' texts or vectors: cosines to the items of the history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import scipy.sparse as sp
import torch
from recbole.config import Config
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from recbole_mm.data.item_columns import usual_texts
from recbole_mm.errors import FeatureError
from recbole_mm.model.counting.base import CountingRecommender
from recbole_mm.model.counting.history import Floats, History
from recbole_mm.model.counting.settings import Choice, ContentKNNSettings, Grid

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset

# Bytes of cosines held at once.
_TILE_BYTES = 64 << 20


def tfidf(texts: Sequence[str], known: int | None = None) -> sp.csr_matrix | None:
    """Return TF-IDF of words and pairs of words, rows of length 1, float32 ``(N, V)``.

    A term's weight is ``(1 + ln tf) (1 + ln((1 + N) / (1 + df)))``, as in scikit-learn; a term
    must stand in two items at least. None where no term does. Terms are those of the first
    ``known`` texts; None takes all.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, dtype=np.float32)
    try:
        rows = vectorizer.fit_transform(texts[:known]).tocsr()
    except ValueError:  # how scikit-learn says that no term remains
        return None
    if known is None or known == len(texts):
        return rows
    return sp.vstack([rows, vectorizer.transform(texts[known:])], format="csr")


def cosine_partners(table: sp.csr_matrix | Floats, count: int) -> sp.csr_matrix:
    """Return each item's largest cosines, its own among them, float32 ``(N, N)``.

    Cosines that are 0 are left out. They are computed for a few hundred items at a time.

    Parameters
    ----------
    table
        ``(N, d)``, rows of length 1 or 0.
    count
        Cosines kept per item.
    """
    n_items = table.shape[0]
    size, count = max(1, _TILE_BYTES // (4 * n_items)), min(count, n_items)
    parts = []
    for start in range(0, n_items, size):
        tile = table[start : start + size] @ table.T
        tile = tile if isinstance(tile, np.ndarray) else tile.toarray()
        best = np.argpartition(-tile, count - 1, axis=1)[:, :count]
        rows = np.repeat(np.arange(len(tile)), count)
        values = tile[rows, best.ravel()]
        parts.append(sp.csr_matrix((values, (rows, best.ravel())), tile.shape))
    partners = sp.vstack(parts, format="csr", dtype=np.float32)
    partners.eliminate_zeros()
    return partners


def with_new_partners(
    partners: sp.csr_matrix, table: sp.csr_matrix | Floats, count: int
) -> sp.csr_matrix:
    """Return `cosine_partners` of a longer table, given those of its first rows.

    A new item is a partner of an old one where its cosine is above the least one kept there, or
    fewer than ``count`` are kept.
    """
    known, n_items = partners.shape[0], table.shape[0]
    new = table[known:]
    near = new @ table.T
    near = near if isinstance(near, np.ndarray) else near.toarray()
    # Where fewer are kept, those left out were 0; where all could be kept, none was left out.
    lowest = -np.inf if known <= count else 0.0
    least = np.array(
        [
            partners.data[start:end].min() if end - start >= count else lowest
            for start, end in zip(partners.indptr[:-1], partners.indptr[1:], strict=True)
        ]
    )
    # Kept cosines are float32, and so are the new ones.
    right = sp.csr_matrix(np.where(near[:, :known] > least, near[:, :known], 0.0).T)
    size = min(count, n_items)
    best = np.argpartition(-near, size - 1, axis=1)[:, :size]
    rows = np.repeat(np.arange(len(near)), size)
    below = sp.csr_matrix((near[rows, best.ravel()], (rows, best.ravel())), near.shape)
    whole = sp.vstack([sp.hstack([partners, right]), below], format="csr", dtype=np.float32)
    whole.eliminate_zeros()
    return whole


def content_partners(
    dataset: SessionDataset, modality: str | None, count: int
) -> sp.csr_matrix | None:
    """Return the cosines of items by texts (``modality`` None) or by the vectors of a modality.

    None where there are no texts.

    Raises
    ------
    FeatureError
        The modality was not loaded.
    """

    def compute() -> sp.csr_matrix | None:
        table = content_table(dataset, modality)
        return None if table is None else cosine_partners(table, count)

    def grow(partners: sp.csr_matrix | None) -> sp.csr_matrix | None:
        if partners is None:
            return None
        table = content_table(dataset, modality, partners.shape[0])
        return with_new_partners(partners, table, count)

    return dataset.fitted("content partners", compute, grow)


def content_table(
    dataset: SessionDataset, modality: str | None, known: int | None = None
) -> sp.csr_matrix | Floats | None:
    """Return the items' rows of length 1 or 0; ``known`` as in `tfidf`."""
    if modality is None:
        texts = usual_texts(dataset.item_columns, dataset.card.text_fields)
        return tfidf(texts, known) if texts else None
    if dataset.item_features is None:
        raise FeatureError(f"there are no {modality} features; make them with recbole-mm encode")
    vectors = dataset.item_features.table(modality) * dataset.item_features.mask(modality)[:, None]
    return torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()


class ContentKNN(CountingRecommender):
    """``score(j) = sum_i w_i cos(f(h_i), f(j))``, ``w_i = exp(-age_i / decay)``.

    ``f`` is the TF-IDF of the items' texts, or a modality's vectors. Interactions are not read but
    for popularity, which orders equal scores.
    """

    Settings: ClassVar[type[ContentKNNSettings]] = ContentKNNSettings
    settings: ContentKNNSettings

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        read = self.settings
        cosines = content_partners(dataset, read.modality, read.n_partners)
        if cosines is None:
            raise FeatureError(
                f"ContentKNN finds no text in {dataset.item_columns.path}: no usual text column, "
                "or no word that two items share. List the columns as text_fields in "
                "dataset.json, or name a feature file, for example --modality=image"
            )
        self.cosines = cosines

    def variants(self, history: History, grid: Grid) -> Iterator[tuple[Choice, Tensor]]:
        """Yield the scores by decay; see the base class."""
        for decay in grid.decay:
            scores = history.matrix(history.decayed(decay)) @ self.cosines
            yield Choice(decay=decay), torch.from_numpy(scores.toarray()).to(self.device)
