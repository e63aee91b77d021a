"""Price of MMSBR: Gaussians of price levels, Wasserstein attention, and what price adds to a score.

A Gaussian with diagonal covariance is kept as ``u = [mean; sigma]``: the squared 2-Wasserstein
distance of two of them is the squared distance of their ``u``, so that all pairs cost one product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from recbole_mm.model.layers import gather_rows, last_position, real_positions
from recbole_mm.model.mmsbr.prices import Prices
from recbole_mm.model.mmsbr.settings import MMSBRSettings

# First value of gamma, the weight of a distance in the score.
GAMMA = 0.1


def positive(raw: Tensor) -> Tensor:
    """Return ``ELU(x) + 1``, above zero: the variance that a raw number stands for."""
    return torch.where(raw > 0, raw + 1.0, raw.clamp(max=0.0).exp())


def spread(raw: Tensor) -> Tensor:
    """Return ``sqrt(ELU(x) + 1)`` in closed form: ``exp(x/2)`` below 0, ``sqrt(1 + x)`` above.

    Unlike the root of a variance it has a bounded slope everywhere.
    """
    return torch.where(raw > 0, (1.0 + raw.clamp(min=0.0)).sqrt(), (raw.clamp(max=0.0) / 2).exp())


def as_it_is(raw: Tensor) -> Tensor:
    """Return the mean that a raw number stands for."""
    return raw


class Moment(NamedTuple):
    """How the raw numbers of a mean or a variance are read.

    Attributes
    ----------
    name
        ``"mean"`` or ``"variance"``.
    value
        What a raw number stands for.
    coordinate
        Its coordinate in ``u``.
    share
        Its part of a weighted sum, given the weights: a variance takes them squared.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    coordinate: Callable[[Tensor], Tensor]
    share: Callable[[Tensor], Tensor]


MEAN = Moment("mean", as_it_is, as_it_is, as_it_is)
VARIANCE = Moment("variance", positive, spread, torch.square)
MOMENTS = {"gaussian": (MEAN, VARIANCE), "point": (MEAN,)}


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Return the squared Euclidean distances of rows: ``(B, D)``, ``(N, D)`` give ``(B, N)``."""
    squares = left.square().sum(dim=-1, keepdim=True) + right.square().sum(dim=-1)
    return squares - 2.0 * left @ right.T


def products(query: Tensor, key: Tensor) -> Tensor:
    """Return inner products per head: ``(B, H, e)``, ``(B, n, H, e)`` give ``(B, H, n)``."""
    return torch.einsum("bhe,bnhe->bhn", query, key)


def nearness(query: Tensor, key: Tensor) -> Tensor:
    """Return minus the squared distances, shapes as in `products`.

    ``|query|^2`` is the same for all keys, falls out of the softmax and is left out.
    """
    return 2.0 * products(query, key) - key.square().sum(dim=-1).transpose(1, 2)


LIKENESS = {"wasserstein": nearness, "dot": products}


class PriceScore(nn.Module):
    """What a distance ``W`` of session and item price adds to a score: ``-gamma W``.

    ``gamma`` is above zero and learned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_gamma = nn.Parameter(torch.tensor(GAMMA).log())

    def forward(self, interest: Tensor, distance: Tensor) -> Tensor:
        """Return the addition, of the shape of both arguments."""
        return -self.log_gamma.exp() * distance

    def as_product(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries and items whose products are the addition but for a number per row.

        ``-gamma |u - v|^2 = gamma (2 u . v - |v|^2)`` less ``gamma |u|^2``, which a softmax does
        not see: ``(B, D)`` and ``(N, D)`` give ``(B, D + 1)`` and ``(N, D + 1)``.
        """
        gamma = self.log_gamma.exp()
        query = torch.cat([2.0 * left, -left.new_ones(len(left), 1)], dim=1)
        return gamma * query, torch.cat([right, right.square().sum(dim=1, keepdim=True)], dim=1)


class PricePreference(nn.Module):
    """Gaussians of items and sessions, made of price level and category.

    Parameters
    ----------
    settings
        ``embedding_size``, ``n_heads``, ``price_repr``, ``price_attention``, ``dropout_price``.
    known
        Levels and categories of the items.
    """

    Score: ClassVar[type[nn.Module]] = PriceScore
    levels: Tensor
    categories: Tensor

    def __init__(self, settings: MMSBRSettings, known: Prices) -> None:
        super().__init__()
        size, self.n_heads = settings.embedding_size, settings.n_heads
        self.moments = MOMENTS[settings.price_repr]
        self.likeness = LIKENESS[settings.price_attention]
        self.dropout = nn.Dropout(settings.dropout_price)
        self.register_buffer("levels", known.levels, persistent=False)
        self.tables = nn.ParameterDict(
            {moment.name: torch.empty(known.n_levels, size) for moment in self.moments}
        )
        self.by_category = known.categories is not None
        if self.by_category:
            self.register_buffer("categories", known.categories, persistent=False)
            self.tables["category"] = torch.empty(known.n_categories, size)
        self.maps = nn.ModuleDict()
        for moment in self.moments:
            for role in ("query", "key", "value", "out"):
                self.maps[f"{role}_{moment.name}"] = nn.Linear(size, size)
        places = [*self.tables, *(f"out_{moment.name}" for moment in self.moments)]
        self.norms = nn.ModuleDict(self.make_norms(places, size))
        for table in self.tables.values():
            nn.init.normal_(table, std=0.1)
        self.score = self.Score()

    def make_norms(self, places: list[str], size: int) -> dict[str, nn.Module]:
        """Return the layer norm of each place: of the tables, and of what attention gives."""
        return {place: nn.LayerNorm(size) for place in places}

    def item_vectors(self) -> Tensor:
        """Return ``u`` of all items ``(N, 2d)``; ``(N, d)`` without variances. Row 0 is zero."""
        parts = []
        for moment in self.moments:
            rows = gather_rows(self.tables[moment.name], self.levels)
            if self.by_category:
                rows = rows + gather_rows(self.tables["category"], self.categories)
            parts.append(moment.coordinate(rows))
        return torch.cat(parts, dim=-1) * (self.levels > 0).unsqueeze(-1)

    def forward(self, item_seq: Tensor, lengths: Tensor) -> Tensor:
        """Return ``u`` of the sessions' price preference at their last position ``(B, 2d)``.

        Only the last position is read afterwards, so it alone asks; it sees the whole session.

        Parameters
        ----------
        item_seq
            Items ``(B, n)``, padded with 0 on the right.
        lengths
            ``(B,)``.
        """
        inputs = {moment.name: self._inputs(moment, item_seq) for moment in self.moments}
        weights = self._weights(inputs, lengths)
        last = last_position(item_seq.unsqueeze(-1), lengths).squeeze(-1)
        parts = []
        for moment in self.moments:
            values = moment.value(self.maps[f"value_{moment.name}"](inputs[moment.name]))
            shares = moment.share(weights)
            mixed = torch.einsum("bhn,bnhe->bhe", shares, self._heads(values)).flatten(1)
            moved = self.dropout(self.maps[f"out_{moment.name}"](mixed))
            residual = gather_rows(self.tables[moment.name], self.levels[last])
            raw = self.norms[f"out_{moment.name}"](moved + residual)
            parts.append(moment.coordinate(raw))
        return torch.cat(parts, dim=-1)

    def _inputs(self, moment: Moment, item_seq: Tensor) -> Tensor:
        """Return what attention reads ``(B, n, d)``: normed level plus normed category."""
        rows = self._normed(moment.name, self.levels[item_seq])
        if self.by_category:
            rows = rows + self._normed("category", self.categories[item_seq])
        return moment.value(self.dropout(rows))

    def _normed(self, name: str, ids: Tensor) -> Tensor:
        """Return normed rows of a table."""
        rows: Tensor = self.norms[name](gather_rows(self.tables[name], ids))
        return rows

    def _weights(self, inputs: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        """Return the last position's attention weights ``(B, H, n)``.

        Logits are minus the squared Wasserstein distance, or the inner product of ``u``, over
        ``sqrt(d/H)``.
        """
        last = {name: last_position(rows, lengths).unsqueeze(1) for name, rows in inputs.items()}
        query, key = self._sides("query", last), self._sides("key", inputs)
        width = inputs["mean"].shape[-1] // self.n_heads
        logits = self.likeness(query.squeeze(1), key) * width**-0.5
        real = real_positions(lengths, key.shape[1])
        weights = logits.masked_fill(~real.unsqueeze(1), -torch.inf).softmax(dim=-1)
        dropped: Tensor = self.dropout(weights)
        return dropped

    def _sides(self, role: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``u`` per head ``(B, n, H, 2d/H)`` of what attention reads."""
        parts = []
        for moment in self.moments:
            mapped = self._heads(self.maps[f"{role}_{moment.name}"](inputs[moment.name]))
            parts.append(moment.coordinate(mapped))
        return torch.cat(parts, dim=-1)

    def _heads(self, vectors: Tensor) -> Tensor:
        """Split ``(B, n, d)`` to ``(B, n, H, d/H)``."""
        return vectors.view(*vectors.shape[:2], self.n_heads, -1)
