"""Which branch of AlterRec is trained in an epoch, and against which negatives.

A pure function of the epoch: nothing has to be stored to go on in the middle of a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from recbole_mm.model.alterrec.settings import BRANCHES, BranchName, Negatives, SchedulePolicy


class Plan(NamedTuple):
    """What is done in one epoch.

    Attributes
    ----------
    branch
        The branch that is trained, ``"id"`` or ``"text"``.
    negatives
        ``"uniform"``, ``"hard"`` (from the other branch) or ``"full"`` (all items).
    """

    branch: BranchName
    negatives: Negatives


@dataclass(frozen=True)
class Schedule:
    """The order in which the branches take turns.

    Attributes
    ----------
    policy
        ``"parity"``: blocks of ``block`` epochs, even ones train the ID branch; the first block and
        those that begin within the first ``warmup`` epochs use uniform negatives (released code).
        ``"algorithm1"``: ``warmup / 2`` uniform epochs per branch, then blocks (paper).
    warmup
        Uniform epochs in all, of both branches together.
    block
        Epochs before the other branch takes over.
    branches
        The branches that are trained; a single one gets all epochs.
    negatives
        ``"hard"``, or ``"uniform"`` or ``"full"`` in all epochs.
    """

    policy: SchedulePolicy = "parity"
    warmup: int = 4
    block: int = 2
    branches: tuple[BranchName, ...] = BRANCHES
    negatives: Negatives = "hard"

    def plan(self, epoch: int) -> Plan:
        """Return what is done in an epoch, counted from 0."""
        if len(self.branches) == 1:
            return Plan(self.branches[0], self.negatives)
        turn = _algorithm1 if self.policy == "algorithm1" else _parity
        branch, warm = turn(epoch, self.warmup, self.block)
        return Plan(branch, "uniform" if warm and self.negatives == "hard" else self.negatives)


def _parity(epoch: int, warmup: int, block: int) -> tuple[BranchName, bool]:
    """Return the branch and whether the epoch's block is one of the uniform ones."""
    number = epoch // block
    return ("text" if number % 2 else "id"), number == 0 or number * block < warmup


def _algorithm1(epoch: int, warmup: int, block: int) -> tuple[BranchName, bool]:
    """Return the branch and whether the epoch belongs to the warm-up (the paper's Algorithm 1)."""
    if epoch < warmup:
        return ("id" if epoch < warmup // 2 else "text"), True
    return ("id" if (epoch - warmup) % (2 * block) < block else "text"), False
