"""MMSBR: session recommendation from image, text and price.

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``n`` positions, ``d`` the embedding size. An
item's image and text pass through pivots and become its vector ``E`` ``(N, d)`` (pivots.py); price
and category become Gaussians (price.py). Every switch, what is known of the paper, and what the
released code does, stands in docs/mmsbr.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recbole_mm.data.fits import Fitted
from recbole_mm.model import layers, losses
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.chunked import mean_in_chunks, mean_softmax_ce
from recbole_mm.model.mmsbr.contrast import PseudoContrast
from recbole_mm.model.mmsbr.diagnostics import diagnose
from recbole_mm.model.mmsbr.features import (
    Content,
    ItemVectors,
    ProjectedVectors,
    prepare_content,
)
from recbole_mm.model.mmsbr.interest import GatedSum, Interest
from recbole_mm.model.mmsbr.pivots import (
    ConcatFusion,
    FeatureTokens,
    ItemHead,
    PivotFusion,
    first_pivots,
)
from recbole_mm.model.mmsbr.price import PricePreference, PriceScore, squared_distances
from recbole_mm.model.mmsbr.prices import Prices, read_prices
from recbole_mm.model.mmsbr.settings import MMSBRSettings
from recbole_mm.model.spaces import Vectors

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset

logger = logging.getLogger(__name__)


class MMSBR(MMSequentialRecommender):
    """Interest from image and text through pivots, preference from price as Gaussians.

    ``score(b, i) = s_b . E_i - gamma W_bi``, with ``W`` the squared Wasserstein distance of the
    session's and the item's price, plus one learned number (``repeat_bias``) if ``i`` is in the
    session; trained with cross-entropy ``+ w_con con``.

    Parameters
    ----------
    config
        Its keys are those of `MMSBRSettings`.
    dataset
        Gives ``train_sessions``, ``item_features`` and, for price and category, ``item_columns``.

    Raises
    ------
    ConfigError
        If switches contradict each other.
    FeatureError
        If features asked for are missing.
    DataError
        If prices or categories asked for are missing.
    """

    Settings: ClassVar[type[MMSBRSettings]] = MMSBRSettings
    settings: MMSBRSettings
    input_type = InputType.POINTWISE
    # The parts; `OfficialMMSBR` has others.
    Table: ClassVar[type[ItemVectors]] = ProjectedVectors
    Contrast: ClassVar[type[PseudoContrast]] = PseudoContrast
    Fusions: ClassVar[Mapping[str, type[ConcatFusion]]] = {
        "pivot": PivotFusion,
        "concat_mlp": ConcatFusion,
    }
    Head: ClassVar[type[ItemHead]] = ItemHead
    Session: ClassVar[type[GatedSum]] = Interest
    Price: ClassVar[type[PricePreference]] = PricePreference
    interest: GatedSum

    def __init__(self, config: Config, dataset: SessionDataset) -> None:
        super().__init__(config, dataset)
        settings, self.size = self.settings, self.settings.embedding_size
        self.seen = torch.from_numpy(dataset.train_counts > 0)
        self.used = settings.modalities(
            () if self.features is None else tuple(self.features.tables)
        )
        self._build_content(self._content(dataset.fitted))
        self.fusion = self.Fusions[settings.fusion](settings, self.used)
        self.head = self.Head(self.fusion.width, self.size, settings.dropout_fusion)
        self.interest = self.Session(settings, self.max_seq_length)
        self.match = layers.make_match(settings.score, settings.temperature)
        if settings.repeat_bias:
            self.repeat_bias = nn.Parameter(torch.zeros(()))
        self._build_price(read_prices(dataset.item_columns, settings, self.seen.numpy()))
        self.reset()
        self.loss_names = ("main",) if self.contrast is None else ("main", "con")
        self._log_inputs()
        self.to(self.device)

    # ---- Building ----

    def _content(self, fitted: Fitted) -> Content:
        """Return the prepared features of the modalities in use."""
        settings = self.settings
        raw = {name: Vectors(*self.feature(name)) for name in self.used}
        twins: dict[str, Vectors] | None = None
        if settings.w_con == 0:
            twins = {}
        elif settings.pseudo == "files":
            twins = {name: Vectors(*self.feature(f"pseudo_{name}")) for name in self.used}
        return prepare_content(raw, twins, self.seen, settings.pca_dim, fitted)

    def _build_content(self, content: Content) -> None:
        """Make what item vectors come from: real and pseudo vectors, tokens, first pivots."""
        settings = self.settings
        bare = torch.ones(self.n_items, dtype=torch.bool)
        for name, vectors in content.real.items():
            self.register_buffer(f"has_{name}", vectors.present, persistent=False)
            bare &= ~vectors.present
        self.pivots = first_pivots(settings, self.seen, bare)
        self._build_contrast(content)
        self.real, self.tokens = nn.ModuleDict(), nn.ModuleDict()
        for name, vectors in content.real.items():
            self.real[name] = made = self.Table(vectors.table, self.size)
            sizes = self.size, settings.n_tokens, settings.dropout_tokens
            self.tokens[name] = FeatureTokens(made.width, *sizes)

    def _build_contrast(self, content: Content) -> None:
        """Make pseudo vectors and their contrast, of modalities of which some item has both."""
        self.pseudo, pairs = nn.ModuleDict(), {}
        for name, vectors in content.pseudo.items():
            both = torch.nonzero(content.real[name].present & vectors.present)[:, 0]
            if len(both):
                self.pseudo[name] = self.Table(vectors.table, self.size)
                pairs[name] = both
        settings, self.contrast = self.settings, None
        if pairs:
            tau, sample = settings.contrast_tau, settings.contrast_sample
            self.contrast = self.Contrast(pairs, tau, sample)

    def _build_price(self, known: Prices | None) -> None:
        """Make the price branch if there are prices and they are wanted."""
        self.price, self.has_price = None, torch.zeros(self.n_items, dtype=torch.bool)
        if known is not None:
            self.price, self.has_price = self.Price(self.settings, known), known.priced

    def reset(self) -> None:
        """Draw the first weights."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.interest.reset()
        # Small beside the tokens, or all items would start with nearly one and the same vector.
        for parameter in self.pivots.parameters():
            nn.init.normal_(parameter, std=0.02)

    def _log_inputs(self) -> None:
        """Say what the model reads."""
        used = [*self.used]
        if self.price is not None:
            used += ["price", "category"] if self.price.by_category else ["price"]
        logger.info("MMSBR reads %s of the items.", ", ".join(used) or "nothing but the ids")
        if not self.used:
            logger.warning("MMSBR without image and text: item vectors are made of ids alone.")
        if self.settings.w_con > 0 and self.contrast is None:
            logger.info("No contrastive loss: pseudo vectors need both image and text.")

    def has(self, name: str) -> Tensor:
        """Return which items have a modality, bool ``(N,)``."""
        mask: Tensor = self.get_buffer(f"has_{name}")
        return mask

    # ---- Items ----

    def item_tables(self) -> dict[str, Tensor]:
        """Return item vectors ``"candidates"`` ``(N, d)`` and, with prices, ``"price"``."""
        chunk = self.settings.item_chunk or self.n_items
        rows = torch.split(torch.arange(1, self.n_items, device=self.device), chunk)
        keep = len(rows) > 1 and self.training and torch.is_grad_enabled()
        parts = [
            checkpoint(self.item_vectors, part, use_reentrant=False)
            if keep
            else self.item_vectors(part)
            for part in rows
        ]
        tables = {"candidates": torch.cat([parts[0].new_zeros(1, self.size), *parts])}
        if self.price is not None:
            tables["price"] = self.price.item_vectors()
        return tables

    def item_vectors(self, rows: Tensor) -> Tensor:
        """Return the vectors ``(M, d)`` of some items: tokens, pivots, fusion, end."""
        tokens = {name: self.tokens[name](self.real[name](rows)) for name in self.used}
        present = {name: self.has(name)[rows] for name in self.used}
        vectors: Tensor = self.head(self.fusion(self.pivots(rows), tokens, present))
        return vectors

    # ---- Sessions and scores ----

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return interest and price preference of sessions side by side, ``(B, d + 2d)``."""
        mask = layers.real_positions(item_seq_len, item_seq.shape[1])
        items = layers.gather_rows(tables["candidates"], item_seq)
        vectors: Tensor = self.interest(items, item_seq_len, mask)
        if self.price is None:
            return vectors
        return torch.cat([vectors, self.price(item_seq, item_seq_len)], dim=1)

    def _parts(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what adds up to the scores, ``(B, N)`` each."""
        return self._parts_of(self.encode(item_seq, lengths, tables), item_seq, lengths, tables)

    def _parts_of(
        self, query: Tensor, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the same, given what `encode` made of the sessions."""
        asked = self.match.query(query[:, : self.size])
        parts = {"interest": asked @ self.match.items(tables["candidates"]).T}
        if self.price is not None:
            apart = self._distances(query, tables)
            parts["price"] = self.price.score(parts["interest"], apart)
        if self.settings.repeat_bias:
            held = _without_padding(item_seq, lengths)
            in_session = torch.zeros_like(parts["interest"]).scatter_(1, held, 1.0)
            parts["repeat"] = self.repeat_bias * in_session
        return parts

    def distances(self, interaction: Interaction) -> Tensor:
        """Return the squared distances ``W`` of the prices of sessions and items, ``(B, N)``."""
        tables = self.current_tables()
        return self._distances(self.encode(*self.inputs(interaction), tables), tables)

    def _distances(self, query: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Return ``W`` of what `encode` gave of sessions, ``(B, N)``."""
        return squared_distances(query[:, self.size :], tables["price"])

    def score_parts(self, interaction: Interaction) -> dict[str, Tensor]:
        """Return the parts of the scores ``(B, n_items)``, which add up to them.

        ``"interest"`` is ``s . E``; ``"price"`` what price adds to it, ``"repeat"`` what being in
        the session adds. Padding has ``-inf`` in the first and 0 in the others.
        """
        return self._scores_apart(interaction)

    def _scores_apart(self, interaction: Interaction) -> dict[str, Tensor]:
        """See `score_parts`, which may be extended by what is added to the whole score."""
        with self.full_precision():
            parts = self._parts(*self.inputs(interaction), self.current_tables())
        for name, part in parts.items():
            part[:, 0] = -math.inf if name == "interest" else 0.0
        return parts

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Return the scores of all items ``(B, n_items)``; padding has ``-inf``."""
        return torch.stack(list(self._scores_apart(interaction).values())).sum(dim=0)

    def predict(self, interaction: Interaction) -> Tensor:
        """Return the score of each row's ``item_id``, ``(B,)``."""
        item = interaction[self.ITEM_ID]
        with self.full_precision():
            tables = self.current_tables()
            item_seq, lengths = self.inputs(interaction)
            query = self.encode(item_seq, lengths, tables)
            asked = self.match.query(query[:, : self.size])
            score = (asked * self.match.items(tables["candidates"][item])).sum(dim=1)
            if self.price is not None:
                apart = query[:, self.size :] - tables["price"][item]
                score = score + self.price.score(score, apart.square().sum(dim=1))
            if self.settings.repeat_bias:
                held = _without_padding(item_seq, lengths)
                score = score + self.repeat_bias * (held == item.unsqueeze(1)).any(dim=1)
        return score.masked_fill(item == 0, -math.inf)

    # ---- Training ----

    def calculate_loss(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """Return the weighted parts named in ``loss_names``, scalars."""
        item_seq, lengths = self.inputs(interaction)
        target = interaction[self.ITEM_ID]
        with self.full_precision():
            main = self._main(item_seq, lengths, target)
            if self.contrast is None:
                return (main,)
            batch = torch.cat([item_seq.flatten(), target])
            return main, self.settings.w_con * self._contrasted(self.contrast, batch)

    def _main(self, item_seq: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy over all items."""
        tables = self.item_tables()
        query = self.encode(item_seq, lengths, tables)
        if self.price is not None and not isinstance(self.price.score, PriceScore):
            rows = (query, item_seq, lengths, target)
            row_losses = partial(self._row_losses, tuple(tables))
            read = [*self.match.parameters(), *self.price.score.parameters()]
            return mean_in_chunks(row_losses, rows, [*tables.values()], read)
        held = _without_padding(item_seq, lengths)
        return mean_softmax_ce(
            *self._as_product(query, tables),
            target,
            item_seq if self.settings.train_own_items == "mask" else None,
            bonus=(held, self.repeat_bias) if self.settings.repeat_bias else None,
        )

    def _as_product(self, query: Tensor, tables: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return what multiplies to interest and price, but for a number per row.

        One product of rows and items in the place of two and of four sums.
        """
        asked = self.match.query(query[:, : self.size])
        items = self.match.items(tables["candidates"])
        if self.price is None:
            return asked, items
        price = cast(PriceScore, self.price.score)
        left, right = price.as_product(query[:, self.size :], tables["price"])
        return torch.cat([asked, left], dim=1), torch.cat([items, right], dim=1)

    def _row_losses(
        self, names: tuple[str, ...], query: Tensor, item_seq: Tensor, lengths: Tensor,
        target: Tensor, *tables: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return the cross-entropy ``(b,)`` of rows, given the tables of these names."""
        named = dict(zip(names, tables, strict=True))
        parts = self._parts_of(query, item_seq, lengths, named)
        scores = torch.stack(list(parts.values())).sum(dim=0)
        if self.settings.train_own_items == "mask":
            scores = losses.without_own_items(scores, item_seq, target)
        # Column 0 is no item and must not take part in the softmax.
        return losses.softmax_ce(scores[:, 1:], target - 1)

    def _contrasted(self, contrast: PseudoContrast, batch_items: Tensor) -> Tensor:
        """Return the contrastive loss summed over modalities, a scalar."""
        total = torch.zeros((), device=batch_items.device)
        for name in self.pseudo:
            rows = contrast.sample(name, batch_items)
            total = total + contrast(self.real[name](rows), self.pseudo[name](rows))
        return total

    def diagnostics(
        self, train_data: object, valid_data: Iterable[tuple[Interaction, ...]]
    ) -> dict[str, float]:
        """Return what tells how the parts fare; validation rows at most, never test ones."""
        self.eval()
        with torch.no_grad(), self.full_precision():
            return diagnose(self, train_data, valid_data)


def _without_padding(item_seq: Tensor, lengths: Tensor) -> Tensor:
    """Return items ``(B, n)`` with 0 at all positions behind the end, whatever stands there."""
    return item_seq.masked_fill(~layers.real_positions(lengths, item_seq.shape[1]), 0)
