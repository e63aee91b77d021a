"""Building blocks shared by the models."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor, nn

from recbole_mm.errors import ConfigError

# Vectors shorter than this count as zero: their cosine is 0 and their gradient stays bounded.
TINY = 1e-8


def real_positions(lengths: Tensor, n_positions: int) -> Tensor:
    """Return which positions of sessions of these lengths ``(B,)`` are real, bool ``(B, T)``."""
    return torch.arange(n_positions, device=lengths.device) < lengths.unsqueeze(1)


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over real positions: ``(B, T, d)`` and bool ``(B, T)`` give ``(B, d)``."""
    weight = mask.unsqueeze(-1).to(vectors.dtype)
    return (vectors * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)


def last_position(vectors: Tensor, lengths: Tensor) -> Tensor:
    """Return the vectors at the last real position: ``(B, T, d)``, ``(B,)`` give ``(B, d)``."""
    index = (lengths - 1).clamp_min(0).view(-1, 1, 1).expand(-1, 1, vectors.shape[-1])
    return vectors.gather(1, index).squeeze(1)


def gather_rows(table: Tensor, ids: Tensor) -> Tensor:
    """Return rows of an item table; the padding item's row gets no gradient.

    ``(N, d)`` and ids of any shape ``(...)`` give ``(..., d)``.
    """
    return F.embedding(ids, table, padding_idx=0)


def length(vectors: Tensor) -> Tensor:
    """Return the lengths ``(...,)`` of vectors ``(..., d)``, 1 for zero vectors."""
    norm = torch.linalg.vector_norm(vectors, dim=-1)
    return norm.masked_fill(norm < TINY, 1.0)


def unit(vectors: Tensor) -> Tensor:
    """Scale vectors ``(..., d)`` to length 1; zero vectors stay zero."""
    return vectors / length(vectors).unsqueeze(-1)


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosine of vectors ``(..., d)``, 0 where either is zero."""
    return (unit(left) * unit(right)).sum(dim=-1)


class ItemTable(nn.Module):
    """A trainable vector per item, ``(n_items, size)``; row 0 (padding) is zero and stays so."""

    def __init__(self, n_items: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_items, size))
        self.reset()

    def reset(self) -> None:
        """Draw from ``U(-1/sqrt(d), 1/sqrt(d))``."""
        bound = self.weight.shape[1] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        with torch.no_grad():
            self.weight[0].zero_()

    def forward(self) -> Tensor:
        """Return the whole table ``(n_items, size)``."""
        return self.weight


class FeatureTable(nn.Module):
    """Item vectors made from features: ``E = F M + A V``.

    ``F`` ``(N, d_t)`` are the features of all modalities side by side, ``M`` a learned map, ``A``
    ``(N, k)`` marks items that lack modality ``k`` and ``V`` ``(k, d)`` are learned vectors for
    them. Both ``F`` and ``A`` may be propagated over a graph beforehand: propagation is linear and
    acts from the left, so ``(P F) M = P (F M)``.

    Parameters
    ----------
    features
        ``F``, rows of zeros for items without features.
    absent
        ``A``, 0 for the padding item.
    size
        Width ``d`` of the result.
    tuned
        Train ``F`` as well.
    """

    features: Tensor
    absent: Tensor

    def __init__(self, features: Tensor, absent: Tensor, size: int, tuned: bool = False) -> None:
        super().__init__()
        if tuned:
            self.features = nn.Parameter(features.clone())
        else:
            self.register_buffer("features", features, persistent=False)
        self.register_buffer("absent", absent, persistent=False)
        self.project = nn.Linear(features.shape[1], size, bias=False)
        self.missing = nn.Parameter(torch.empty(absent.shape[1], size))
        self.reset()

    def reset(self) -> None:
        """Draw the map and the missing vectors from ``U(-1/sqrt(d), 1/sqrt(d))``."""
        bound = self.missing.shape[1] ** -0.5
        nn.init.uniform_(self.project.weight, -bound, bound)
        nn.init.uniform_(self.missing, -bound, bound)

    def forward(self) -> Tensor:
        """Return the whole table ``(N, size)``."""
        mapped: Tensor = self.project(self.features)
        return torch.addmm(mapped, self.absent, self.missing)


def prepare_features(
    table: Tensor, present: Tensor, seen: Tensor, scaling: str = "none", n_components: int = 0
) -> Tensor:
    """Scale features; what is estimated comes from items seen in training only.

    Parameters
    ----------
    table
        Features ``(N, d_t)``.
    present
        bool ``(N,)``: items that have features.
    seen
        bool ``(N,)``: items that occur in training sessions.
    scaling
        ``"none"``; ``"unit"``: rows of length 1; ``"center"``: the mean taken off, then rows of
        length 1. Text encoders share a large common direction, which centring removes.
    n_components
        Keep this many principal components after scaling; 0 keeps all columns.

    Returns
    -------
    Tensor
        float32 ``(N, d_t)`` or ``(N, n_components)``; rows of zeros stay so.

    Raises
    ------
    ConfigError
        If more components are asked for than there are columns or items to fit on.
    """
    table = table.to(torch.float32)
    fit = present & seen
    if scaling == "center":
        mean = table[fit].mean(dim=0) if bool(fit.any()) else table.new_zeros(table.shape[1])
        # An item without features stands at the centre, whatever vector it was given.
        table = (table - mean) * present.unsqueeze(1)
    if scaling != "none":
        table = F.normalize(table, dim=1)
    if n_components:
        filled = (table != 0).any(dim=1, keepdim=True)
        table = _principal(table, fit, n_components) * filled
    return table


def _principal(table: Tensor, fit: Tensor, n_components: int) -> Tensor:
    """Project on the principal components of the rows in ``fit``."""
    limit = min(int(fit.sum()), table.shape[1])
    if n_components > limit:
        raise ConfigError(
            f"feature_pca is {n_components}, but the features allow at most {limit} components "
            f"({int(fit.sum())} training items, {table.shape[1]} columns); lower it or set it to 0"
        )
    pca = PCA(n_components, random_state=0).fit(table[fit].numpy())
    return torch.from_numpy(np.ascontiguousarray(pca.transform(table.numpy()), dtype=np.float32))


class DirectAttention(nn.Module):
    """Multi-head self-attention whose keys and values are the raw item vectors (SRIM eq. 7).

    No output map, residual, normalisation or positions, so the result is, per head, a convex mix of
    the session's item vectors. For a session of one item it is the identity.

    Parameters
    ----------
    size
        Width ``d``.
    n_heads
        Heads ``H``; each takes ``d/H`` consecutive coordinates, logits are scaled by
        ``sqrt(d/H)``.
    form
        ``"direct"``: the query is mapped. ``"lin"``: nothing is. ``"full"``: query, key and value
        are.
    bias
        Give the maps a bias.
    dropout
        Dropout on the attention weights.

    Raises
    ------
    ConfigError
        If the heads do not divide the width.
    """

    def __init__(
        self, size: int, n_heads: int, form: str = "direct", bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if size % n_heads:
            raise ConfigError(
                f"n_heads={n_heads} does not divide embedding_size={size}; "
                "choose a divisor, for example --n_heads=4"
            )
        self.n_heads = n_heads
        self.dropout = nn.Dropout(dropout)
        mapped = {"direct": ("query",), "lin": (), "full": ("query", "key", "value")}[form]
        self.maps = nn.ModuleDict({name: nn.Linear(size, size, bias=bias) for name in mapped})

    def forward(self, query: Tensor, items: Tensor, mask: Tensor) -> Tensor:
        """Attend from ``query`` to ``items``.

        Parameters
        ----------
        query
            Raw vectors of the asking positions ``(B, Q, d)``.
        items
            Raw vectors of the session ``(B, T, d)``.
        mask
            bool ``(B, T)``, True at real positions; at least one per row.

        Returns
        -------
        Tensor
            ``(B, Q, d)``.
        """
        mixed = F.scaled_dot_product_attention(
            self._heads("query", query),
            self._heads("key", items),
            self._heads("value", items),
            attn_mask=mask[:, None, None, :],
            dropout_p=self.dropout.p if self.dropout.training else 0.0,
        )
        return mixed.transpose(1, 2).flatten(2)

    def _heads(self, role: str, vectors: Tensor) -> Tensor:
        """Map if this role is mapped and split: ``(B, T, d)`` to ``(B, H, T, d/H)``."""
        if role in self.maps:
            vectors = self.maps[role](vectors)
        split = (*vectors.shape[:2], self.n_heads, -1)
        return vectors.reshape(split).transpose(1, 2)
