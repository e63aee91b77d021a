"""The weights of a late sum: fitted on validation rows, after the networks are trained.

``score(j) = sum_m a_m z(network_m)_j + sum_p b_p z(part_p)_j``, ``z`` over all items of the row,
with the items of the history last or kept. Weights and ways to count are chosen by NDCG@20, one
term after the other until none changes.

Symbols: ``B`` rows, ``N`` items (0 is padding).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from recbole_mm.model.counting.history import History
from recbole_mm.model.counting.scores import ndcg, own_items_last
from recbole_mm.model.parts.counted import Counted, UnseenItems, Variant

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
# With these the way to count is chosen, before its weight.
_COARSE = (0.1, 0.35, 1.0, 3.0)
_ROUNDS = 4


@dataclass(frozen=True)
class Batch:
    """Validation rows: their history, items ``(B, T)``, targets ``(B,)`` and networks' z-scores."""

    history: History
    item_seq: Tensor
    target: Tensor
    networks: Mapping[str, Tensor]


@dataclass(frozen=True)
class Weights:
    """What is fitted.

    Attributes
    ----------
    networks
        Weight of each network.
    parts
        Weight of each counted part.
    variants
        How each part counts.
    own_last
        Whether items of the history come last.
    """

    networks: dict[str, float]
    parts: dict[str, float] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    own_last: bool = False

    def numbers(self) -> dict[str, float]:
        """Return the weights by name, and the ways to count; a rule is told by a 1."""
        found = {f"weight/{name}": value for name, value in self.networks.items()}
        for name, weight in self.parts.items():
            found[f"weight/{name}"] = weight
            if weight and name != UnseenItems.name:
                variant = self.variants[name]
                found[f"{name}/decay"] = variant.decay
                if name == "transitions":
                    found[f"{name}/{variant.rule}"] = 1.0
        return {**found, "own_items_last": float(self.own_last)}

    def plain(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        variants = {name: list(variant) for name, variant in self.variants.items()}
        return {**vars(self), "variants": variants}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Weights:
        """Read what `plain` gave."""
        read = {name: Variant(*variant) for name, variant in plain["variants"].items()}
        return cls(dict(plain["networks"]), dict(plain["parts"]), read, bool(plain["own_last"]))


def terms(batch: Batch, parts: Sequence[Counted], weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """Yield the weighted terms ``(B, N)`` of the sum by name; those of weight 0 are left out."""
    for name, scores in batch.networks.items():
        if weights.networks[name]:
            yield name, weights.networks[name] * scores
    for part in parts:
        if weights.parts[part.name]:
            z = part.z(batch.history, weights.variants[part.name], batch.item_seq.device)
            yield part.name, weights.parts[part.name] * z


def summed(batch: Batch, parts: Sequence[Counted], weights: Weights) -> Tensor:
    """Return the sum ``(B, N)``, own items last where the weights say so."""
    total = torch.zeros_like(next(iter(batch.networks.values())))
    for _, term in terms(batch, parts, weights):
        total += term
    return own_items_last(total, batch.item_seq) if weights.own_last else total


class Fit:
    """Chooses the weights on batches of validation rows, one term after the other.

    Parameters
    ----------
    batches
        The rows, with the z-scores of the networks.
    parts
        The counted parts.
    own_items
        Whether ``own_last`` is chosen; else items of the history stay where they are.
    masked
        Whether the run strikes the history out anyway; own items then come last while choosing.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        parts: Sequence[Counted],
        own_items: bool = True,
        masked: bool = False,
    ) -> None:
        self.batches, self.parts = batches, parts
        self.own_choices = (True, False) if own_items and not masked else (masked,)

    def weights(self) -> Weights:
        """Return the weights that give the best NDCG@20; of equals the first tried."""
        networks = list(self.batches[0].networks)
        found = Weights(
            {name: 1.0 for name in networks},
            {part.name: 0.0 for part in self.parts},
            {part.name: part.variants[0] for part in self.parts},
            self.own_choices[0],
        )
        for _ in range(_ROUNDS):
            before = found
            for part in self.parts:
                found = self._choose_part(found, part)
            # The first network is the unit of all weights.
            for name in networks[1:]:
                found = self._choose_network(found, name)
            found = self._choose_own(found)
            if found == before:
                break
        return found

    def _choose_part(self, weights: Weights, part: Counted) -> Weights:
        """Choose how a part counts, then its weight."""
        gains = {
            variant: max(self._gains(weights, part, variant, _COARSE).values())
            for variant in part.variants
        }
        best = max(gains, key=lambda one: gains[one])
        by_weight = self._gains(weights, part, best, WEIGHTS)
        weight = max(by_weight, key=lambda one: by_weight[one])
        return replace(
            weights,
            parts={**weights.parts, part.name: weight},
            variants={**weights.variants, part.name: best},
        )

    def _gains(
        self, weights: Weights, part: Counted, variant: Variant, tried: Sequence[float]
    ) -> dict[float, float]:
        """Return the summed NDCG@20 by weight of one part."""
        rest = replace(weights, parts={**weights.parts, part.name: 0.0})
        total = dict.fromkeys(tried, 0.0)
        for batch in self.batches:
            others = summed(batch, self.parts, replace(rest, own_last=False))
            scores = part.z(batch.history, variant, batch.item_seq.device)
            for weight in tried:
                total[weight] += self._gain(batch, others.add(scores, alpha=weight), weights)
        return total

    def _choose_network(self, weights: Weights, name: str) -> Weights:
        """Choose the weight of a network."""
        total = dict.fromkeys(WEIGHTS, 0.0)
        rest = replace(weights, networks={**weights.networks, name: 0.0}, own_last=False)
        for batch in self.batches:
            others = summed(batch, self.parts, rest)
            for weight in WEIGHTS:
                whole = others.add(batch.networks[name], alpha=weight)
                total[weight] += self._gain(batch, whole, weights)
        best = max(total, key=lambda one: total[one])
        return replace(weights, networks={**weights.networks, name: best})

    def _choose_own(self, weights: Weights) -> Weights:
        """Choose whether items of the history come last."""
        total = dict.fromkeys(self.own_choices, 0.0)
        for batch in self.batches:
            scores = summed(batch, self.parts, replace(weights, own_last=False))
            for last in self.own_choices:
                total[last] += self._gain(batch, scores, replace(weights, own_last=last))
        return replace(weights, own_last=max(total, key=lambda one: total[one]))

    @staticmethod
    def _gain(batch: Batch, scores: Tensor, weights: Weights) -> float:
        ranked = own_items_last(scores, batch.item_seq) if weights.own_last else scores
        return float(ndcg(ranked, batch.target).sum())
