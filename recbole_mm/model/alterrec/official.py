"""AlterRec as the released code does it, commit adf7dfc, where that is not `AlterRec`.

Its faults are not repeated; docs/alterrec.md lists both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_mm.model.alterrec.model import AlterRec
from recbole_mm.model.alterrec.negatives import NegativeSampler, top_items
from recbole_mm.model.alterrec.settings import OfficialAlterRecSettings


class RowwiseSampler(NegativeSampler):
    """Draws places in the window for each row by itself."""

    def _choose(self, window: Tensor) -> Tensor:
        """Draw ``n_hard`` of the ``K`` items ``(B, K)`` of each row: those of the least keys."""
        keys = torch.rand(window.shape, device=window.device)
        return window.gather(1, keys.topk(self.n_hard, largest=False, sorted=False).indices)


class OfficialAlterRec(AlterRec):
    """Negatives drawn row by row, and positives borrowed from the ID branch by both branches."""

    Settings = OfficialAlterRecSettings
    settings: OfficialAlterRecSettings
    sampler_class = RowwiseSampler

    @torch.no_grad()
    def _borrow(self, item_seq: Tensor, lengths: Tensor, teacher: Tensor) -> Tensor:
        """Return the ID branch's best items ``(B, p)``, in its own turn as well.

        They are ranked without dropout, as by the copy of the model that the released code asks.
        """
        if self.plan.branch == "text":
            return super()._borrow(item_seq, lengths, teacher)
        network = self.network("id")
        training = network.training
        network.eval()
        table = network.table()
        own = network.query(table, item_seq, lengths) @ table.T
        network.train(training)
        return top_items(own, self.n_borrowed)
