"""What MMSBR's released code does (preset ``official``): the parts in which it differs.

``Zhang-xiaokun/MMSBR`` at commit b640ff4. It says that features are read and then draws all
parameters anew, so that nothing is left of them; docs/mmsbr.md has the whole list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from recbole_mm.model.mmsbr.contrast import PseudoContrast
from recbole_mm.model.mmsbr.features import ItemVectors
from recbole_mm.model.mmsbr.interest import GatedSum
from recbole_mm.model.mmsbr.model import MMSBR
from recbole_mm.model.mmsbr.pivots import (
    ConcatFusion,
    ItemHead,
    PivotFusion,
    TokenLayer,
    merge,
)
from recbole_mm.model.mmsbr.price import PricePreference
from recbole_mm.model.mmsbr.settings import MMSBRSettings, OfficialMMSBRSettings
from recbole_mm.model.released import FirstEpochDropout


class TrainedVectors(ItemVectors):
    """Item vectors ``(N, w)`` that are trained themselves; ``size`` is not asked for."""

    def __init__(self, table: Tensor, size: int) -> None:
        super().__init__()
        self.width = table.shape[1]
        self.vectors = nn.Parameter(table)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the vectors of some items ``(M, w)``."""
        return self.vectors[rows]


class WholeContrast(PseudoContrast):
    """``sum_i log10 (sum_{j in S_i} exp(x_i . y_j) / exp(x_i . y_i))``, over all items.

    ``S_i`` are the items with the 100 largest products, an item's own only if it is one of them.
    """

    n_nearest: ClassVar[int] = 100

    def sides(self, real: Tensor, pseudo: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors ``(M, d)`` as they are."""
        return real, pseudo

    def among(self, logits: Tensor) -> Tensor:
        """Return the largest logits of each row."""
        return logits.topk(min(self.n_nearest, logits.shape[1]), dim=1).values

    def total(self, values: Tensor) -> Tensor:
        """Return the sum to base 10."""
        return values.sum() / math.log(10.0)


class QueryAxisLayer(TokenLayer):
    """A layer whose keys each share one unit out among the queries, with one norm for both sums."""

    def __init__(self, settings: MMSBRSettings) -> None:
        super().__init__(settings)
        self.norm_out = self.norm_attention

    def attend(self, tokens: Tensor, n_out: int) -> Tensor:
        """Return the mixture of values for the first ``n_out``; all tokens are queries."""
        logits, value = self.logits(tokens, tokens)
        weights = logits.softmax(dim=-2)[:, :, :n_out]
        return (weights @ value).transpose(1, 2).flatten(2)


class AlternatingFusion(PivotFusion):
    """Pivots that pass the text layer, then the image layer; ``z`` holds them alone."""

    Layer = QueryAxisLayer

    def __init__(self, settings: MMSBRSettings, modalities: tuple[str, ...]) -> None:
        super().__init__(settings, modalities)
        self.width = settings.n_pivots * settings.embedding_size

    def forward(
        self, pivots: Tensor, tokens: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> Tensor:
        """Return ``z`` ``(M, T d)``."""
        return self.passed(pivots, tokens, present).flatten(1)

    def one_round(
        self,
        layers: nn.ModuleDict,
        pivots: Tensor,
        tokens: dict[str, Tensor],
        present: Mapping[str, Tensor],
        last: bool,
    ) -> Tensor:
        """Run the layers of a round one after the other."""
        for name in tokens:
            out = self.one_layer(layers[name], pivots, tokens, name, last)
            pivots = merge(pivots, [(out, present[name])])
        return pivots


class ReluHead(ItemHead):
    """``E = relu(W_b relu(W_a z + b_a) + b_b)``: no coordinate is below zero."""

    def __init__(self, width: int, size: int, dropout: float) -> None:
        super().__init__(width, size, dropout)
        self.end = nn.ReLU()


class GrowingScore(nn.Module):
    """``W`` times the interest, so that ``r (1 + W)`` grows with the distance where ``r > 0``."""

    def forward(self, interest: Tensor, distance: Tensor) -> Tensor:
        """Return what price adds to the interest, same shape."""
        return interest * distance


class OneNormPrice(PricePreference):
    """The price branch with one layer norm everywhere."""

    Score = GrowingScore

    def make_norms(self, places: list[str], size: int) -> dict[str, nn.Module]:
        """Return the same norm for each place."""
        return dict.fromkeys(places, nn.LayerNorm(size, eps=1e-12))


class OfficialMMSBR(FirstEpochDropout, MMSBR):
    """MMSBR as released: its parts, its first weights, and dropout in the first epoch only.

    Parameters are those of `MMSBR`. Price ranges still come from items of training sessions.
    """

    Settings = OfficialMMSBRSettings
    Table = TrainedVectors
    Contrast = WholeContrast
    Fusions: ClassVar[Mapping[str, type[ConcatFusion]]] = {"pivot": AlternatingFusion}
    Head = ReluHead
    Session = GatedSum
    Price = OneNormPrice

    def reset(self) -> None:
        """Draw everything from ``U(-1/sqrt(d), 1/sqrt(d))``: features, and gains of norms."""
        bound = self.size**-0.5
        parts = [self.pivots, self.real, self.pseudo, self.tokens, self.fusion, self.head]
        parts += [self.interest, *([self.price] if self.price is not None else [])]
        # A seed's numbers hang on the order, and a shared norm must be drawn once.
        for parameter in nn.ModuleList(parts).parameters():
            nn.init.uniform_(parameter, -bound, bound)
