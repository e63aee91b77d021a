"""SRIM as its released code trains it: two free tables, sums of losses, and what went wrong there.

The code is the authors' repository at its only commit; rows, candidates and evaluation are this
package's. docs/srim.md sets paper, released code and `SRIM` side by side.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from recbole_mm.graph.cooccurrence import ItemGraph
from recbole_mm.graph.pairs import top_neighbours
from recbole_mm.model import layers
from recbole_mm.model.released import FirstEpochDropout
from recbole_mm.model.srim import losses
from recbole_mm.model.srim.model import SRIM
from recbole_mm.model.srim.settings import OfficialSRIMSettings, SRIMSettings
from recbole_mm.model.srim.terms import CooccurrenceContrast, PairMaps, Step

if TYPE_CHECKING:
    from recbole_mm.data.session_dataset import SessionDataset

logger = logging.getLogger(__name__)


class ReleasedCounts(FirstEpochDropout, SRIM):
    """The graph's counts, sums of losses and dropout that the codes of SRIM and DIMO share."""

    def build_graph(self, dataset: SessionDataset) -> ItemGraph:
        """Count pairs of positions, so that repeated items weigh more."""
        return self._counted(dataset, dataset.train_sessions, "mult")

    def reduced(self, values: Tensor) -> Tensor:
        """Sum over rows or items, so that a loss grows with the batch or the catalogue."""
        return values.sum()


class OfficialSRIM(ReleasedCounts):
    """SRIM with the counts, the losses and the dropout of the released code.

    The graph is that of the training sessions; `OfficialLeakySRIM` has the released one.
    """

    Settings = OfficialSRIMSettings
    settings: OfficialSRIMSettings

    def build_term(self, name: str) -> nn.Module:
        """Return the auxiliary loss of that name."""
        if name == "align":
            return ReleasedAlignment(self.settings.embedding_size)
        if name == "joint":
            return ReleasedJointInference(self.graph, self.settings.n_neighbors)
        return ReleasedContrast(self.settings, self.graph)


class OfficialLeakySRIM(OfficialSRIM):
    """`OfficialSRIM` on the released graph: validation and test sessions with their targets."""

    leaky = True

    def build_graph(self, dataset: SessionDataset) -> ItemGraph:
        """Count the sessions of all parts, and say so."""
        logger.warning(
            "preset official_leaky: the graph holds validation and test sessions with their "
            "targets. The scores are NOT those of an honest run and are marked leaky."
        )
        return self._counted(dataset, dataset.leaky_sessions(targets=True), "mult")


class ReleasedAlignment(nn.Module):
    """The released alignment, whose call hands its four vectors over in another order."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.maps = PairMaps("1234578", size, bias=True)

    def forward(self, step: Step) -> Tensor:
        """Return the loss ``(B,)``."""
        (p_id, q_id), (p_content, q_content) = step.encoded["id"], step.encoded["content"]
        # The formula means them as q_id, p_id, q_content, p_content.
        s1, s2, s3, s4 = q_id, q_content, p_id, p_content
        return align_released(
            self.maps.cosine("1", s1, "2", s2),
            self.maps.cosine("3", s1, "4", s3),
            self.maps.cosine("4", s3, "5", s4),
            self.maps.cosine("7", s3, "8", s1),
        )


def align_released(
    inside_id: Tensor, across_id: Tensor, inside_content: Tensor, across_content: Tensor
) -> Tensor:
    """Alignment of the released code, a function of its four cosines ``b, a1, c, a2`` ``(B,)``.

    ``log(1+e^a1+e^b) - log(1+e^b) + log(1+e^a2+e^c) - log(1+e^c) + log(1+e^b+e^c) - log(1+e^a1)``.
    """
    zero = torch.zeros_like(inside_id)
    both = torch.logsumexp(torch.stack([zero, inside_id, inside_content]), dim=0)
    return (
        F.softplus(across_id - F.softplus(inside_id))
        + F.softplus(across_content - F.softplus(inside_content))
        + both
        - F.softplus(across_id)
    )


class ReleasedJointInference(nn.Module):
    """The negative of eq. 12-13, with the item before the target and flags by neighbour lists.

    Sessions are taken after attention. "Before" is in the order of ids; the released data number
    items by first appearance, here ids follow the sorted tokens.

    Parameters
    ----------
    graph
        The co-occurrence graph.
    n_neighbors
        Length of the lists.
    """

    neighbours: Tensor

    def __init__(self, graph: ItemGraph, n_neighbors: int) -> None:
        super().__init__()
        ids, _ = top_neighbours(graph.counts, n_neighbors)
        self.register_buffer("neighbours", torch.from_numpy(ids), persistent=False)

    def flag(self, step: Step) -> Tensor:
        """Return where the target stands in the list of any session item, bool ``(B,)``."""
        listed = self.neighbours[step.item_seq] == step.target.view(-1, 1, 1)
        return listed.flatten(1).any(dim=1)

    def forward(self, step: Step) -> Tensor:
        """Return the loss ``(B,)``."""
        before = step.target - 1
        like = {
            branch: layers.cosine(session.after, layers.gather_rows(step.tables[branch], before))
            for branch, session in step.encoded.items()
        }
        return -losses.joint(like["id"], like["content"], self.flag(step))


class ReleasedContrast(CooccurrenceContrast):
    """The co-occurrence contrast of all items with fixed strangers, logarithm to base 10."""

    fixed: Tensor

    def __init__(self, settings: SRIMSettings, graph: ItemGraph) -> None:
        super().__init__(settings, graph)
        strangers = first_strangers(graph.counts, self.n_neighbors)
        self.register_buffer("fixed", torch.from_numpy(strangers), persistent=False)

    def anchors(self, step: Step) -> Tensor:
        """Return all items, those without partners too."""
        return torch.arange(1, len(self.neighbours), device=step.target.device)

    def strangers(self, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same ids ``(M, l)`` in every step, and which of them count."""
        strangers = self.fixed[anchors]
        return strangers, strangers != 0

    def forward(self, step: Step) -> Tensor:
        """Return the loss of each item ``(N - 1,)`` in the ID branch."""
        return super().forward(step) / math.log(10.0)


def first_strangers(counts: sp.csr_matrix, n_strangers: int) -> NDArray[np.int64]:
    """Return for each item the lowest ids it never met, ``(N, n)`` int64, filled up with 0.

    These are the "least co-occurring" items when ties are broken by id. With a few neighbours per
    item the same handful of ids serves nearly everybody, which makes them poor negatives.
    """
    n_items = counts.shape[0]
    met = (counts != 0).astype(np.float32) + sp.identity(n_items, dtype=np.float32, format="csr")
    met = met.tocsr()[:, 1:]
    met.sort_indices()
    rows = np.repeat(np.arange(n_items, dtype=np.int64), np.diff(met.indptr))
    # Of a row's sorted partners, the t-th has (column - t) strangers in front of it.
    gaps = met.indices.astype(np.int64) - (np.arange(met.nnz) - met.indptr[rows])
    wanted = np.arange(n_items, dtype=np.int64)[:, None] * n_items + np.arange(n_strangers)
    passed = np.searchsorted(rows * n_items + gaps, wanted, side="right") - met.indptr[:-1, None]
    ids: NDArray[np.int64] = np.arange(n_strangers, dtype=np.int64) + passed + 1
    ids[ids >= n_items] = 0
    ids[0] = 0
    return ids
