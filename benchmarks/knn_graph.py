"""The graph of likeness from 4,400 to 100,000 items: exact, and approximate with faiss.

Vectors are drawn around a few hundred centres, as texts of products lie. Recall says how many of
the exact neighbours of 1,000 items the search finds.
"""

from __future__ import annotations

from typing import Any

import common

WIDTH, COUNT, SAMPLE = 384, 50, 1_000
QUICK = {"ROWS": (("exact", 500), ("exact", 1_000))}
ROWS = (
    ("exact", 4_400), ("exact", 12_000), ("exact", 23_000), ("faiss", 23_000), ("faiss", 100_000),
)  # fmt: skip


def vectors(n_items: int) -> Any:
    """Return generated vectors, with a shared mean direction as text encoders have."""
    import torch

    random = torch.Generator().manual_seed(1)
    centers = torch.randn(400, WIDTH, generator=random) + 1.0
    kind = torch.randint(400, (n_items + 1,), generator=random)
    table = centers[kind]
    table += 0.7 * torch.randn(n_items + 1, WIDTH, generator=random)
    table[0] = 0
    return table


def search(backend: str, n_items: int) -> dict[str, Any]:
    """Find the neighbours of all items."""
    import time

    import torch

    from recbole_mm.graph.nearest import nearest_items, overlap

    table = vectors(n_items)
    before = common.peak_memory_mb()
    wall, start = time.perf_counter(), time.process_time()
    found = nearest_items(table, COUNT, backend=backend)
    numbers = {
        "wall": time.perf_counter() - wall,
        "seconds": time.process_time() - start,
        "before_mb": before,
        # Every item with every item, the bare product.
        "product": 2 * WIDTH * n_items**2 / common.gemm_rate(),
        "search_mb": common.peak_memory_mb(),
    }
    rows = torch.arange(1, n_items + 1, max(1, n_items // SAMPLE))
    exact = nearest_items(table, COUNT, rows, backend="exact")
    return {**numbers, "recall": overlap(exact, found[rows.numpy()])}


def report() -> None:
    """Print the table."""
    print(f"{COUNT} neighbours per item, vectors of {WIDTH} numbers\n")
    rows = []
    for backend, n_items in ROWS:
        made = common.run_part("search", backend=backend, n_items=n_items)
        times = (made["wall"], made["seconds"], made["seconds"] / made["product"])
        cells = (*times, made["recall"], made["before_mb"])
        rows.append((f"{n_items:,}", backend, *cells, made["search_mb"]))
    header = ("items", "search", "wall s", "CPU s", "x bare product", "recall", "MiB before",
              "peak MiB")  # fmt: skip
    common.table(header, rows, keys=2)


if __name__ == "__main__":
    common.main({"search": search}, report)
