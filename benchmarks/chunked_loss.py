"""Softmax cross-entropy over all items: by chunks of rows, plain as autograd does it, of a sample.

2,048 rows, vectors of 64 numbers, forward and backward, the head alone. Looked at first: loss and
gradients of chunks and plain agree. The limit is the three matrix products. A sample of 2,048 items
is another loss, right on average: its own columns. MiB are the growth of the peak of a process
that does nothing else.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import common

ROWS, WIDTH = 2048, 64
ITEMS = (5_000, 20_000, 100_000)
DRAWN = 2048
QUICK = {"ROWS": 64, "ITEMS": (500, 1_000), "DRAWN": 100, "BEYOND": 2_000}
BEYOND = 1_000_000  # only by chunks


def inputs(n_items: int) -> tuple[Any, Any, Any]:
    """Draw queries, items and targets."""
    import torch

    torch.manual_seed(0)
    query = torch.randn(ROWS, WIDTH, requires_grad=True)
    items = (0.1 * torch.randn(n_items, WIDTH)).requires_grad_()
    return query, items, torch.randint(1, n_items, (ROWS,))


def plain(query: Any, items: Any, target: Any) -> Any:
    """Return the loss as autograd computes it."""
    import torch.nn.functional as F

    return F.cross_entropy((query @ items.T)[:, 1:], target - 1)


def step(loss: Any, query: Any, items: Any, target: Any) -> tuple[Any, ...]:
    """Return the loss and its gradients."""
    import torch

    found = loss(query, items, target)
    return (found.detach(), *torch.autograd.grad(found, [query, items]))


def measure(kind: str, n_items: int) -> dict[str, Any]:
    """Time one form."""
    import numpy as np

    from recbole_mm.model.chunked import mean_softmax_ce
    from recbole_mm.model.sampled import ItemSampler, sampling

    given = inputs(n_items)
    loss = plain if kind == "plain" else mean_softmax_ce
    counts, n = np.ones(n_items, dtype=np.int64), min(DRAWN, n_items - 1)
    drawn = ItemSampler(counts, n, 0.75) if kind == "drawn" else None
    before = common.peak_memory_mb()
    with sampling(drawn) if drawn else nullcontext():
        seconds = common.median_seconds(lambda: step(loss, *given), 1 if n_items == BEYOND else 3)
    # Three products of ROWS x WIDTH x n_items: scores, and the gradients of both sides.
    flops = 3 * 2 * ROWS * WIDTH * n_items
    limit = flops / common.gemm_rate()
    return {"seconds": seconds, "extra_mb": common.peak_memory_mb() - before, "limit": limit}


def agree(n_items: int) -> dict[str, Any]:
    """Return the largest differences of loss and gradients, over the largest gradient."""
    from recbole_mm.model.chunked import mean_softmax_ce

    given = inputs(n_items)
    left, right = step(plain, *given), step(mean_softmax_ce, *given)
    return {
        "difference": max(
            float((a - b).abs().max() / a.abs().max()) for a, b in zip(left, right, strict=True)
        )
    }


class _Catalogue:
    """What RecBole's SASRec asks of a data set."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def num(self, field: str) -> int:
        """Return the number of items."""
        return self.n_items


def sasrec(n_items: int) -> dict[str, Any]:
    """Train RecBole's SASRec for one step with its default batch, and score one chunk of rows."""
    import torch
    from recbole.data.interaction import Interaction
    from recbole.model.sequential_recommender import SASRec

    from recbole_mm.config import MMConfig
    from recbole_mm.evaluation.chunks import rows_at_once
    from recbole_mm.model.deferred import loss_over_items

    config = MMConfig("SASRec", "scale", (), {"use_gpu": False})
    model = SASRec(config, _Catalogue(n_items)).train()
    torch.autograd.set_detect_anomaly(False)
    width, rows = config["MAX_ITEM_LIST_LENGTH"], config["train_batch_size"]
    columns = {"item_id_list": torch.randint(1, n_items, (rows, width)),
               "item_length": torch.full((rows,), width),
               "item_id": torch.randint(1, n_items, (rows,))}  # fmt: skip
    batch = Interaction(columns)
    optimizer = torch.optim.Adam(model.parameters())

    def train() -> None:
        optimizer.zero_grad()
        loss_over_items(model, model.calculate_loss, n_items, None)(batch).backward()
        optimizer.step()

    step = common.seconds(train)
    peak = common.peak_memory_mb()
    optimizer.zero_grad(set_to_none=True)
    model.eval()
    chunk = batch[: rows_at_once(n_items, torch.device("cpu"), config["eval_batch_size"])]
    with torch.no_grad():
        scored = common.seconds(lambda: model.full_sort_predict(chunk))
    return {"step": step, "train_mb": peak, "chunk": len(chunk), "score": scored}


def report() -> None:
    """Print the table."""
    print(__doc__)
    off = {n: common.run_part("agree", n_items=n)["difference"] for n in ITEMS}
    assert max(off.values()) < 1e-4, f"other losses or gradients: {off}"
    print(f"largest relative difference of loss and gradients: {max(off.values()):.1e}\n")
    rows = []
    for n_items in (*ITEMS, BEYOND):
        chunk = common.run_part("measure", kind="chunks", n_items=n_items)
        whole = (
            None if n_items == BEYOND else common.run_part("measure", kind="plain", n_items=n_items)
        )
        some = common.run_part("measure", kind="drawn", n_items=n_items)
        cells = [n_items, some["seconds"], some["extra_mb"]]
        cells += [chunk["seconds"], chunk["seconds"] / chunk["limit"], chunk["extra_mb"]]
        if whole is None:
            rows.append((*cells, "", "", "", ""))
            continue
        faster, smaller = whole["seconds"] / chunk["seconds"], whole["extra_mb"] / chunk["extra_mb"]
        rows.append((*cells, whole["seconds"], whole["extra_mb"], faster, smaller))
    header = (
        "items",
        "sample s",
        "sample MiB",
        "chunks s",
        "times the limit",
        "chunks MiB",
        "plain s",
        "plain MiB",
        "times faster",
        "times smaller",
    )
    common.table(header, rows, "The head alone")
    made = common.run_part("sasrec", n_items=BEYOND)
    cells = (BEYOND, *(made[name] for name in ("step", "train_mb", "chunk", "score", "peak_mb")))
    header = ("items", "step s", "peak MiB", "rows scored", "s", "peak MiB of all")
    title = "RecBole's SASRec, one step of its default batch, then one chunk of an evaluation"
    common.table(header, [cells], title)


if __name__ == "__main__":
    common.main({"measure": measure, "agree": agree, "sasrec": sasrec}, report)
