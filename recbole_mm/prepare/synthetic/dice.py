"""Chance that gives the same numbers on every platform."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recbole_mm.prepare.sessions import IntArray


class Dice:
    """Uniform draws from one PCG64 stream, and what integer arithmetic makes of them.

    Parameters
    ----------
    seed
        Seed of the stream.
    """

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Draw numbers from 0 to 1 (never 1) of the given shape."""
        return self._generator.random(shape)

    def below(self, bound: int | IntArray, *shape: int) -> IntArray:
        """Draw integers from 0 to ``bound`` - 1."""
        # The product may be rounded up to the bound itself.
        return np.minimum((self.uniform(*shape) * bound).astype(np.int64), bound - 1)

    def shuffled(self, values: IntArray) -> IntArray:
        """Return ``values`` in a random order."""
        return values[np.argsort(self.uniform(len(values)), kind="stable")]

    def balanced(self, n: int, kinds: int) -> IntArray:
        """Give ``n`` things one of ``kinds`` labels each, all labels equally often."""
        return self.shuffled(np.arange(n, dtype=np.int64) % kinds)

    def pick(self, weights: IntArray) -> IntArray:
        """Draw one column per row of ``weights`` ``(r, n)`` in proportion to whole numbers."""
        cumulative = np.cumsum(weights, axis=1)
        ticket = self.below(cumulative[:, -1], len(weights))
        return (cumulative <= ticket[:, None]).sum(axis=1)

    def bell(self, *shape: int) -> NDArray[np.float64]:
        """Draw nearly normal numbers, mean 0 and variance 1: twelve uniform ones less 6."""
        total = np.full(shape, -6.0)
        for _ in range(12):
            total += self.uniform(*shape)
        return total
