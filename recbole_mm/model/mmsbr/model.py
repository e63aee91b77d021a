"""MMSBR: session recommendation from image, text and price.

Symbols: ``N`` items (0 is padding), ``B`` sessions, ``n`` positions, ``d`` the embedding size. An
item's image and text pass through pivots and become its vector ``E`` ``(N, d)`` (mmsbr_pivots.py);
price and category become Gaussians (mmsbr_price.py). Every switch, what is known of the paper, and
what the released code does, stands in docs/mmsbr.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from recbole.utils import InputType
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from recbole_mm.errors import ConfigError
from recbole_mm.model import layers, losses
from recbole_mm.model.base import MMSequentialRecommender
from recbole_mm.model.mmsbr import diagnostics as mmsbr_report
from recbole_mm.model.mmsbr import features as mmsbr_features
from recbole_mm.model.mmsbr.features import Vectors, VectorTable
from recbole_mm.model.mmsbr.pivots import FeatureTokens, ItemFusion
from recbole_mm.model.mmsbr.price import (
    PricePreference,
    PriceScore,
    read_prices,
    squared_distances,
)
from recbole_mm.model.mmsbr.settings import MMSBRSettings
from recbole_mm.model.mmsbr.terms import Interest, PseudoContrast

logger = logging.getLogger(__name__)


class MMSBR(MMSequentialRecommender):
    """Interest from image and text through pivots, preference from price as Gaussians.

    ``score(b, i) = r + price(r, W)`` with ``r = s_b . E_i`` and ``W`` the squared Wasserstein
    distance of the session's and the item's price, plus one learned number (``repeat_bias``) if
    ``i`` is in the session; trained with cross-entropy ``+ w_con con``.

    Parameters
    ----------
    config
        The keys of properties/model/MMSBR.yaml, explained in properties/keys.yaml.
    dataset
        Gives ``train_sessions``, ``item_features`` and, for price and category, the ``.item`` file.

    Raises
    ------
    ConfigError
        If switches contradict each other.
    FeatureError
        If features asked for are missing.
    DataError
        If prices or categories asked for are missing.
    """

    Settings = MMSBRSettings
    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings: Any = config
        self.size = int(config["embedding_size"])
        self._check_settings()
        self.seen = torch.zeros(self.n_items, dtype=torch.bool)
        self.seen[torch.from_numpy(dataset.train_sessions.items)] = True
        self.used = self._used_modalities()
        self._build_items()
        self.interest = Interest(config)
        if config["repeat_bias"]:
            self.repeat_bias = nn.Parameter(torch.zeros(()))
        self._build_price(dataset)
        self._reset()
        self._dropouts = [(m, m.p) for m in self.modules() if isinstance(m, nn.Dropout)]
        self.loss_names = ("main", "con") if self.contrast is not None else ("main",)
        self._log_inputs()
        self.to(self.device)

    # ---- Building ----

    def _check_settings(self) -> None:
        """Raise a ConfigError where switches contradict each other."""
        config = self.settings
        if self.size % int(config["n_heads"]):
            raise ConfigError(
                f"n_heads={config['n_heads']} does not divide embedding_size={self.size}; "
                "choose a divisor, for example --n_heads=4"
            )
        frozen = not config["features_trainable"] and config["contrast_on"] == "tables"
        if frozen and config["w_con"] > 0 and config["pseudo"] != "none":
            raise ConfigError(
                "contrast_on=tables has nothing to move while features_trainable is false. Use "
                "--contrast_on=projected, --features_trainable=true, or --w_con=0."
            )

    def _used_modalities(self) -> tuple[str, ...]:
        """Return the modalities in use, in the order of their layers."""
        there = () if self.features is None else tuple(self.features.tables)
        names = mmsbr_features.MODALITIES
        if self.settings["pivot_order"] == "image_first":
            names = names[::-1]
        choice = {name: self.settings[f"use_{name}"] for name in names}
        return tuple(n for n in names if choice[n] is True or (choice[n] == "auto" and n in there))

    def _build_items(self) -> None:
        """Make what item vectors come from: features, tokens, pivots, their fusion."""
        config = self.settings
        content = self._content()
        trained = bool(config["features_trainable"])
        self.contrast = self._make_contrast(content)
        self.real, self.projections = nn.ModuleDict(), nn.ModuleDict()
        self.pseudo, self.tokens = nn.ModuleDict(), nn.ModuleDict()
        for name, vectors in content.real.items():
            width = vectors.table.shape[1]
            self.real[name] = VectorTable(vectors.table, trained)
            self.register_buffer(f"has_{name}", vectors.present, persistent=False)
            if config["contrast_on"] == "projected":
                self.projections[name] = nn.Linear(width, self.size, bias=False)
                width = self.size
            sizes = self.size, int(config["n_tokens"]), float(config["dropout_tokens"])
            self.tokens[name] = FeatureTokens(width, *sizes)
        for name in self._contrasted(content):
            self.pseudo[name] = VectorTable(content.pseudo[name].table, trained)
        self._build_pivots()
        self.fusion = ItemFusion(config, self.used)

    def _content(self) -> mmsbr_features.Content:
        """Return the prepared features of the modalities in use."""
        raw = {name: Vectors(*self.feature(name)) for name in self.used}
        twins = {}
        if self.settings["pseudo"] == "files" and self.settings["w_con"] > 0:
            twins = {name: Vectors(*self.feature(f"pseudo_{name}")) for name in self.used}
        return mmsbr_features.prepare_content(raw, twins, self.seen, self.settings)

    def _contrasted(self, content: mmsbr_features.Content) -> list[str]:
        """Return the modalities whose real and pseudo vectors are compared."""
        return list(content.pseudo) if self.settings["w_con"] > 0 else []

    def _make_contrast(self, content: mmsbr_features.Content) -> PseudoContrast | None:
        """Make the contrastive loss, or None where it is off or has no pseudo vectors."""
        names = self._contrasted(content)
        if not names:
            return None
        widths = {name: content.pseudo[name].table.shape[1] for name in names}
        pairs = {
            name: torch.nonzero(content.real[name].present & content.pseudo[name].present)[:, 0]
            for name in names
        }
        return PseudoContrast(self.settings, widths, pairs)

    def _build_pivots(self) -> None:
        """Make the pivots: one set per item, one for all, or one for all plus an offset."""
        scope, width = self.settings["pivot_scope"], int(self.settings["n_pivots"]) * self.size
        if scope != "item":
            self.pivots = nn.Parameter(torch.empty(width))
        if scope != "shared":
            self.item_pivots = nn.Parameter(torch.empty(self.n_items, width))
        # Nothing is learned of an item that no training session holds: its offset stays 0.
        self.register_buffer("trained_items", self.seen.float().unsqueeze(1), persistent=False)

    def _build_price(self, dataset: Any) -> None:
        """Make the price branch if there are prices and they are wanted."""
        config, self.price = self.settings, None
        known = read_prices(dataset, config, self.seen.numpy())
        self.has_price = torch.zeros(self.n_items, dtype=torch.bool)
        if known is None or config["price_score"] == "none":
            return
        self.has_price = known.priced
        self.price = PricePreference(config, known)
        self.price_score = PriceScore(config["price_score"], float(config["price_gamma"]))

    def _reset(self) -> None:
        """Draw the first weights."""
        if self.settings["init"] == "uniform_all":
            # The released constructor ends so; it wipes out features and gains alike.
            bound = self.size**-0.5
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -bound, bound)
            return
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Scores of normed vectors start with a spread of about 1, whatever gate is drawn.
        for name, parameter in self.interest.named_parameters():
            if name in ("map.weight", "gate.weight"):
                nn.init.xavier_uniform_(parameter, gain=self.size**-0.5)
        # Small beside the tokens, or all items would start with nearly one and the same vector.
        for name, parameter in self.named_parameters():
            if name in ("pivots", "item_pivots"):
                nn.init.normal_(parameter, std=0.02)

    def _log_inputs(self) -> None:
        """Say what the model reads."""
        used = [*self.used]
        if self.price is not None:
            used += ["price", "category"] if self.price.by_category else ["price"]
        logger.info("MMSBR reads %s of the items.", ", ".join(used) or "nothing but the ids")
        if not self.used:
            logger.warning("MMSBR without image and text: item vectors are made of ids alone.")
        if self.settings["w_con"] > 0 and self.settings["pseudo"] != "none" and not self.contrast:
            logger.info("No contrastive loss: pseudo vectors need both image and text.")

    def start_epoch(self, epoch_idx: int) -> None:
        """Switch dropout off after epoch 0 if the released code's habit is wanted."""
        on = epoch_idx == 0 or not self.settings["dropout_first_epoch_only"]
        for module, share in self._dropouts:
            module.p = share if on else 0.0

    # ---- Scoring ----

    def item_tables(self) -> dict[str, Tensor]:
        """Return item vectors ``"candidates"`` ``(N, d)`` and, with prices, ``"price"``."""
        chunk = int(self.settings["item_chunk"]) or self.n_items
        rows = torch.split(torch.arange(1, self.n_items, device=self.device), chunk)
        keep = len(rows) > 1 and self.training and torch.is_grad_enabled()
        parts = [
            checkpoint(self._item_vectors, part, use_reentrant=False)
            if keep
            else self._item_vectors(part)
            for part in rows
        ]
        tables = {"candidates": torch.cat([parts[0].new_zeros(1, self.size), *parts])}
        if self.price is not None:
            tables["price"] = self.price.item_vectors()
        return tables

    def _item_vectors(self, rows: Tensor) -> Tensor:
        """Return the vectors ``(M, d)`` of some items."""
        tokens = {name: self.tokens[name](self.content(name, rows)) for name in self.used}
        present = {name: self.get_buffer(f"has_{name}")[rows] for name in self.used}
        vectors: Tensor = self.fusion(self._pivots(rows), tokens, present)
        return vectors

    def content(self, name: str, rows: Tensor) -> Tensor:
        """Return the (projected) vectors of a modality, ``(M, d)``."""
        vectors: Tensor = self.real[name](rows)
        return self.projections[name](vectors) if name in self.projections else vectors

    def _pivots(self, rows: Tensor) -> Tensor:
        """Return the first pivots ``(M, T, d)`` of some items."""
        scope = self.settings["pivot_scope"]
        if scope == "shared":
            flat = self.pivots.expand(len(rows), -1)
        elif scope == "item":
            flat = self.item_pivots[rows]
        else:
            flat = self.pivots + self.item_pivots[rows] * self._kept_offsets(rows)
        return flat.view(len(rows), -1, self.size)

    def _kept_offsets(self, rows: Tensor) -> Tensor:
        """Return 1 for items whose offset counts, else 0, ``(M, 1)``.

        Training drops whole offsets of items with content, so that content learns to do without
        them, as it must for new items.
        """
        keep = self.trained_items[rows]
        if self.training and self.used:
            bare = torch.stack([~self.get_buffer(f"has_{name}")[rows] for name in self.used])
            drawn = torch.rand_like(keep) >= self.settings["offset_dropout"]
            keep = keep * (drawn | bare.all(dim=0).unsqueeze(1))
        return keep

    def encode(
        self, item_seq: Tensor, item_seq_len: Tensor, tables: Mapping[str, Tensor]
    ) -> Tensor:
        """Return interest and price preference of sessions side by side, ``(B, d + 2d)``."""
        mask = torch.arange(item_seq.shape[1], device=item_seq.device) < item_seq_len.unsqueeze(1)
        items = layers.gather_rows(tables["candidates"], item_seq)
        vectors: Tensor = self.interest(items, item_seq_len, mask)
        if self.price is None:
            return vectors
        return torch.cat([vectors, self.price(item_seq, item_seq_len)], dim=1)

    def _parts(
        self, item_seq: Tensor, lengths: Tensor, tables: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return what adds up to the scores, ``(B, N)`` each."""
        query = self.encode(item_seq, lengths, tables)
        parts = {"interest": query[:, : self.size] @ tables["candidates"].T}
        if self.price is not None:
            distance = self.price_distance(query, tables)
            parts["price"] = self.price_score(parts["interest"], distance)
        if self.settings["repeat_bias"]:
            in_session = torch.zeros_like(parts["interest"]).scatter_(1, item_seq, 1.0)
            parts["repeat"] = self.repeat_bias * in_session
        return parts

    def price_distance(self, query: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
        """Return ``W`` of sessions (as `encode` gives them) and items, ``(B, N)``."""
        return squared_distances(query[:, self.size :], tables["price"])

    def score_parts(self, interaction: Any) -> dict[str, Tensor]:
        """Return the parts of the scores ``(B, n_items)``, which add up to them.

        ``"interest"`` is ``r``; ``"price"`` what price adds to it, ``"repeat"`` what being in the
        session adds. Padding has ``-inf`` in the first and 0 in the others.
        """
        with self.full_precision():
            tables = self.current_tables()
            parts = self._parts(*self.inputs(interaction), tables)
        for name, part in parts.items():
            part[:, 0] = -math.inf if name == "interest" else 0.0
        return parts

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of all items ``(B, n_items)``; padding has ``-inf``."""
        parts = self.score_parts(interaction)
        return torch.stack(list(parts.values())).sum(dim=0)

    def predict(self, interaction: Any) -> Tensor:
        """Return the score of each row's ``item_id``, ``(B,)``."""
        item = interaction[self.ITEM_ID]
        with self.full_precision():
            tables = self.current_tables()
            item_seq, lengths = self.inputs(interaction)
            query = self.encode(item_seq, lengths, tables)
            score = (query[:, : self.size] * tables["candidates"][item]).sum(dim=1)
            if self.price is not None:
                apart = query[:, self.size :] - tables["price"][item]
                score = score + self.price_score(score, apart.square().sum(dim=1))
            if self.settings["repeat_bias"]:
                score = score + self.repeat_bias * (item_seq == item.unsqueeze(1)).any(dim=1)
        return score.masked_fill(item == 0, -math.inf)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the weighted parts named in ``loss_names``, scalars."""
        item_seq, lengths = self.inputs(interaction)
        target = interaction[self.ITEM_ID]
        with self.full_precision():
            tables = self.item_tables()
            parts = self._parts(item_seq, lengths, tables)
            # Column 0 is no item and must not take part in the softmax.
            scores = torch.stack(list(parts.values())).sum(dim=0)[:, 1:]
            main = losses.softmax_ce(scores, target - 1).mean()
            if self.contrast is None:
                return (main,)
            batch = torch.cat([item_seq.flatten(), target])
            return main, self.settings["w_con"] * self._contrast(batch)

    def _contrast(self, batch_items: Tensor) -> Tensor:
        """Return the contrastive loss summed over modalities, a scalar."""
        contrast: Any = self.contrast
        total = torch.zeros((), device=batch_items.device)
        for name in self.pseudo:
            rows = contrast.sample(name, batch_items)
            total = total + contrast(name, self.content(name, rows), self.pseudo[name](rows))
        return total

    def diagnostics(self, train_data: Any, valid_data: Any) -> dict[str, float]:
        """Return what tells how the parts fare; validation rows at most, never test ones."""
        return mmsbr_report.diagnose(self, valid_data)
