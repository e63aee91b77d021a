"""What a model counts or fits when it is built, kept so that a pack can give it back.

A model that reads `train_sessions` in its constructor passes the work through `fitted`. In a run
the work is done and its result noted; a packed model gets the noted result and never sees a
session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import scipy.sparse as sp

T = TypeVar("T")


class Fitted(Protocol):
    """The signature of `Fits.fitted` for what has no data set at hand."""

    def __call__(self, name: str, compute: Callable[[], T], /) -> T:
        """Return what `compute` makes, or what was kept under the name."""


def at_once(name: str, compute: Callable[[], T], /) -> T:
    """Compute, and keep nothing: what `Fits.fitted` is where there is no data set."""
    return compute()


class Fits:
    """A data set on which models count and fit; `SessionDataset` is one.

    Attributes
    ----------
    fits
        What was counted or fitted, by name: arrays, scipy matrices, tensors, plain values and
        dictionaries or lists of them.
    """

    fits: dict[str, Any]

    def fitted(
        self,
        name: str,
        compute: Callable[[], T],
        grow: Callable[[T], T] | None = None,
    ) -> T:
        """Return what `compute` makes of training data, and keep it under a name.

        Parameters
        ----------
        name
            A name of its own among those that the model asks for.
        compute
            Does the work; not called where the data set comes from a pack.
        grow
            How a kept result is made to fit a catalogue with new items, which stand behind the
            known ones. Left out, it is taken as it is: it has no side as long as the catalogue.
        """
        found = compute()
        vars(self).setdefault("fits", {})[name] = found
        return found


def enlarged(matrix: sp.csr_matrix, n_items: int) -> sp.csr_matrix:
    """Return a matrix ``(N, N)`` with empty rows and columns up to ``n_items`` behind."""
    larger = matrix.copy()
    larger.resize(n_items, n_items)
    return larger
