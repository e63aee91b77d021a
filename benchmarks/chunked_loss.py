"""Softmax cross-entropy over all items: by chunks of rows, and plain as autograd does it.

2,048 rows, vectors of 64 numbers, forward and backward, the head alone. Looked at first: loss and
gradients of both agree. Then an epoch's worth of nothing but the limit: the three matrix products.
"""

from __future__ import annotations

from typing import Any

import common

ROWS, WIDTH = 2048, 64
ITEMS = (5_000, 20_000, 100_000)
QUICK = {"ROWS": 64, "ITEMS": (500, 1_000), "BEYOND": 2_000}
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
    from recbole_mm.model.chunked import mean_softmax_ce

    given = inputs(n_items)
    loss = plain if kind == "plain" else mean_softmax_ce
    before = common.peak_memory_mb()
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
        cells = [n_items, chunk["seconds"], chunk["seconds"] / chunk["limit"], chunk["extra_mb"]]
        if whole is None:
            rows.append((*cells, "", "", "", ""))
            continue
        faster, smaller = whole["seconds"] / chunk["seconds"], whole["extra_mb"] / chunk["extra_mb"]
        rows.append((*cells, whole["seconds"], whole["extra_mb"], faster, smaller))
    header = (
        "items",
        "chunks s",
        "times the limit",
        "chunks MiB",
        "plain s",
        "plain MiB",
        "times faster",
        "times smaller",
    )
    common.table(header, rows)


if __name__ == "__main__":
    common.main({"measure": measure, "agree": agree}, report)
