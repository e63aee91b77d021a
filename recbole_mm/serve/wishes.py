"""What is asked for a session: how many items, and which ones may be among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_mm.errors import DataError
from recbole_mm.serve.catalogue import Catalogue


@dataclass(frozen=True, eq=False)
class Wish:
    """What is asked for a session.

    Attributes
    ----------
    k
        Items to recommend.
    exclude_seen
        Leave out the items of the session.
    barred
        Internal ids that are never recommended, or None.
    parts
        Also say what each part of the score adds.
    """

    k: int
    exclude_seen: bool = False
    barred: Tensor | None = None
    parts: bool = False

    @classmethod
    def of(
        cls,
        items: Catalogue,
        k: int,
        exclude_seen: bool = False,
        leave_out: Iterable[object] = (),
        keep_to: Iterable[object] | None = None,
        parts: bool = False,
    ) -> Wish:
        """Return a wish with filters by item id; ids that are not known are no error.

        Raises
        ------
        DataError
            ``k`` is below 1, or the filters leave no item.
        """
        if k < 1:
            raise DataError(f"k is {k}, expected 1 or more items to recommend.")
        barred = set(items.ids(leave_out))
        if keep_to is not None:
            barred |= set(range(1, len(items))) - set(items.ids(keep_to))
        if len(barred) >= len(items) - 1:
            raise DataError(
                "the filters leave no item to recommend: none of keep_to is known, or leave_out "
                "names them all. Give ids of the data that the model was trained on."
            )
        return cls(k, exclude_seen, torch.tensor(sorted(barred)) if barred else None, parts)
