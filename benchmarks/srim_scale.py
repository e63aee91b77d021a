"""SRIM's cost at 10 thousand, 100 thousand and a million items: it must grow no faster than N.

Settings: preset sound with 4 layers, d = 32, text of 64 numbers, two sessions per item of 3.05
items on average, batches of 64 rows (the scores are a 64 x N matrix, 256 MB at a million items).
The data set is a stand-in without files, so that the model alone is measured.
"""

from __future__ import annotations

from typing import Any

import common

SIZES = (10_000, 100_000, 1_000_000)
QUICK = {"SIZES": (500, 2_000)}
WIDTH, N_LAYERS, BATCH, LENGTH = 32, 4, 64, 20


class StandIn:
    """What SRIM asks a data set for."""

    def __init__(self, n_items: int) -> None:
        import numpy as np
        import torch

        from recbole_mm.data.features import ItemFeatures
        from recbole_mm.data.sessions import group_sessions

        session, item = common.zipf_sessions(n_items, 2 * n_items, 3.05)
        self.n_items = n_items + 1
        self.train_sessions = group_sessions(session, item + 1, np.arange(len(item)))
        self.train_counts = np.bincount(item + 1, minlength=self.n_items)
        table, mask = torch.rand(self.n_items, 64), torch.ones(self.n_items, dtype=torch.bool)
        table[0], mask[0] = 0.0, False
        self.item_features = ItemFeatures({"text": table}, {"text": mask}, {})

    def num(self, field: str) -> int:
        """Return the number of ids, padding included."""
        return self.n_items

    def fitted(self, name: str, compute: Any, enlarge: Any = None) -> Any:
        """Return what is computed; nothing is kept."""
        return compute()

    def batch(self, size: int) -> Any:
        """Return rows made of the first sessions: all but the last item, and the last."""
        import numpy as np
        import torch
        from recbole.data.interaction import Interaction

        sessions = self.train_sessions
        history = np.zeros((size, LENGTH), np.int64)
        for row in range(size):
            items = sessions.items[sessions.offsets[row] : sessions.offsets[row + 1] - 1]
            history[row, : len(items)] = items[:LENGTH]
        columns = {
            "session_id": sessions.session[:size],
            "item_id": sessions.items[sessions.offsets[1 : size + 1] - 1],
            "item_id_list": history,
            "item_length": np.minimum(sessions.lengths()[:size] - 1, LENGTH),
        }
        return Interaction({name: torch.from_numpy(column) for name, column in columns.items()})


def cost(n_items: int, size: int) -> dict[str, Any]:
    """Time building, one training step and two evaluation batches."""
    import torch

    from recbole_mm.config import MMConfig
    from recbole_mm.model.srim.model import SRIM

    settings = {"use_gpu": False, "embedding_size": WIDTH, "n_layers": N_LAYERS}
    dataset, made = StandIn(n_items), []
    config = MMConfig("SRIM", "scale", (), settings)
    torch.autograd.set_detect_anomaly(False)
    build = common.seconds(lambda: made.append(SRIM(config, dataset)))
    model, batch = made[0], dataset.batch(size)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(model.train().calculate_loss(batch)).sum().backward()
        optimizer.step()

    def predict() -> None:
        with torch.no_grad():
            model.full_sort_predict(batch)

    time = common.median_seconds(step, 3, warm=1)
    model.eval()
    numbers = {"nnz": model.graph.counts.nnz, "build": build, "step": time}
    numbers["product"] = time / common.product_seconds(size, 2 * WIDTH, n_items)
    return {**numbers, "first": common.seconds(predict), "next": common.median_seconds(predict, 3)}


def report() -> None:
    """Print the table and the growth from size to size."""
    print(__doc__)
    made = [common.run_part("cost", n_items=size, size=BATCH) for size in SIZES]
    names = ("nnz", "build", "step", "product", "first", "next", "peak_mb")
    header = ("items", "stored pairs", "build s", "step s", "step x product",
              "first evaluation batch s", "next batch s", "peak MiB")  # fmt: skip
    sized = list(zip(SIZES, made, strict=True))
    common.table(header, [(size, *(x[name] for name in names)) for size, x in sized])
    growth = [
        (f"{small:,} to {large:,}", *(y[name] / x[name] for name in names))
        for (small, x), (large, y) in zip(sized, sized[1:], strict=False)
    ]
    common.table(header, growth, "growth for ten times the items (a square would be 100)")


if __name__ == "__main__":
    common.main({"cost": cost}, report)
