"""Fusion of MMSBR: feature tokens, the layers that pivots pass through, and the item vector.

Symbols: ``M`` items, ``d`` the width, ``k`` feature tokens per modality, ``T`` pivots. The paper's
equations could not be read; those here are the released code's, see docs/mmsbr.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# What ends an item vector, given its width.
ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "norm": nn.LayerNorm,
    "relu": lambda size: nn.ReLU(),
    "none": lambda size: nn.Identity(),
}


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
        tokens = self.dropout(torch.tanh(torch.baddbmm(self.second_bias, hidden, self.second)))
        return tokens.transpose(0, 1)


class TokenLayer(nn.Module):
    """A transformer layer with the norms behind the sums.

    ``y = LN(x + drop(att(x)))``, ``out = LN(y + drop(W_2 relu(W_1 y)))``.

    Parameters
    ----------
    config
        Keys ``embedding_size``, ``n_heads``, ``inner_size``, ``dropout_encoder``, ``share_ln``,
        ``pivot_softmax_axis``: ``"key"`` lets the weights of a query sum to 1, ``"query"``
        those of a key (released code).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size, inner = int(config["embedding_size"]), int(config["inner_size"])
        self.n_heads = int(config["n_heads"])
        self.over_queries = config["pivot_softmax_axis"] == "query"
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)
        self.out = nn.Linear(size, size, bias=False)
        self.widen = nn.Linear(size, inner)
        self.narrow = nn.Linear(inner, size)
        self.norm_attention = nn.LayerNorm(size)
        self.norm_out = self.norm_attention if config["share_ln"] else nn.LayerNorm(size)
        self.dropout = nn.Dropout(config["dropout_encoder"])

    def forward(self, tokens: Tensor, n_out: int, absent: Tensor | None = None) -> Tensor:
        """Return the first ``n_out`` of ``S`` tokens, ``(M, n_out, d)``.

        Parameters
        ----------
        tokens
            ``(M, S, d)``.
        n_out
            How many are wanted; the others are keys and values only.
        absent
            bool ``(M, S)``: tokens that nobody may look at, or None.
        """
        wanted = tokens[:, :n_out]
        mixed = self._attend(tokens, n_out, absent)
        middle = self.norm_attention(wanted + self.dropout(self.out(mixed)))
        moved = self.narrow(F.relu(self.widen(middle)))
        result: Tensor = self.norm_out(middle + self.dropout(moved))
        return result

    def _attend(self, tokens: Tensor, n_out: int, absent: Tensor | None) -> Tensor:
        """Return the attention's mixture of values ``(M, n_out, d)``."""
        asking = tokens if self.over_queries else tokens[:, :n_out]
        query = self._heads(self.query(asking))
        key, value = (self._heads(part) for part in self.key_value(tokens).chunk(2, dim=-1))
        logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        if self.over_queries:
            weights = _shares_of_keys(logits, absent)[:, :, :n_out]
        elif absent is None:
            weights = logits.softmax(dim=-1)
        else:
            weights = logits.masked_fill(absent[:, None, None, :], -torch.inf).softmax(dim=-1)
        return (weights @ value).transpose(1, 2).flatten(2)

    def _heads(self, vectors: Tensor) -> Tensor:
        """Split ``(M, S, d)`` to ``(M, H, S, d/H)``."""
        return vectors.view(*vectors.shape[:2], self.n_heads, -1).transpose(1, 2)


def _shares_of_keys(logits: Tensor, absent: Tensor | None) -> Tensor:
    """Let each key share one unit out among the queries; absent tokens are neither."""
    if absent is None:
        return logits.softmax(dim=-2)
    weights = logits.masked_fill(absent[:, None, :, None], -torch.inf).softmax(dim=-2)
    return weights.masked_fill(absent[:, None, None, :], 0.0)


class ItemFusion(nn.Module):
    """Pivots and feature tokens of an item become its vector.

    ``E_i = end(W_b relu(W_a z + b_a) + b_b)``, where ``z`` is what pivots and tokens come to and
    ``end`` is a relu in the released code.

    Parameters
    ----------
    config
        Keys ``fusion``, ``pivot_order``, ``token_skip``, ``n_pivots``, ``n_tokens``,
        ``n_rounds``, ``item_activation`` and those of `TokenLayer`.
    modalities
        Names of the modalities in use, in the order of their layers.
    """

    def __init__(self, config: Mapping[str, Any], modalities: Sequence[str]) -> None:
        super().__init__()
        self.form = str(config["fusion"])
        self.parallel = config["pivot_order"] == "parallel"
        self.modalities = tuple(modalities)
        self.n_pivots, self.n_tokens = int(config["n_pivots"]), int(config["n_tokens"])
        size, rounds = int(config["embedding_size"]), int(config["n_rounds"])
        self.rounds = nn.ModuleList()
        if self.form in ("pivot", "full_transformer"):
            for _ in range(rounds):
                layers = {name: TokenLayer(config) for name in self.modalities}
                self.rounds.append(nn.ModuleDict(layers))
        self.skip = bool(config["token_skip"]) and len(self.rounds) > 0
        parts = 1 if self.form == "mean" else self.n_pivots
        if self.skip or self.form == "concat_mlp":
            parts += self.n_tokens * len(self.modalities)
        self.first = nn.Linear(size * parts, size)
        self.second = nn.Linear(size, size)
        self.activation = ACTIVATIONS[config["item_activation"]](size)
        self.dropout = nn.Dropout(config["dropout_fusion"])

    def forward(
        self, pivots: Tensor, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Return item vectors ``(M, d)``.

        Parameters
        ----------
        pivots
            ``(M, T, d)``.
        tokens
            ``(M, k, d)`` by modality.
        present
            bool ``(M,)`` by modality: items that have it.
        """
        mixed = getattr(self, f"_{self.form}")(pivots, dict(tokens), present)
        if self.skip:
            mixed = torch.cat([mixed, self._concat_mlp(pivots[:, :0], dict(tokens), present)], 1)
        hidden = self.dropout(F.relu(self.first(self.dropout(mixed))))
        vectors: Tensor = self.dropout(self.activation(self.second(hidden)))
        return vectors

    def _pivot(
        self, pivots: Tensor, tokens: dict[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Pass the pivots through a layer per modality and round; they alone carry over.

        ``O = Layer([R; F])``, ``R <- (R + O_R) / 2``, ``F <- F + O_F``. Where an item lacks the
        modality, ``R`` stays. The tokens' last outputs are read by nobody and not computed.
        """
        layers: Any
        for number, layers in enumerate(self.rounds):
            last = number == len(self.rounds) - 1
            outs = []
            for name in self.modalities:
                out = self._pass(layers[name], pivots, tokens, name, last)
                if self.parallel:
                    outs.append((out, present[name]))
                else:
                    pivots = merge(pivots, [(out, present[name])])
            pivots = merge(pivots, outs)
        return pivots.flatten(1)

    def _pass(
        self, layer: nn.Module, pivots: Tensor, tokens: dict[str, Tensor], name: str, last: bool
    ) -> Tensor:
        """Run one layer; move its tokens on, and return its pivots."""
        width = self.n_pivots if last else self.n_pivots + self.n_tokens
        out: Tensor = layer(torch.cat([pivots, tokens[name]], dim=1), width)
        if not last:
            tokens[name] = tokens[name] + out[:, self.n_pivots :]
        return out[:, : self.n_pivots]

    def _full_transformer(
        self, pivots: Tensor, tokens: dict[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Let all tokens look at each other, in as many layers as with pivots (no bottleneck)."""
        whole, absent = _join(pivots, tokens, present)
        layers = [layer for group in self.rounds for layer in group.children()]
        for number, layer in enumerate(layers):
            if number == len(layers) - 1:
                out = layer(whole, self.n_pivots, absent)
                whole = (whole[:, : self.n_pivots] + out) / 2
            else:
                out = layer(whole, whole.shape[1], absent)
                pivots = (whole[:, : self.n_pivots] + out[:, : self.n_pivots]) / 2
                whole = torch.cat([pivots, (whole + out)[:, self.n_pivots :]], dim=1)
        return whole[:, : self.n_pivots].flatten(1)

    def _concat_mlp(
        self, pivots: Tensor, tokens: dict[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Put pivots and tokens side by side; missing tokens are zero."""
        whole, absent = _join(pivots, tokens, present)
        return whole.masked_fill(absent.unsqueeze(-1), 0.0).flatten(1)

    def _mean(
        self, pivots: Tensor, tokens: dict[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Take the mean of pivots and tokens that are there."""
        whole, absent = _join(pivots, tokens, present)
        weight = (~absent).unsqueeze(-1).to(whole.dtype)
        return (whole * weight).sum(dim=1) / weight.sum(dim=1)


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


def _join(
    pivots: Tensor, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return all tokens of an item in a row ``(M, S, d)`` and which are missing ``(M, S)``."""
    whole = torch.cat([pivots, *tokens.values()], dim=1)
    masks = [pivots.new_zeros(pivots.shape[:2], dtype=torch.bool)]
    masks += [(~present[u]).unsqueeze(1).expand(t.shape[:2]) for u, t in tokens.items()]
    return whole, torch.cat(masks, dim=1)
