"""One training step of MDSRec against RecBole's SASRec at the same width, batch and sessions.

Sessions are as long as Amazon's: 7 items on average, a few near 50. SASRec, another model, is run
twice: on rows cut to the longest of the batch, as MDSRec does itself, and on padded rows, as
RecBole does. The last size keeps 10 items of a history, where the centres weigh more than the
positions.
"""

from __future__ import annotations

from typing import Any

import common

BATCH, WIDTH = 512, 64
# Items, sessions, centres, neighbours and longest history, the first two near to the paper's sets.
SIZES = {
    "Scientific": (4_400, 8_400, 16, 5, 50),
    "Baby": (7_000, 19_400, 32, 10, 50),
    "12,000 items": (12_000, 30_000, 32, 10, 50),
    "short histories": (4_400, 8_400, 32, 10, 10),
}
QUICK = {"BATCH": 64, "SIZES": {"tiny": (300, 500, 8, 3, 12)}}
MODELS = ("SASRec, all columns", "SASRec, cut rows", "MDSRec", "MDSRec, no centres", "MDSRec, ID")


def long_tailed(n_items: int, n_sessions: int, longest: int) -> tuple[Any, Any]:
    """Return sessions whose lengths fall off like a geometric distribution from 3 items on."""
    import numpy as np

    random = np.random.default_rng(3)
    lengths = np.minimum(2 + random.geometric(1 / 5, n_sessions), longest + 3)
    lengths[random.random(n_sessions) < 0.005] = longest
    session, item = common.zipf_sessions(n_items, n_sessions, float(lengths.mean()))
    owner = np.repeat(np.arange(n_sessions), lengths)[: len(item)]
    return owner, item[: len(owner)]


def step(model: str, size: str, repeats: int) -> dict[str, Any]:
    """Time one step: forward, backward, Adam."""
    import torch

    n_items, n_sessions, centers, neighbours, history = SIZES[size]
    changes: dict[str, Any] = {"train_batch_size": BATCH, "MAX_ITEM_LIST_LENGTH": history}
    if model.startswith("MDSRec"):
        changes |= {"n_centers": centers, "n_neighbors": neighbours, "modalities": []}
        if not model.endswith("ID"):
            changes |= {"modalities": ["text", "image"], "use_ica": "no centres" not in model}
    with common.temporary_folder() as folder:
        session, item = long_tailed(n_items, n_sessions, history)
        common.write_dataset(folder, "shop", session, item, width=64)
        _write_image(folder)
        prepared = common.prepare(folder, model.split(",")[0], "shop", **changes)
        rows = next(iter(prepared.train))
    longest = int(rows["item_length"].max())
    if "cut" in model:
        rows.interaction["item_id_list"] = rows["item_id_list"][:, :longest].contiguous()
    made = prepared.model.train()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.001)

    def once() -> float:
        optimizer.zero_grad()
        parts = made.calculate_loss(rows)
        loss = torch.stack(parts).sum() if isinstance(parts, tuple) else parts
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    first = once()
    seconds = common.median_seconds(once, repeats, warm=1)
    product = common.product_seconds(BATCH, WIDTH, made.n_items)
    numbers = {"seconds": seconds, "loss": first, "product": product}
    return {**numbers, "longest": longest, "n_items": made.n_items - 1}


def _write_image(folder: Any) -> None:
    """Give every item a second vector."""
    import numpy as np

    from recbole_mm.data.itememb import itememb_path, read_itememb, write_itememb

    tokens = read_itememb(itememb_path(folder / "shop", "shop", "text"), "text").ids
    vectors = np.random.default_rng(4).standard_normal((len(tokens), 64), np.float32)
    write_itememb(itememb_path(folder / "shop", "shop", "image"), "image", tokens, vectors)


def report() -> None:
    """Print the tables."""
    for size, (_, _, centers, neighbours, history) in SIZES.items():
        made = {m: common.run_part("step", model=m, size=size, repeats=7) for m in MODELS}
        stock, cut = (made[name]["seconds"] for name in MODELS[:2])
        any_ = made["MDSRec"]
        title = (
            f"{size}: {any_['n_items']:,} items, batch {BATCH}, longest row {any_['longest']}, "
            f"{centers} centres, {neighbours} neighbours"
        )
        rows = [
            (name, x["seconds"], x["seconds"] / cut, x["seconds"] / stock,
             x["seconds"] / x["product"], x["peak_mb"], x["loss"])
            for name, x in made.items()
        ]  # fmt: skip
        header = ("model", "CPU seconds", "x cut rows", f"x {history} columns", "x product",
                  "peak MiB", "loss")  # fmt: skip
        common.table(header, rows, title)


if __name__ == "__main__":
    common.main({"step": step}, report)
