"""Evaluation over all items: each target ranked once, against RecBole's collector and evaluator.

Both sides evaluate one model on the same rows. Their metrics are compared first and must agree.
Times are taken in turns within one process; peak memory comes from a process of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import common

MODELS: dict[str, dict[str, Any]] = {
    "SASRec": {"hidden_size": 64, "inner_size": 256, "n_layers": 2, "n_heads": 2},
    "SRIM": {},
}
ITEMS, ROWS, LENGTH = 20_000, 4_096, 4.8
LENGTHS, BATCHES, TURNS = (20, 50), (4_096, 256), 3
QUICK = {"ITEMS": 300, "ROWS": 64, "LENGTHS": (20,), "BATCHES": (64,), "TURNS": 1}
Side = Callable[[], dict[str, float]]


@contextmanager
def sides(model: str, length: int, batch: int) -> Iterator[tuple[Any, dict[str, Side]]]:
    """Give a model with its rows, and both ways to evaluate it."""
    import torch
    from recbole.trainer import Trainer

    from recbole_mm.trainer.base import trainer_class

    torch.set_num_threads(1)
    session, item = common.zipf_sessions(ITEMS, ROWS * 10, LENGTH)
    with common.temporary_folder() as folder:
        common.write_dataset(folder, "shop", session, item, width=64 if model == "SRIM" else 0)
        keys = {"eval_batch_size": batch, "MAX_ITEM_LIST_LENGTH": length, "split_ratio": [8, 1, 1]}
        made = common.prepare(folder, model, "shop", **keys, **MODELS[model])
        classes = {"RecBole": Trainer, "ours": trainer_class(made.spec, made.config.model_class)}
        trainers = {name: one(made.config, made.model) for name, one in classes.items()}

        def once(name: str) -> dict[str, float]:
            made.model.train()  # Drops what a model keeps of its items: to make it is work, too.
            return dict(trainers[name].evaluate(made.valid, load_best_model=False))

        yield made, {name: lambda name=name: once(name) for name in trainers}


def speed(model: str, length: int, batch: int) -> dict[str, Any]:
    """Compare the metrics, then time both sides and the bare product of scores in turns."""
    import torch

    with sides(model, length, batch) as (made, both):
        found = {name: side() for name, side in both.items()}
        apart = max(abs(found["ours"][key] - value) for key, value in found["RecBole"].items())
        if found["ours"].keys() != found["RecBole"].keys() or apart > 5e-5:
            raise SystemExit(f"{model}, L={length}: metrics differ by {apart}; nothing to compare")
        wide = 64 if model == "SASRec" else made.model.current_tables()["candidates"].shape[1]
        query, items = torch.randn(256, wide), torch.randn(made.valid.dataset.item_num, wide)
        jobs: dict[str, Callable[[], Any]] = {**both, "product": lambda: query @ items.T}
        times: dict[str, list[float]] = {name: [] for name in jobs}
        rows = made.valid.dataset.inter_feat
        for _ in range(TURNS):
            for name, job in jobs.items():
                times[name].append(common.seconds(job))
        passed = {name: statistics.median(values) for name, values in times.items()}
        passed["product"] *= len(rows) / len(query)
        padding = 1 - float(rows["item_length"].float().mean()) / length
        return {"seconds": passed, "rows": len(rows), "apart": apart, "padding": padding}


def memory(model: str, length: int, batch: int, side: str) -> dict[str, Any]:
    """Evaluate once by one side, for its peak memory."""
    with sides(model, length, batch) as (_, both):
        before = common.peak_memory_mb()
        both[side]()
        return {"before": before}


def report() -> None:
    """Print one table per model."""
    print(f"{ITEMS:,} items, {ROWS:,} rows, one thread, median of {TURNS} turns\n")
    header = ("L", "padding", "eval_batch_size", "RecBole sessions/s", "ours sessions/s",
              "x RecBole", "bare product x RecBole", "metrics apart",
              "RecBole MiB more", "ours MiB more")  # fmt: skip
    for model in MODELS:
        table = []
        for length, batch in ((length, batch) for length in LENGTHS for batch in BATCHES):
            keys = {"model": model, "length": length, "batch": batch}
            made = common.run_part("speed", **keys)
            seconds, rows = made["seconds"], made["rows"]
            peaks = [common.run_part("memory", **keys, side=one) for one in ("RecBole", "ours")]
            table.append((
                length, f"{made['padding']:.0%}", batch,
                rows / seconds["RecBole"], rows / seconds["ours"],
                seconds["RecBole"] / seconds["ours"], seconds["RecBole"] / seconds["product"],
                made["apart"], *(one["peak_mb"] - one["before"] for one in peaks),
            ))  # fmt: skip
        common.table(header, table, model, keys=3)


if __name__ == "__main__":
    common.main({"speed": speed, "memory": memory}, report)
