"""Price of MMSBR: Gaussians of price levels, Wasserstein attention, and scores that heed price.

A Gaussian with diagonal covariance is kept as ``u = [mean; sigma]``: the squared 2-Wasserstein
distance of two of them is the squared distance of their ``u``, so that all pairs cost one product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recbole_mm.errors import DataError
from recbole_mm.model.layers import gather_rows, last_position
from recbole_mm.model.mmsbr.item_columns import (
    CATEGORY_COLUMNS,
    PRICE_COLUMNS,
    find_column,
    item_categories,
    item_prices,
)
from recbole_mm.model.mmsbr.price_levels import price_levels


class Prices(NamedTuple):
    """Prices and categories of the items ``(N,)``, numbered; 0 is the padding item.

    Attributes
    ----------
    levels
        int64, the last number for an unknown price.
    n_levels
        One more than the largest level.
    categories
        int64, the last number for a category that no training item has; None leaves them out.
    n_categories
        One more than the largest category.
    priced
        bool: items that have a price.
    """

    levels: Tensor
    n_levels: int
    categories: Tensor | None
    n_categories: int
    priced: Tensor


def read_prices(dataset: Any, config: Any, seen: np.ndarray) -> Prices | None:
    """Read prices and categories of the ``.item`` file; levels are fitted on the items ``seen``.

    ``use_price`` and ``use_category`` are true (must be there), false, or ``auto``.

    Returns
    -------
    Prices or None
        None where prices are not wanted or no item of training has one.

    Raises
    ------
    DataError
        If a column that must be there is not, or holds no price of a training item.
    """
    column = None
    if config["use_price"] is not False:
        column = find_column(dataset, config["price_field"], PRICE_COLUMNS)
    prices = np.full(len(seen), np.nan) if column is None else item_prices(dataset, column)
    if not np.isfinite(prices[seen]).any():
        if config["use_price"] is True:
            raise DataError(
                f"{config['dataset']}: use_price is true, but no item of the training sessions has "
                f"a price (column {column or 'price'} of the .item file). Add prices, name their "
                "column with --price_field, or set --use_price=auto."
            )
        return None
    names = _categories(dataset, config)
    steps = int(config["price_levels"])
    groups = np.full(len(seen), "") if names is None else names
    levels = price_levels(prices, groups, seen, config["price_binning"], steps)
    levels[0] = 0
    ids, count = (None, 0) if names is None else _number(names, seen)
    priced = torch.from_numpy(np.isfinite(prices))
    return Prices(torch.from_numpy(levels), steps + 3, ids, count, priced)


def _categories(dataset: Any, config: Any) -> np.ndarray | None:
    """Return the items' categories, or None where they are not wanted or not there."""
    if config["use_category"] is False:
        return None
    column = find_column(dataset, config["category_field"], CATEGORY_COLUMNS)
    if config["use_category"] is True and column is None:
        raise DataError(
            f"{config['dataset']}: use_category is true, but the .item file has none of the "
            f"columns {', '.join(CATEGORY_COLUMNS)}. Name yours with --category_field."
        )
    return None if column is None else item_categories(dataset, column)


def _number(names: np.ndarray, seen: np.ndarray) -> tuple[Tensor, int]:
    """Give categories of training items numbers from 1, and all others the next number.

    Returns
    -------
    tuple
        Numbers ``(N,)``, 0 for the padding item; one more than the largest.
    """
    known = np.unique(names[seen & (names != "")])
    place = {name: number for number, name in enumerate(known.tolist(), start=1)}
    ids = [place.get(name, len(known) + 1) for name in names.tolist()]
    return torch.tensor([0, *ids[1:]]), len(known) + 2


def positive(raw: Tensor) -> Tensor:
    """Return ``ELU(x) + 1``, above zero: the variance that a raw number stands for."""
    return torch.where(raw > 0, raw + 1.0, raw.clamp(max=0.0).exp())


def spread(raw: Tensor) -> Tensor:
    """Return ``sqrt(ELU(x) + 1)`` in closed form: ``exp(x/2)`` below 0, ``sqrt(1 + x)`` above.

    Unlike the root of a variance it has a bounded slope everywhere.
    """
    return torch.where(raw > 0, (1.0 + raw.clamp(min=0.0)).sqrt(), (raw.clamp(max=0.0) / 2).exp())


def squared_distances(left: Tensor, right: Tensor) -> Tensor:
    """Return the squared Euclidean distances of rows: ``(B, D)``, ``(N, D)`` give ``(B, N)``."""
    squares = left.square().sum(dim=-1, keepdim=True) + right.square().sum(dim=-1)
    return squares - 2.0 * left @ right.T


class PricePreference(nn.Module):
    """Gaussians of items and sessions, made of price level and category.

    Parameters
    ----------
    config
        Keys ``embedding_size``, ``n_heads``, ``price_repr``, ``price_attention``,
        ``price_item_ln``, ``share_ln``, ``dropout_price``.
    known
        Levels and categories of the items.
    """

    levels: Tensor
    categories: Tensor

    def __init__(self, config: Mapping[str, Any], known: Prices) -> None:
        super().__init__()
        size = int(config["embedding_size"])
        self.n_heads = int(config["n_heads"])
        self.attention = str(config["price_attention"])
        self.item_norm = bool(config["price_item_ln"])
        self.dropout = nn.Dropout(config["dropout_price"])
        self.register_buffer("levels", known.levels, persistent=False)
        self.roles = ("mean", "variance") if config["price_repr"] == "gaussian" else ("mean",)
        self.tables = nn.ParameterDict(
            {role: torch.empty(known.n_levels, size) for role in self.roles}
        )
        self.by_category = known.categories is not None
        if self.by_category:
            self.register_buffer("categories", known.categories, persistent=False)
            self.tables["category"] = torch.empty(known.n_categories, size)
        names = ("value", "out") if self.attention == "none" else ("query", "key", "value", "out")
        self.maps = nn.ModuleDict()
        for role in self.roles:
            for name in names:
                self.maps[f"{name}_{role}"] = nn.Linear(size, size)
        self._build_norms(bool(config["share_ln"]), size)
        for table in self.tables.values():
            nn.init.normal_(table, std=0.1)

    def _build_norms(self, shared: bool, size: int) -> None:
        """Make one norm for all (released code) or one for each place."""
        places = [*self.tables, *(f"out_{role}" for role in self.roles)]
        if shared:
            one = nn.LayerNorm(size, eps=1e-12)
            self.norms = nn.ModuleDict(dict.fromkeys(places, one))
        else:
            self.norms = nn.ModuleDict({place: nn.LayerNorm(size, eps=1e-5) for place in places})

    def item_vectors(self) -> Tensor:
        """Return ``u`` of all items ``(N, 2d)``; ``(N, d)`` without variances. Row 0 is zero."""
        parts = [self._rows(role, self.levels, self.item_norm) for role in self.roles]
        parts[1:] = [spread(part) for part in parts[1:]]
        return torch.cat(parts, dim=-1) * (self.levels > 0).unsqueeze(-1)

    def _rows(self, role: str, items_levels: Tensor, normed: bool) -> Tensor:
        """Return level row plus category row of all items, each normed or as it is."""
        rows = self._look_up(role, items_levels, normed)
        if self.by_category:
            rows = rows + self._look_up("category", self.categories, normed)
        return rows

    def _look_up(self, name: str, ids: Tensor, normed: bool) -> Tensor:
        rows = gather_rows(self.tables[name], ids)
        return self.norms[name](rows) if normed else rows

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
        inputs = {role: self._inputs(role, item_seq) for role in self.roles}
        padding = torch.arange(item_seq.shape[1], device=item_seq.device) >= lengths.unsqueeze(1)
        weights = self._weights(inputs, lengths, padding)
        last = last_position(item_seq.unsqueeze(-1), lengths).squeeze(-1)
        parts = []
        for role in self.roles:
            value = self.maps[f"value_{role}"](inputs[role])
            # The variance of a weighted sum has squared weights.
            share = weights if role == "mean" else weights.square()
            value = value if role == "mean" else positive(value)
            mixed = torch.einsum("bhn,bnhe->bhe", share, self._heads(value)).flatten(1)
            moved = self.dropout(self.maps[f"out_{role}"](mixed))
            residual = gather_rows(self.tables[role], self.levels[last])
            parts.append(self.norms[f"out_{role}"](moved + residual))
        return torch.cat([parts[0], *map(spread, parts[1:])], dim=-1)

    def _inputs(self, role: str, item_seq: Tensor) -> Tensor:
        """Return what attention reads ``(B, n, d)``: normed level plus normed category."""
        rows = self._look_up(role, self.levels[item_seq], normed=True)
        if self.by_category:
            rows = rows + self._look_up("category", self.categories[item_seq], normed=True)
        rows = self.dropout(rows)
        return rows if role == "mean" else positive(rows)

    def _weights(self, inputs: Mapping[str, Tensor], lengths: Tensor, padding: Tensor) -> Tensor:
        """Return the last position's attention weights ``(B, H, n)``.

        Logits are minus the squared Wasserstein distance, or the inner product of ``u``, over
        ``sqrt(d/H)``; or all alike.
        """
        if self.attention == "none":
            logits = padding.new_zeros((len(padding), self.n_heads, padding.shape[1])).float()
        else:
            query = self._sides("query", inputs, lengths)
            key = self._sides("key", inputs, None)
            logits = 2.0 * torch.einsum("bhe,bnhe->bhn", query.squeeze(1), key)
            if self.attention == "dot":
                logits = logits / 2.0
            else:
                # |query|^2 is the same for all keys and falls out of the softmax.
                logits = logits - key.square().sum(dim=-1).transpose(1, 2)
            logits = logits * self._heads(inputs["mean"]).shape[-1] ** -0.5
        weights = logits.masked_fill(padding.unsqueeze(1), -torch.inf).softmax(dim=-1)
        return self.dropout(weights)

    def _sides(self, name: str, inputs: Mapping[str, Tensor], lengths: Tensor | None) -> Tensor:
        """Return ``u`` per head ``(B, n, H, 2d/H)``, of the last position if lengths are given."""
        parts = []
        for role, rows in inputs.items():
            if lengths is not None:
                rows = last_position(rows, lengths).unsqueeze(1)
            part = self._heads(self.maps[f"{name}_{role}"](rows))
            parts.append(part if role == "mean" else spread(part))
        return torch.cat(parts, dim=-1)

    def _heads(self, vectors: Tensor) -> Tensor:
        """Split ``(B, n, d)`` to ``(B, n, H, d/H)``."""
        return vectors.view(*vectors.shape[:2], self.n_heads, -1)


class PriceScore(nn.Module):
    """How the distance ``W`` of session and item price enters a score.

    ``mul_plus``: ``r (1 + W)`` (released code); ``sub``: ``r - gamma W``; ``mul_exp``:
    ``r exp(-gamma W)``; ``none``: ``r``. ``gamma`` is above zero and learned.

    Parameters
    ----------
    form
        One of the four.
    gamma
        First value of ``gamma``.
    """

    def __init__(self, form: str, gamma: float) -> None:
        super().__init__()
        self.form = form
        if form in ("sub", "mul_exp"):
            self.log_gamma = nn.Parameter(torch.tensor(gamma).log())

    def forward(self, interest: Tensor, distance: Tensor) -> Tensor:
        """Return what price adds to the interest, same shape."""
        if self.form == "mul_plus":
            return interest * distance
        if self.form == "sub":
            return -self.log_gamma.exp() * distance
        if self.form == "mul_exp":
            return interest * torch.expm1(-self.log_gamma.exp() * distance)
        return torch.zeros_like(interest)
