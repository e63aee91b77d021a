"""Models that count: time to build, sessions scored per second, memory; 5,000 to 500,000 items.

Below it SessionKNN (preset sknn) against a loop over the sessions that share an item, after a check
that both give the same scores.
"""

from __future__ import annotations

from typing import Any

import common

MODELS = {"SessionRules": {}, "Counting": {"beta": 0.0}, "SessionKNN": {"preset": "sknn"}}
SIZES, SESSIONS, LENGTH = (5_000, 50_000, 500_000), 100_000, 6.0
LOOP: dict[str, Any] = {}
QUICK = {
    "SIZES": (300,), "SESSIONS": 4_000, "LOOP": {"n_items": 200, "n_sessions": 500, "n_rows": 8},
}  # fmt: skip
# Scores of a batch are rows x items x 4 bytes.
CELLS = 32_000_000


def build(model: str, n_items: int) -> dict[str, Any]:
    """Build a model on 100,000 sessions and score validation rows."""
    import time

    import torch

    session, item = common.zipf_sessions(n_items, SESSIONS, LENGTH)
    with common.temporary_folder() as folder:
        common.write_dataset(folder, "shop", session, item)
        made = common.prepare(folder, model, "shop", **MODELS[model])
        before = common.peak_memory_mb()
        start, wall = time.process_time(), time.perf_counter()
        counted = type(made.model)(made.config, made.train.dataset).eval()
        numbers = {"seconds": time.process_time() - start, "wall": time.perf_counter() - wall}
        rows = torch.arange(max(1, min(512, CELLS // n_items)))
        batch = made.valid.dataset[rows]
        once = common.median_seconds(lambda: counted.full_sort_predict(batch), 3)
        return {**numbers, "rate": len(rows) / once, "before_mb": before}


def loop(n_items: int = 2_000, n_sessions: int = 20_000, n_rows: int = 64) -> dict[str, Any]:
    """Score rows by SessionKNN and by a loop over training sessions."""
    import torch

    session, item = common.zipf_sessions(n_items, n_sessions, LENGTH)
    with common.temporary_folder() as folder:
        common.write_dataset(folder, "shop", session, item)
        keys = {"preset": "sknn", "k": n_sessions, "sample_size": n_sessions, "own_last": False}
        made = common.prepare(folder, "SessionKNN", "shop", **keys)
        batch = made.valid.dataset[torch.arange(n_rows)]
        ours = made.model.eval().full_sort_predict(batch)[:, 1:].double()
        sessions = made.dataset.train_sessions
        theirs = by_loop(sessions, batch["item_id_list"].tolist(), made.dataset.item_num)[:, 1:]
        apart = float((ours - theirs).abs().max() / theirs.abs().max())
        fast = common.median_seconds(lambda: made.model.full_sort_predict(batch), 3)
        rows = batch["item_id_list"].tolist()
        slow = common.median_seconds(lambda: by_loop(sessions, rows, made.dataset.item_num), 1, 0)
        return {"ours": n_rows / fast, "loop": n_rows / slow, "ratio": slow / fast, "apart": apart}


def by_loop(sessions: Any, histories: list[list[int]], n_items: int) -> Any:
    """Return the scores ``(B, N)``: the sum of the cosines of the sessions that hold an item."""
    import torch

    offsets = sessions.offsets.tolist()
    items = sessions.items.tolist()
    sets = [set(items[low:high]) for low, high in zip(offsets[:-1], offsets[1:], strict=True)]
    holding: dict[int, list[int]] = {}
    for number, held in enumerate(sets):
        for one in held:
            holding.setdefault(one, []).append(number)
    scores = torch.zeros(len(histories), n_items, dtype=torch.double)
    for row, history in enumerate(histories):
        mine = set(history) - {0}
        for number in {n for one in mine for n in holding.get(one, [])}:
            cosine = len(mine & sets[number]) / (len(mine) * len(sets[number])) ** 0.5
            for one in sets[number]:
                scores[row, one] += cosine
    return scores


def report() -> None:
    """Print both tables."""
    print(f"{SESSIONS:,} generated sessions of {LENGTH:g} items on average, one thread\n")
    rows = []
    for n_items in SIZES:
        for model in MODELS:
            made = common.run_part("build", model=model, n_items=n_items)
            cells = (made["wall"], made["seconds"], made["rate"], made["before_mb"])
            rows.append((f"{n_items:,}", model, *cells, made["peak_mb"]))
    header = ("items", "model", "build wall s", "CPU s", "sessions/s", "MiB before", "peak MiB")
    common.table(header, rows, keys=2)
    made = common.run_part("loop", **LOOP)
    if made["apart"] > 1e-5:
        raise SystemExit(f"SessionKNN and the loop give other scores, apart by {made['apart']}")
    cells = (made["ours"], made["loop"], made["ratio"], made["apart"])
    header = ("SessionKNN sessions/s", "loop sessions/s", "ratio", "largest relative difference")
    common.table(header, [cells], "against a loop", keys=0)


if __name__ == "__main__":
    common.main({"build": build, "loop": loop}, report)
