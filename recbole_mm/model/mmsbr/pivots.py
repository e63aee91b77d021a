"""From feature vectors to an item vector: tokens, pivots that pass between modalities, the end.

Symbols: ``M`` items, ``d`` the width, ``k`` feature tokens per modality, ``T`` pivots. The paper's
equations could not be read; those here are the released code's, see docs/mmsbr.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_mm.model.mmsbr.settings import MMSBRSettings


class FeatureTokens(nn.Module):
    """``k`` two-layer maps of one vector: ``f_a = tanh(W_a2 tanh(W_a1 x + b_a1) + b_a2)``.

    Parameters
    ----------
    width
        Width of the input.
    size
        Width ``d`` of a token.
    n_tokens
        ``k``.
    dropout
        After each tanh.
    """

    def __init__(self, width: int, size: int, n_tokens: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(n_tokens, width, size))
        self.first_bias = nn.Parameter(torch.zeros(n_tokens, 1, size))
        self.second = nn.Parameter(torch.empty(n_tokens, size, size))
        self.second_bias = nn.Parameter(torch.zeros(n_tokens, 1, size))
        self.dropout = nn.Dropout(dropout)
        for token in range(n_tokens):
            nn.init.xavier_uniform_(self.first[token])
            nn.init.xavier_uniform_(self.second[token])

    def forward(self, vectors: Tensor) -> Tensor:
        """Return tokens ``(M, k, d)`` of vectors ``(M, width)``."""
        spread = vectors.expand(len(self.first), *vectors.shape)
        hidden = self.dropout(torch.tanh(torch.baddbmm(self.first_bias, spread, self.first)))
        tokens: Tensor = self.dropout(
            torch.tanh(torch.baddbmm(self.second_bias, hidden, self.second))
        )
        return tokens.transpose(0, 1)


class SharedPivots(nn.Module):
    """One set of first pivots ``(T, d)`` for all items."""

    def __init__(self, n_pivots: int, size: int) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.empty(n_pivots, size))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the first pivots ``(M, T, d)`` of some items ``(M,)``."""
        return self.shared.expand(len(rows), -1, -1)


class ItemPivots(nn.Module):
    """First pivots ``(T, d)`` of its own for every item (released code)."""

    def __init__(self, n_items: int, n_pivots: int, size: int) -> None:
        super().__init__()
        self.shape = n_pivots, size
        self.own = nn.Parameter(torch.empty(n_items, n_pivots * size))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the first pivots ``(M, T, d)`` of some items ``(M,)``."""
        return self.own[rows].view(len(rows), *self.shape)


class OffsetPivots(SharedPivots):
    """One set of first pivots for all items, plus an offset per item (ours).

    Nothing is learned of an item that no training session holds: its offset stays 0. Training drops
    whole offsets of items with content, so that content learns to do without them, as it must for
    new items.

    Parameters
    ----------
    n_pivots, size
        ``T`` and ``d``.
    trained
        bool ``(N,)``: items of training sessions.
    bare
        bool ``(N,)``: items without any content, which keep their offset.
    dropout
        Share of the other items' offsets dropped.
    """

    trained: Tensor
    bare: Tensor

    def __init__(
        self, n_pivots: int, size: int, trained: Tensor, bare: Tensor, dropout: float
    ) -> None:
        super().__init__(n_pivots, size)
        self.offset = nn.Parameter(torch.empty(len(trained), n_pivots * size))
        self.dropout, self.drops = dropout, not bool(bare.all())
        self.register_buffer("trained", trained.float().unsqueeze(1), persistent=False)
        self.register_buffer("bare", bare.unsqueeze(1), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the first pivots ``(M, T, d)`` of some items ``(M,)``."""
        keep = self.trained[rows]
        if self.training and self.drops:
            keep = keep * ((torch.rand_like(keep) >= self.dropout) | self.bare[rows])
        return self.shared + (self.offset[rows] * keep).view(len(rows), *self.shared.shape)


def first_pivots(settings: MMSBRSettings, trained: Tensor, bare: Tensor) -> nn.Module:
    """Make the first pivots that ``pivot_scope`` asks for; masks as in `OffsetPivots`."""
    shape = settings.n_pivots, settings.embedding_size
    if settings.pivot_scope == "shared":
        return SharedPivots(*shape)
    if settings.pivot_scope == "item":
        return ItemPivots(len(trained), *shape)
    return OffsetPivots(*shape, trained, bare, settings.offset_dropout)


class TokenLayer(nn.Module):
    """A transformer layer with the norms behind the sums.

    ``y = LN(x + drop(att(x)))``, ``out = LN(y + drop(W_2 relu(W_1 y)))``.

    Parameters
    ----------
    settings
        ``embedding_size``, ``n_heads``, ``inner_size``, ``dropout_encoder``.
    """

    def __init__(self, settings: MMSBRSettings) -> None:
        super().__init__()
        size, inner = settings.embedding_size, settings.inner_size
        self.n_heads = settings.n_heads
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)
        self.out = nn.Linear(size, size, bias=False)
        self.widen = nn.Linear(size, inner)
        self.narrow = nn.Linear(inner, size)
        self.norm_attention = nn.LayerNorm(size)
        self.norm_out = nn.LayerNorm(size)
        self.dropout = nn.Dropout(settings.dropout_encoder)

    def forward(self, tokens: Tensor, n_out: int) -> Tensor:
        """Return the first ``n_out`` of the tokens ``(M, S, d)``, ``(M, n_out, d)``.

        The others are keys and values only.
        """
        wanted = tokens[:, :n_out]
        mixed = self.attend(tokens, n_out)
        middle = self.norm_attention(wanted + self.dropout(self.out(mixed)))
        moved = self.narrow(F.relu(self.widen(middle)))
        result: Tensor = self.norm_out(middle + self.dropout(moved))
        return result

    def attend(self, tokens: Tensor, n_out: int) -> Tensor:
        """Return the attention's mixture of values for the first ``n_out``, ``(M, n_out, d)``."""
        logits, value = self.logits(tokens[:, :n_out], tokens)
        return (logits.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)

    def logits(self, asking: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(M, H, Q, S)`` of asking tokens, and values ``(M, H, S, d/H)``."""
        query = self._heads(self.query(asking))
        key, value = (self._heads(part) for part in self.key_value(tokens).chunk(2, dim=-1))
        return (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2), value

    def _heads(self, vectors: Tensor) -> Tensor:
        """Split ``(M, S, d)`` to ``(M, H, S, d/H)``."""
        return vectors.view(*vectors.shape[:2], self.n_heads, -1).transpose(1, 2)


class ConcatFusion(nn.Module):
    """Pivots and feature tokens side by side, ``z = [R; F]``; missing tokens are zero.

    Parameters
    ----------
    settings
        ``embedding_size``, ``n_pivots``, ``n_tokens``.
    modalities
        Names of the modalities in use, in the order of their tokens.
    """

    def __init__(self, settings: MMSBRSettings, modalities: Sequence[str]) -> None:
        super().__init__()
        self.n_pivots = settings.n_pivots
        beside = settings.n_tokens * len(modalities)
        self.width = settings.embedding_size * (settings.n_pivots + beside)

    def forward(
        self, pivots: Tensor, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Return ``z`` ``(M, width)``.

        Parameters
        ----------
        pivots
            First pivots ``(M, T, d)``.
        tokens
            ``(M, k, d)`` by modality.
        present
            bool ``(M,)`` by modality: items that have it.
        """
        shown = [x.masked_fill(~present[u][:, None, None], 0.0) for u, x in tokens.items()]
        return torch.cat([pivots, *shown], dim=1).flatten(1)


class PivotFusion(ConcatFusion):
    """Pivots pass a layer per modality and round, then stand beside the tokens (ours).

    ``O = Layer([R; F])``, ``R <- (R + O_R) / 2``, ``F <- F + O_F``: the pivots alone carry from one
    modality to the other, and both layers of a round see the same ones (ours). Where an item lacks
    a modality, its layer does not count.

    Parameters
    ----------
    settings
        ``n_rounds``, and those of `ConcatFusion` and `TokenLayer`.
    modalities
        Names of the modalities in use, in the order of their layers.
    """

    Layer: ClassVar[type[TokenLayer]] = TokenLayer

    def __init__(self, settings: MMSBRSettings, modalities: Sequence[str]) -> None:
        super().__init__(settings, modalities)
        self.rounds = nn.ModuleList(
            nn.ModuleDict({name: self.Layer(settings) for name in modalities})
            for _ in range(settings.n_rounds)
        )

    def forward(
        self, pivots: Tensor, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Return ``z`` ``(M, width)``; arguments as in `ConcatFusion`."""
        return super().forward(self.passed(pivots, tokens, present), tokens, present)

    def passed(
        self, pivots: Tensor, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the pivots ``(M, T, d)`` behind all rounds."""
        moved = dict(tokens)
        for number, group in enumerate(self.rounds, start=1):
            layers, last = cast(nn.ModuleDict, group), number == len(self.rounds)
            pivots = self.one_round(layers, pivots, moved, present, last)
        return pivots

    def one_round(
        self,
        layers: nn.ModuleDict,
        pivots: Tensor,
        tokens: dict[str, Tensor],
        present: Mapping[str, Tensor],
        last: bool,
    ) -> Tensor:
        """Run the layers of a round; move the tokens on, and return the pivots."""
        outs = []
        for name in tokens:
            out = self.one_layer(layers[name], pivots, tokens, name, last)
            outs.append((out, present[name]))
        return merge(pivots, outs)

    def one_layer(
        self, layer: nn.Module, pivots: Tensor, tokens: dict[str, Tensor], name: str, last: bool
    ) -> Tensor:
        """Run one layer; move its tokens on, and return what it makes of the pivots.

        The tokens' last outputs are read by nobody and not computed.
        """
        whole = torch.cat([pivots, tokens[name]], dim=1)
        out: Tensor = layer(whole, self.n_pivots if last else whole.shape[1])
        if not last:
            tokens[name] = tokens[name] + out[:, self.n_pivots :]
        return out[:, : self.n_pivots]


def merge(pivots: Tensor, outs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Average pivots ``(M, T, d)`` with the mean of the layers' outputs that an item takes part in.

    Parameters
    ----------
    pivots
        ``R``.
    outs
        Outputs ``(M, T, d)``, each with a bool ``(M,)``: items that have the modality. Items that
        have none keep their pivots.
    """
    if not outs:
        return pivots
    total, count = torch.zeros_like(pivots), pivots.new_zeros(len(pivots), 1, 1)
    for out, have in outs:
        weight = have.to(pivots.dtype)[:, None, None]
        total, count = total + weight * out, count + weight
    return torch.where(count > 0, (pivots + total / count.clamp_min(1.0)) / 2, pivots)


class ItemHead(nn.Module):
    """The item vector ``E = LN(W_b relu(W_a z + b_a) + b_b)``.

    Parameters
    ----------
    width
        Width of ``z``.
    size
        Width ``d`` of ``E``.
    dropout
        Before and after the maps.
    """

    def __init__(self, width: int, size: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, size)
        self.second = nn.Linear(size, size)
        self.end: nn.Module = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, fused: Tensor) -> Tensor:
        """Return item vectors ``(M, d)`` of ``z`` ``(M, width)``."""
        hidden = self.dropout(F.relu(self.first(self.dropout(fused))))
        vectors: Tensor = self.dropout(self.end(self.second(hidden)))
        return vectors
