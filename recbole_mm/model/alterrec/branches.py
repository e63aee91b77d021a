"""The two branches of AlterRec: item vectors, session encoder and temperature of each.

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` the width.
"""

from __future__ import annotations

import torch
from recbole.model.layers import TransformerEncoder
from torch import Tensor, nn

from recbole_mm.model.alterrec.settings import (
    ParameterInit,
    SessionEncoder,
    TransformerSettings,
)
from recbole_mm.model.layers import ItemTable, gather_rows, masked_mean, real_positions
from recbole_mm.model.transformer import encode_last, stepwise

# The released code's, where RecBole's own Transformers take gelu and 1e-12.
ACTIVATION, EPSILON = "relu", 1e-6
# Standard deviation of parameter_init: normal, as in RecBole's own Transformers.
NORMAL_STD = 0.02


class IdItems(nn.Module):
    """Item vectors of the ID branch, ``A = LN(U)`` with a free table ``U``.

    Row 0 belongs to padding and means nothing: sessions mask it and it is no candidate.
    """

    def __init__(self, n_items: int, size: int) -> None:
        super().__init__()
        self.table = ItemTable(n_items, size)
        self.norm = nn.LayerNorm(size)

    def forward(self) -> Tensor:
        """Return the whole table ``(N, d)``."""
        vectors: Tensor = self.norm(self.table())
        return vectors


class TextItems(nn.Module):
    """Item vectors of the text branch, ``T = LN(dropout(relu(F W + c)))`` (eq. 1).

    The features ``F`` ``(N, D)`` stay as they are. Items without text have a row of zeros and so
    share one learned vector, which comes from the bias ``c``.
    """

    features: Tensor

    def __init__(self, features: Tensor, size: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("features", features, persistent=False)
        self.project = nn.Linear(features.shape[1], size)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(size)

    def forward(self) -> Tensor:
        """Return the whole table ``(N, d)``; row 0 means nothing, as in `IdItems`."""
        vectors: Tensor = self.norm(self.dropout(torch.relu(self.project(self.features))))
        return vectors


class MeanSession(nn.Module):
    """Session vector as the mean of the item vectors."""

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, d)`` of item vectors ``(B, T, d)`` and lengths ``(B,)``."""
        return masked_mean(items, real_positions(lengths, items.shape[1]))


class TransformerSession(nn.Module):
    """Session vector as the last position of a causal Transformer (appendix D, RecBole's blocks).

    Positions count from the left, so that padding on the right changes nothing. Eq. 16 of the paper
    multiplies the mask instead and lets through the future; it is not used.

    Parameters
    ----------
    settings
        Depth, heads, inner width and dropouts.
    size
        Width ``d`` of the item vectors.
    n_positions
        Items of the longest session.
    """

    def __init__(self, settings: TransformerSettings, size: int, n_positions: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(n_positions, size)
        self.norm = nn.LayerNorm(size, eps=EPSILON)
        self.dropout = nn.Dropout(settings.hidden_dropout_prob)
        self.encoder = TransformerEncoder(
            n_layers=settings.n_layers,
            n_heads=settings.n_heads,
            hidden_size=size,
            inner_size=settings.inner_size,
            hidden_dropout_prob=settings.hidden_dropout_prob,
            attn_dropout_prob=settings.attn_dropout_prob,
            hidden_act=ACTIVATION,
            layer_norm_eps=EPSILON,
        )

    def forward(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, d)`` of item vectors ``(B, T, d)`` and lengths ``(B,)``."""
        hidden = self.dropout(self.norm(items + self.positions.weight[: items.shape[1]]))
        return encode_last(self.encoder, hidden, lengths, stepwise)


class Branch(nn.Module):
    """One of the two networks; nothing is shared between them.

    Parameters
    ----------
    items
        Gives the item vectors ``(N, d)``.
    session
        Gives a session vector ``(B, d)`` from item vectors ``(B, T, d)`` and lengths ``(B,)``.
    temperature
        Scores are divided by it.
    """

    def __init__(self, items: nn.Module, session: nn.Module, temperature: float) -> None:
        super().__init__()
        self.items = items
        self.session = session
        self.temperature = temperature

    def table(self) -> Tensor:
        """Return the item vectors ``(N, d)``."""
        vectors: Tensor = self.items()
        return vectors

    def query(self, table: Tensor, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """Return session vectors over the temperature, ``(B, d)``: times item, they are scores."""
        vectors: Tensor = self.session(gather_rows(table, item_seq), lengths)
        return vectors / self.temperature


def make_items(n_items: int, size: int, features: Tensor | None, dropout: float) -> nn.Module:
    """Return the item vectors of the text branch, or without ``features`` of the ID branch."""
    return IdItems(n_items, size) if features is None else TextItems(features, size, dropout)


def make_session(
    encoder: SessionEncoder, settings: TransformerSettings, size: int, n_positions: int
) -> nn.Module:
    """Return a session encoder; see `TransformerSession`."""
    return MeanSession() if encoder == "mean" else TransformerSession(settings, size, n_positions)


def initialise(module: nn.Module, how: ParameterInit, size: int) -> None:
    """Draw all parameters of a branch or of a part of one.

    ``"uniform"`` draws every one, scales and shifts of the normalisations too, from
    ``U(-1/sqrt(d), 1/sqrt(d))``. Scores then start near 0 and the loss near the logarithm of the
    number of classes. ``"normal"`` is the usual ``N(0, 0.02)`` with scales of 1 and shifts of 0.
    """
    if how == "uniform":
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -(size**-0.5), size**-0.5)
    else:
        module.apply(_draw_normal)
    for part in module.modules():
        if isinstance(part, ItemTable):
            part.weight.data[0].zero_()


def _draw_normal(module: nn.Module) -> None:
    """Draw one module's own parameters from ``N(0, 0.02)``."""
    if isinstance(module, nn.LayerNorm):
        module.reset_parameters()
    elif isinstance(module, (nn.Linear, nn.Embedding, ItemTable)):
        nn.init.normal_(module.weight, std=NORMAL_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
