"""Comparison folders made of records, without any run."""

from __future__ import annotations

import json

import numpy as np

from recbole_mm.evaluation.ranking import metrics_from_ranks

N = 200


def record(model="SASRec", seed=1, ranks=None, **changes):
    rng = np.random.default_rng(seed)
    ranks = rng.integers(1, 100, N) if ranks is None else ranks
    test = metrics_from_ranks(ranks, [10, 20], ["Hit", "NDCG"])
    found = {
        "status": "ok",
        "model": model,
        "preset": "sound",
        "dataset": "shop",
        "synthetic": False,
        "leaky": False,
        "seed": seed,
        "device": "cpu",
        "fingerprint": {"data": "d" * 64, "features": {}},
        "test": test,
        "valid": test,
        "slices": {"target": {"seen": {"n": N, **test}, "cold": {"n": 0}}},
        "epochs_run": 8,
        "best_epoch": seed,
        "seconds": {"train": 2.0 * seed, "eval": 1.0, "total": 4.0},
        "parameters": 12345,
        "peak_memory_mb": 100.0 * seed,
        "counts": {"items": 99, "test_cold_targets": 3},
        "versions": {"recbole": "1.2.1", "torch": "2.13"},
        "config": {"valid_metric": "NDCG@20", "split_by": "session_time"},
        "ranks": {"session": [f"s{i}" for i in range(N)], "rank": [int(r) for r in ranks]},
    }
    return {**found, **changes}


def write(folder, rows, baseline=None):
    """Write a comparison folder: rows maps a label to its records, an error text, or None."""
    plan = {"baseline": baseline, "rows": []}
    for label, records in rows.items():
        runs = []
        for seed, found in enumerate(records, start=1):
            name = f"{label}-s{seed}"
            (folder / "runs" / name).mkdir(parents=True)
            (folder / "logs").mkdir(exist_ok=True)
            if isinstance(found, dict):
                (folder / "runs" / name / "result.json").write_text(json.dumps(found))
            elif found:
                (folder / "logs" / f"{name}.log").write_text(f"$ recbole-mm run\n{found}\n")
            command = ["recbole-mm", "run", f"--model={label}", f"--seed={seed}", "--topk=[10, 20]"]
            runs.append(
                {
                    "seed": seed,
                    "folder": f"runs/{name}",
                    "log": f"logs/{name}.log",
                    "command": command,
                }
            )
        plan["rows"].append({"label": label, "model": label, "runs": runs})
    (folder / "plan.json").write_text(json.dumps(plan))
