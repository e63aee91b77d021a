"""One training step of SRIM at the size of Amazon Cellphones: sparse, and dense as released.

The dense forms compute the same propagation: ``densified`` makes a dense ``N x N`` matrix of the
sparse one in every layer of both branches, as the released code does; ``one dense`` makes it once
(propagation alone). The rest of the step (attention, losses, optimiser) is this package's in all
rows. Losses without dropout must agree with that of the sparse form. ``product`` is the time of
three bare matrix products, scores and their gradients.
"""

from __future__ import annotations

from typing import Any

import common

N_ITEMS, N_SESSIONS, MEAN_LENGTH = 9_091, 40_344, 3.05
N_LAYERS, WIDTH = 4, 100
BATCHES = (50, 512)
QUICK = {"N_ITEMS": 200, "N_SESSIONS": 400, "BATCHES": (50,), "WIDTH": 8, "N_LAYERS": 2}
FORMS = ("sparse", "densified", "one dense")
STEPS = ("sparse", "densified")
# The same step without propagation: what both share.
SHARED = "no propagation"


def dense_propagate(kept: bool) -> Any:
    """Return a stand-in for ``residual_propagate`` that multiplies by dense matrices."""
    import torch

    cache: list[Any] = []

    def normalised(adjacency: Any) -> Any:
        counts = adjacency.counts
        rows = torch.arange(len(adjacency.inverse_degree)).repeat_interleave(
            counts.crow_indices().diff()
        )
        values = counts.values() * adjacency.inverse_degree[rows, 0]
        parts = (counts.crow_indices(), counts.col_indices(), values)
        return torch.sparse_csr_tensor(*parts, size=counts.shape, check_invariants=False)

    def propagate(
        table: Any, adjacency: Any, n_layers: int, keep: float = 1.0, take: float = 1.0
    ) -> Any:
        if not cache:
            matrix = normalised(adjacency)
            cache.append(matrix.to_dense() if kept else matrix)
        for _ in range(n_layers):
            dense = cache[0] if kept else cache[0].to_dense()
            table = keep * table + take * (dense @ table)
        return table

    return propagate


def step(form: str, preset: str, batch: int, repeats: int) -> dict[str, Any]:
    """Time one step (forward, backward, Adam) and, for the sparse form, look inside it."""
    import torch

    from recbole_mm.model.srim import gcn
    from recbole_mm.model.srim import model as srim

    if form == "densified":
        gcn.residual_propagate = dense_propagate(kept=False)
        # The sparse form propagates frozen features once, at the start; the released form
        # propagates both branches in every step.
        srim.residual_propagate = lambda table, *_: table
    with common.temporary_folder() as folder:
        sessions = common.zipf_sessions(N_ITEMS, N_SESSIONS, MEAN_LENGTH)
        common.write_dataset(folder, "cells", *sessions, width=384 if preset == "sound" else 0)
        prepared = common.prepare(
            folder,
            "SRIM",
            "cells",
            preset=preset,
            n_layers=0 if form == SHARED else N_LAYERS,
            embedding_size=WIDTH,
            train_batch_size=batch,
        )
        model, rows = prepared.model.train(), next(iter(prepared.train))
        if form == "densified":
            model.gcn.update(
                {branch: gcn.ResidualGCN(N_LAYERS, WIDTH) for branch in model.branches}
            )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

        def once() -> float:
            optimizer.zero_grad()
            loss = torch.stack(model.calculate_loss(rows)).sum()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        numbers = {"loss": common.first_loss(model, rows), "nnz": model.graph.counts.nnz}
        numbers["seconds"] = common.median_seconds(once, repeats, warm=1)
        numbers["n_items"] = model.n_items
        # Only the sparse form is looked into: the dense ones make N x N tensors by construction.
        if form == "sparse":
            wide = 2 * WIDTH  # both branches side by side
            numbers |= {
                "product": common.product_seconds(batch, wide, model.n_items),
                **_limits(model, batch, preset),
                **_largest(once),
                **_propagations(prepared),
            }
    return numbers


def propagation(form: str) -> dict[str, Any]:
    """Time the propagation of one branch alone, forward and backward."""
    import torch

    from recbole_mm.graph.cooccurrence import ItemGraph
    from recbole_mm.graph.propagation import residual_propagate

    run = residual_propagate if form == "sparse" else dense_propagate(form == "one dense")
    adjacency = ItemGraph(_sessions(), N_ITEMS + 1, "mult").adjacency()
    table = torch.rand(N_ITEMS + 1, WIDTH, requires_grad=True)
    repeats = 11 if form == "sparse" else 3
    time = common.median_seconds(
        lambda: run(table, adjacency, N_LAYERS).sum().backward(), repeats, warm=1
    )
    return {"seconds": time, "nnz": len(adjacency.counts.values())}


def _sessions() -> Any:
    """Return the generated sessions as arrays."""
    import numpy as np

    from recbole_mm.data.sessions import group_sessions

    session, item = common.zipf_sessions(N_ITEMS, N_SESSIONS, MEAN_LENGTH)
    return group_sessions(session, item + 1, np.arange(len(item)))


def _limits(model: Any, batch: int, preset: str) -> dict[str, float]:
    """Return the floating-point operations and bytes that a step cannot do without.

    Per propagated branch, layer and direction: ``2 nnz d`` operations and one gathered row of ``d``
    floats per stored pair. Scores: ``2 B N D`` operations, three times (forward and two gradients).
    Adam: 28 bytes per parameter. The auxiliary losses are left out, so the limit is generous.
    """
    nnz, branches = model.graph.counts.nnz, len(model.gcn)
    sparse = 2 * branches * N_LAYERS
    scores = 6 * batch * model.n_items * 2 * WIDTH
    parameters = sum(weight.numel() for weight in model.parameters())
    moved = sparse * (nnz * (WIDTH * 4 + 12) + 2 * model.n_items * WIDTH * 4)
    moved += 6 * 4 * batch * model.n_items + 28 * parameters
    flops = float(sparse * 2 * nnz * WIDTH + scores)
    limit = max(flops / common.gemm_rate(), moved / common.copy_rate())
    return {"flops": flops, "bytes": float(moved), "limit": limit}


def _largest(once: Any) -> dict[str, Any]:
    """Return the largest dense tensor that a step makes."""
    from recbole_mm.testing.training import LargestTensor

    with LargestTensor() as largest:
        once()
    return {"largest": largest.numel, "largest_what": largest.what}


def _propagations(prepared: Any) -> dict[str, int]:
    """Count batches and propagations of one evaluation."""
    import torch

    model, calls = prepared.model.eval(), [0]
    original = model.item_tables

    def counted(*args: Any) -> Any:
        calls[0] += 1
        return original(*args)

    model.item_tables = counted
    batches = 0
    with torch.no_grad():
        for rows, *_ in prepared.valid:
            model.full_sort_predict(rows)
            batches += 1
    return {"eval_batches": batches, "eval_propagations": calls[0]}


def report() -> None:
    """Print the tables."""
    print(f"N = {N_ITEMS:,} items, {N_SESSIONS:,} sessions, d = {WIDTH}, {N_LAYERS} layers\n")
    alone = {form: common.run_part("propagation", form=form) for form in FORMS}
    rows = [
        (form, numbers["seconds"], numbers["seconds"] / alone["sparse"]["seconds"],
         numbers["peak_mb"])
        for form, numbers in alone.items()
    ]  # fmt: skip
    title = "propagation of one branch, forward and backward"
    common.table(("form", "seconds", "x sparse", "peak MiB"), rows, title)
    for batch in BATCHES:
        _report_steps(batch)


def _report_steps(batch: int) -> None:
    """Print one batch size: both presets in all forms, each against its own sparse form."""
    rows, looks = [], []
    for preset in ("sound", "official"):
        made = {
            form: common.run_part(
                "step",
                form=form,
                preset=preset,
                batch=batch,
                repeats=2 if form == "densified" else 9,
            )
            for form in (*STEPS, SHARED)
        }
        same = {form: made[form]["loss"] for form in STEPS}
        common.agree(f"SRIM {preset}, batch {batch}", same)
        base, shared = made["sparse"]["seconds"], made[SHARED]["seconds"]
        rows += [(f"{preset}, {form}", *_columns(x, base, shared)) for form, x in made.items()]
        looks.append(_look(preset, made["sparse"]))
    title = f"training step, batch {batch}, {made['sparse']['nnz']:,} stored pairs"
    header = ("preset and form", "CPU seconds", "x sparse", "propagation alone, x sparse",
              "peak MiB", "loss")  # fmt: skip
    common.table(header, rows, title)
    header = ("sparse form", "GFLOP/s", "limit s", "x limit", "x product", "largest tensor",
              "N x N", "propagations in batches of evaluation")  # fmt: skip
    common.table(header, looks, f"the sparse form, batch {batch}")


def _look(preset: str, x: dict[str, Any]) -> tuple[Any, ...]:
    """Return what the sparse form reaches of the limit, and its largest tensor."""
    calls = f"{x['eval_propagations']} in {x['eval_batches']}"
    rate, times = x["flops"] / x["seconds"] / 1e9, x["seconds"] / x["limit"]
    bare = x["seconds"] / x["product"]
    return preset, rate, x["limit"], times, bare, x["largest"], x["n_items"] ** 2, calls


def _columns(
    numbers: dict[str, Any], base: float, shared: float
) -> tuple[float, float, float, float, float]:
    """Return the cells of a row; what all forms share is taken off for the propagation's ratio."""
    time = numbers["seconds"]
    alone = (time - shared) / (base - shared)
    return time, time / base, alone, numbers["peak_mb"], numbers["loss"]


if __name__ == "__main__":
    common.main({"step": step, "propagation": propagation}, report)
