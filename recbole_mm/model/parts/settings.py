"""Settings of `Blend`; docs/score_parts.md explains them."""

from __future__ import annotations

from dataclasses import dataclass

from recbole_mm.model.settings import ModelSettings, option


@dataclass(frozen=True)
class BlendSettings(ModelSettings):
    """Settings of `Blend`."""

    runs: tuple[str, ...] = option((), "Run folders whose networks are summed, two or more.")
