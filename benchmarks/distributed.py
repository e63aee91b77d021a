"""An epoch of SASRec and of SRIM in one process, and in two that share out the same batches.

Losses of both epochs are compared first. Processes talk by gloo on one machine; what they exchange
per step is every gradient, so that the ratio gets worse with items and better with rows per step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common

NAME, N_ITEMS, N_SESSIONS, BATCH = "shared", 2_000, 2_000, 512
QUICK = {"N_ITEMS": 100, "N_SESSIONS": 100, "BATCH": 32}
KEYS: dict[str, dict[str, Any]] = {
    "SASRec": {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0},
    "SRIM": {"emb_dropout": 0.0, "att_dropout": 0.0},
}


def data(folder: str) -> dict[str, Any]:
    """Write sessions and text vectors."""
    session, item = common.zipf_sessions(N_ITEMS, N_SESSIONS, 6.0)
    common.write_dataset(Path(folder), NAME, session, item, width=64)
    return {}


def train(folder: str, model: str) -> dict[str, Any]:
    """Train two epochs; the second is timed, in this process and by the clock."""
    os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    import torch

    from recbole_mm import processes
    from recbole_mm.trainer.base import trainer_class

    torch.set_num_threads(1)
    with processes.joined(torch.device("cpu")):
        made = common.prepare(
            Path(folder),
            model,
            NAME,
            train_batch_size=BATCH,
            MAX_ITEM_LIST_LENGTH=20,
            epochs=2,
            **KEYS[model],
        )
        trainer = trainer_class(made.spec, type(made.model))(made.config, made.model)
        trainer._begin(made.train)
        losses = [trainer._train(made.train, 0, False)]
        start, clock = time.process_time(), time.perf_counter()
        losses.append(trainer._train(made.train, 1, False))
        used = {"cpu": time.process_time() - start, "wall": time.perf_counter() - clock}
    weights = sum(weight.numel() for weight in made.model.parameters())
    return {"losses": losses, **used, "exchanged": 4 * weights / 2**20, "steps": len(made.train)}


def shared(folder: str, model: str) -> dict[str, Any]:
    """Do the same in two processes, and return the numbers of the first."""
    part = json.dumps(["train", {"folder": folder, "model": model}])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*launcher, sys.argv[0], part]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == 2
    return {**found[0], "peak_mb": max(one["peak_mb"] for one in found)}


def report() -> None:
    """Print the table."""
    print(__doc__)
    rows = []
    with common.temporary_folder() as folder:
        common.run_part("data", folder=str(folder))
        for model in KEYS:
            one = common.run_part("train", folder=str(folder), model=model)
            two = shared(str(folder), model)
            for before, after in zip(one["losses"], two["losses"], strict=True):
                for name, value in before.items():
                    assert abs(after[name] - value) < 1e-4 * abs(value), (model, name)
            rows.append((f"{model}, one process", one["cpu"], 1.0, one["wall"], one["peak_mb"], ""))
            ratio = one["cpu"] / two["cpu"]
            exchanged = two["exchanged"]
            rows.append(
                (f"{model}, each of two", two["cpu"], ratio, two["wall"], two["peak_mb"], exchanged)
            )
    print(
        f"{N_ITEMS:,} items, batches of {BATCH}, {one['steps']} steps an epoch, one thread per "
        f"process, {os.cpu_count()} cores; losses agree to 1e-4\n"
    )
    header = ("", "CPU s", "one / this", "wall s", "peak MiB", "MiB exchanged a step")
    common.table(header, rows)


if __name__ == "__main__":
    common.main({"data": data, "train": train}, report)
