"""CoHHN: price and interest preference (Zhang et al., SIGIR 2022, arXiv 2205.04210).

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``T`` positions, ``d`` the embedding size.
What is done otherwise than in the released code: docs/peers.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_mm.data.fits import enlarged
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.chunked import mean_softmax_ce
from recbole_mm.model.layers import gather_rows, last_position, masked_mean, real_positions
from recbole_mm.model.mmsbr.price_levels import logistic_levels
from recbole_mm.model.mmsbr.prices import read_prices
from recbole_mm.model.peers.hypergraph import HyperGraph, Nodes, hyperedge_counts
from recbole_mm.model.peers.settings import CoHHNSettings

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset


class CoHHN(MMSequentialRecommender):
    """Items, price levels and categories in one graph; what a session wants, and at what price.

    ``score(b, i) = s_b . e_i + q_b . p_i`` with the item's vector ``e`` and that of its price
    ``p``, both from the graph, and the session's interest ``s`` and price preference ``q``, which
    guide each other. Trained with a softmax over all items.

    Parameters
    ----------
    config
        The keys of `CoHHNSettings`.
    dataset
        Gives ``train_sessions`` and, for price and category, ``item_columns``.

    Raises
    ------
    DataError
        If no training item has a price, or a column that was named is missing.
    """

    Settings: ClassVar[type[CoHHNSettings]] = CoHHNSettings
    settings: CoHHNSettings
    input_type = InputType.POINTWISE

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        s = self.settings
        self._build_graph(dataset)
        size = s.embedding_size
        self.item_embedding = nn.Embedding(self.n_items, size, padding_idx=0)
        self.price_embedding = nn.Embedding(self.sizes[0], size, padding_idx=0)
        self.category_embedding = nn.Embedding(self.sizes[1], size, padding_idx=0)
        self.price_preference = PricePreference(size, s.n_heads, s.attn_dropout_prob)
        self.interest_preference = InterestPreference(size, self.max_seq_length)
        self.guidance = Guidance(size)
        self.reset()
        self.to(self.device)

    def _build_graph(self, dataset: SessionDataset) -> None:
        """Read prices and categories, count sessions, and make the graph."""
        s = self.settings
        seen = torch.from_numpy(dataset.train_counts > 0)
        known = read_prices(dataset.item_columns, s, seen.numpy(), logistic_levels)
        assert known is not None  # without prices it was an error
        categories, count = known.categories, known.n_categories
        if categories is None:
            # Without categories all items are of one.
            categories, count = (torch.arange(self.n_items) > 0).long(), 2
        self.sizes = known.n_levels, count
        counts = dataset.fitted(
            "sessions as hyperedges",
            lambda: hyperedge_counts(dataset.train_sessions, self.n_items),
            lambda kept: enlarged(kept, self.n_items),
        )
        dropouts = s.gate_dropout_prob, s.neighbour_dropout_prob
        self.graph = HyperGraph(
            counts, known.levels, categories, seen, self.sizes, s.embedding_size, s.n_layers,
            *dropouts,
        )  # fmt: skip

    def reset(self) -> None:
        """Draw the first weights from ``U(-1/sqrt(d), 1/sqrt(d))``, those of padding 0."""
        bound = self.settings.embedding_size**-0.5
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)
        for table in (self.item_embedding, self.price_embedding, self.category_embedding):
            with torch.no_grad():
                table.weight[0].zero_()

    def item_tables(self) -> dict[str, Tensor]:
        """Return ``e`` and ``p`` as ``"items"`` and ``"prices"`` ``(N, d)``, and side by side."""
        tables = self.item_embedding, self.price_embedding, self.category_embedding
        nodes: Nodes = self.graph(Nodes(*(one.weight for one in tables)))
        prices = F.embedding(self.graph.levels, nodes.prices)
        candidates = torch.cat([nodes.items, prices], dim=1)
        return {"items": nodes.items, "prices": prices, "candidates": candidates}

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return ``s`` and ``q`` of sessions side by side, ``(B, 2d)``."""
        real = real_positions(item_seq_len, item_seq.shape[1])
        price = self.price_preference(gather_rows(tables["prices"], item_seq), item_seq_len, real)
        items = gather_rows(tables["items"], item_seq)
        interest = self.interest_preference(items, item_seq_len, real)
        return torch.cat(self.guidance(interest, price), dim=1)

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """Return the mean cross-entropy over all items."""
        with self.full_precision():
            query, candidates = self._match(interaction)
            masked = self.settings.train_own_items == "mask"
            struck = self.inputs(interaction)[0] if masked else None
            return mean_softmax_ce(query, candidates, interaction[self.ITEM_ID], struck)

    @torch.no_grad()
    def score_parts(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return ``s . e`` and ``q . p``, ``(B, N)`` each, which add up; padding has ``-inf``."""
        size = self.settings.embedding_size
        with self.full_precision():
            pair = self._match(interaction)
            asked, met = (torch.split(one, size, dim=1) for one in pair)
            names = ("interest", "price")
            found = {n: q @ c.T for n, q, c in zip(names, asked, met, strict=True)}
        for scores in found.values():
            scores[:, 0] = -math.inf
        return found


class PricePreference(nn.Module):
    """The last position of self-attention over a session's prices."""

    def __init__(self, size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))

    def forward(self, prices: Tensor, lengths: Tensor, real: Tensor) -> Tensor:
        """Return ``(B, d)`` of price vectors ``(B, T, d)``, lengths and real positions."""
        asked = self._heads(self.query(last_position(prices, lengths).unsqueeze(1)))
        keys, values = self._heads(self.key(prices)), self._heads(self.value(prices))
        mixed = F.scaled_dot_product_attention(
            asked, keys, values, real[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return mixed.flatten(1)

    def _heads(self, vectors: Tensor) -> Tensor:
        """Return ``(B, H, n, d/H)`` of ``(B, n, d)``."""
        return vectors.view(*vectors.shape[:2], self.n_heads, -1).transpose(1, 2)


class InterestPreference(nn.Module):
    """A sum of a session's items, weighted by age and by their mean.

    ``b_t = w . sigmoid(G tanh(W [a_t, e_t]) + V mean(e))`` with a learned vector ``a`` of the age,
    which counts from the end of the session.
    """

    def __init__(self, size: int, n_positions: int) -> None:
        super().__init__()
        self.age_embedding = nn.Embedding(n_positions, size)
        self.joint = nn.Linear(2 * size, size)
        self.item_map = nn.Linear(size, size)
        self.mean_map = nn.Linear(size, size, bias=False)
        self.weight = nn.Linear(size, 1)

    def forward(self, items: Tensor, lengths: Tensor, real: Tensor) -> Tensor:
        """Return ``(B, d)`` of item vectors ``(B, T, d)``, lengths and real positions."""
        place = torch.arange(items.shape[1], device=items.device)
        age = (lengths.unsqueeze(1) - 1 - place).clamp_min(0)
        joint = torch.tanh(self.joint(torch.cat([self.age_embedding(age), items], dim=2)))
        mean = self.mean_map(masked_mean(items, real)).unsqueeze(1)
        weight = self.weight(torch.sigmoid(self.item_map(joint) + mean))
        summed: Tensor = (weight * real.unsqueeze(2) * items).sum(dim=1)
        return summed


class Guidance(nn.Module):
    """Co-guided learning: interest and price preference tell each other what they want."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.product, self.sum = nn.Linear(size, size), nn.Linear(size, size)
        for name in ("interest", "price"):
            for part in ("product_gate", "sum_gate", "own", "other"):
                self.add_module(f"{name}_{part}", nn.Linear(size, size))

    def forward(self, interest: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
        """Return both ``(B, d)``, guided."""
        together = torch.tanh(self.product(price * interest))
        either = torch.tanh(self.sum(price + interest))
        to_interest = self._told("interest", interest, price, together, either)
        to_price = self._told("price", price, interest, together, either)
        return (interest + to_price) * to_interest, (price + to_interest) * to_price

    def _told(
        self, name: str, own: Tensor, other: Tensor, together: Tensor, either: Tensor
    ) -> Tensor:
        """Return ``m = tanh(W (own r) + U (other (1 - r)))`` with the gate ``r``."""
        part = {k: self.get_submodule(f"{name}_{k}") for k in
                ("product_gate", "sum_gate", "own", "other")}  # fmt: skip
        keep = torch.sigmoid(part["product_gate"](together) + part["sum_gate"](either))
        return torch.tanh(part["own"](own * keep) + part["other"](other * (1 - keep)))
