"""The processes of one run: one, or several that ``torchrun`` started.

Without ``torchrun``, and inside of `alone`, everything here says "one process" and does nothing.
torch is imported where several processes meet, not before.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from recbole_mm.errors import ProcessError

if TYPE_CHECKING:
    import torch

# What a launcher tells each process.
_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# One process may work for hours while the others wait. A process that has ended is noticed at once.
_LONGEST = timedelta(days=7)
# What to do when a process of a run has ended.
_RESUME = (
    "If an epoch was complete, --resume=<run folder> goes on after the last one, with any number "
    "of processes."
)
# Seconds that a process waits with its message until the launcher ends it; see `may_speak`.
_PATIENCE = 20.0


@dataclass(frozen=True)
class Group:
    """The processes that compute together, seen from one of them.

    Attributes
    ----------
    rank, world
        Number of this process, from 0, and of all.
    rows
        Rows of the training batch that is shared out among them; see `sharing`.
    """

    rank: int = 0
    world: int = 1
    rows: int = 0

    def own(self) -> slice:
        """Return the places of this process's rows in a batch."""
        return slice(self.rank, None, self.world)

    def own_rows(self) -> int:
        """Return how many of the batch's rows are this process's."""
        return len(range(self.rank, self.rows, self.world))


_ALONE = Group()
_group = _ALONE
# The launcher's table that all processes share, a torch.distributed.Store.
_store: Any = None
_meetings = 0


def launched(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this is one of several processes of one run."""
    told = all(environment.get(name) for name in _NEEDED)
    return told and environment["WORLD_SIZE"].isdigit() and int(environment["WORLD_SIZE"]) > 1


def leads() -> bool:
    """Return whether this process writes the files of the run and speaks for it."""
    return not launched() or os.environ["RANK"] == "0"


def quiet() -> None:
    """Keep torch, which is imported later, from warning of what is so on purpose."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def local_rank() -> int:
    """Return the number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def group() -> Group:
    """Return the processes that compute together at the moment."""
    return _group


@contextmanager
def joined(device: torch.device | None, remedy: str = _RESUME) -> Iterator[None]:
    """Let the processes that were launched compute together.

    Parameters
    ----------
    device
        What this process computes on; GPUs talk by nccl, CPUs by gloo. None where they merely wait
        for each other.
    remedy
        What the user can do when another process has ended.

    Raises
    ------
    ProcessError
        Another process has ended.
    """
    global _group
    if not launched() or _group.world > 1:
        yield
        return
    _group = _join(device)
    try:
        if not leads():
            warnings.simplefilter("ignore")
        yield
        _leave()
    except Exception as error:
        if not is_lost(error):
            raise
        raise ProcessError(
            f"another process of this run has ended, and so all do. {remedy}"
        ) from error
    finally:
        _group = _ALONE


def _join(device: torch.device | None) -> Group:
    """Meet the other processes."""
    global _store, _meetings
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    if device is None and torch.cuda.is_available():
        # An encoder takes the current GPU.
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    gpu = device if device is not None and device.type == "cuda" else None
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    told = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if _store is None:
        _store, *_ = next(iter(rendezvous("env://", timeout=_LONGEST)))
    _meetings += 1
    # A second run of these processes must not find the addresses of the first.
    table = PrefixStore(f"recbole_mm/{_meetings}", _store)
    dist.init_process_group(
        backend, store=table, rank=told[0], world_size=told[1], timeout=_LONGEST,
        device_id=gpu,
    )  # fmt: skip
    return Group(*told)


def _leave() -> None:
    """Part after a run that ended well; after an error, the end of the process does it."""
    import torch.distributed as dist

    wait()
    dist.destroy_process_group()


def is_lost(error: Exception) -> bool:
    """Return whether an error of a collective operation means that another process is gone."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, RuntimeError) and any(
        word in text for word in ("gloo", "nccl", "distbackenderror", "distnetworkerror")
    )


def wait() -> None:
    """Wait until every process is here."""
    if _group.world > 1:
        import torch.distributed as dist

        dist.barrier()


@contextmanager
def leader_first() -> Iterator[None]:
    """Let one process write files that the others then find; each works alone meanwhile."""
    first = _group.rank == 0
    if not first:
        wait()
    with alone():
        yield
    if first:
        wait()


@contextmanager
def alone() -> Iterator[None]:
    """Compute as one process for a while; the others must not be waited for inside."""
    global _group
    before, _group = _group, _ALONE
    try:
        yield
    finally:
        _group = before


@contextmanager
def sharing(rows: int) -> Iterator[Group]:
    """Say how many rows the batch has of which this process computes its own."""
    global _group
    before, _group = _group, replace(_group, rows=rows)
    try:
        yield _group
    finally:
        _group = before


def may_speak() -> bool:
    """Return whether this process is the one that says how the run ended; to be asked once.

    An error mostly comes to all processes at once. The first to ask may speak. Before they have
    met, that is the first process: the others wait until the launcher ends them, and speak if it
    does not, because the first had no error.
    """
    if not launched():
        return True
    if _store is None:
        return leads() or _not_ended_in_time()
    try:
        return int(_store.add("recbole_mm/spoken", 1)) == 1
    except RuntimeError:  # the process that kept the count is gone
        return True


def _not_ended_in_time() -> bool:
    """Wait to be ended by the launcher; return whether it did not."""
    try:
        time.sleep(_PATIENCE)
    except KeyboardInterrupt:
        return False
    return True
