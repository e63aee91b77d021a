"""One hard training step of AlterRec at the size of Amazon-M2 French, and the same done row by row.

``row by row`` makes, for every row by itself, a sorted list of the teacher's best items and a draw
without replacement from it (multinomial); the rest of the step is this package's. ``as released``
also does what else the released code does in a step: it picks scores by pairs of row and column,
runs sessions at 50 positions in all blocks, and runs and scores the idle branch.
"""

from __future__ import annotations

import os
from typing import Any

import common

# Threads that wait must not be counted as working; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

N_ITEMS, WIDTH, BATCH = 40_258, 300, 512
# The longest session of a batch, and what the released code pads to.
LENGTH, WIDEST = 6, 50
FIRST, LAST = 21, 20_000
HARD_EPOCH = 4
SLOW = ("row by row", "as released")
QUICK = {"N_ITEMS": 2_000, "WIDTH": 16, "BATCH": 32, "LAST": 400}
FORMS = ("shared", "independent", *SLOW, "uniform", "full")


def row_by_row(sampler: Any, teacher: Any) -> Any:
    """Rank and draw for each row by itself; stands in for ``sampler.hard``."""
    import torch

    lists = []
    for scores in teacher:
        window = 1 + scores[1:].topk(sampler.window[1]).indices[sampler.window[0] - 1 :]
        chosen = torch.multinomial(torch.ones(len(window)), sampler.n_hard)
        anywhere = torch.randint(1, sampler.n_items + 1, (sampler.n_uniform,))
        lists.append(torch.cat([window[chosen], anywhere]))
    return torch.stack(lists)


def mass_by_pairs(scores: Any, drawn: Any, target: Any) -> Any:
    """Pick scores by pairs of row and column; stands in for ``negative_mass``."""
    import torch

    rows = torch.arange(len(scores)).unsqueeze(1).expand_as(drawn)
    picked = scores[rows, drawn].masked_fill(drawn == target, -1e5)
    return torch.logsumexp(picked, dim=1)


def whole_encoder(encoder: Any, hidden: Any, lengths: Any, mix: Any) -> Any:
    """Run all blocks at all positions; stands in for ``encode_last``."""
    import torch

    from recbole_mm.model.layers import last_position
    from recbole_mm.model.transformer import masks

    _, causal = masks(lengths, hidden.shape[1])
    return last_position(encoder(hidden, torch.where(causal, 0.0, -1e9))[-1], lengths)


def slow_down(model: Any, form: str) -> None:
    """Put the slow forms in the place of ours."""
    import functools

    from recbole_mm.model.alterrec import branches as alterrec_branches
    from recbole_mm.model.alterrec import negatives as alterrec_negatives

    model.sampler.hard = functools.partial(row_by_row, model.sampler)
    if form == "as released":
        alterrec_negatives.negative_mass = mass_by_pairs
        alterrec_branches.encode_last = whole_encoder
        model.inputs = lambda rows: (rows["item_id_list"], rows["item_length"])


def score_idle(model: Any, rows: Any) -> None:
    """Run and score the idle branch as if it were trained, too."""
    idle = model.branches["text"].train()
    table = idle.table()
    idle.query(table, *model.inputs(rows)) @ table.T
    idle.eval()


def settings(form: str) -> dict[str, Any]:
    """Return the model's settings of a form."""
    from recbole_mm import yaml_files

    return yaml_files.load_yaml(yaml_files.path("model", "AlterRec.yaml")) | {
        "USER_ID_FIELD": "session_id",
        "ITEM_ID_FIELD": "item_id",
        "LIST_SUFFIX": "_list",
        "ITEM_LIST_LENGTH_FIELD": "item_length",
        "NEG_PREFIX": "neg_",
        "MAX_ITEM_LIST_LENGTH": WIDEST,
        "device": "cpu",
        "dataset": "french",
        "hidden_size": WIDTH,
        "inner_size": 4 * WIDTH,
        "hard_negative_start_rank": FIRST,
        "hard_negative_end_rank": LAST,
        "negative_sampling": form if form in ("uniform", "full") else "hard",
    }


class Items:
    """What the model reads of a data set."""

    def __init__(self) -> None:
        import torch

        from recbole_mm.data.features import ItemFeatures

        mask = torch.arange(N_ITEMS + 1) > 0
        table = torch.randn(N_ITEMS + 1, 512) * mask.unsqueeze(1)
        self.item_features = ItemFeatures({"text": table}, {"text": mask}, {"text": "0" * 64})

    def num(self, field: str) -> int:
        """Return the number of items with padding."""
        return N_ITEMS + 1


def made(form: str) -> tuple[Any, dict[str, Any]]:
    """Return the model and a batch of a form."""
    import torch

    from recbole_mm.model.alterrec.model import AlterRec
    from recbole_mm.model.alterrec.official import RowwiseSampler

    torch.manual_seed(1)
    model: Any = AlterRec(settings(form), Items())
    if form == "independent":
        model.sampler = RowwiseSampler(model.sampler.window, 0.5, N_ITEMS)
    model.train().start_epoch(HARD_EPOCH)
    items = torch.zeros(BATCH, WIDEST, dtype=torch.long)
    items[:, :LENGTH] = torch.randint(1, N_ITEMS + 1, (BATCH, LENGTH))
    rows = {
        "item_id_list": items,
        "item_length": torch.randint(1, LENGTH + 1, (BATCH,)),
        "item_id": torch.randint(1, N_ITEMS + 1, (BATCH,)),
    }
    if form in SLOW:
        slow_down(model, form)
    return model, rows


def same(form: str) -> dict[str, Any]:
    """Return the loss of a form without dropout, on draws that are the same for every form."""
    import torch

    model, rows = made(form)
    sampler = model.sampler
    draws = torch.Generator().manual_seed(2)
    size = (BATCH, sampler.n_hard + sampler.n_uniform)
    fixed = torch.randint(1, N_ITEMS + 1, size, generator=draws)
    sampler.hard = lambda teacher: fixed
    return {"loss": common.first_loss(model, rows)}


def step(form: str, repeats: int) -> dict[str, Any]:
    """Time one step of the ID branch, with the text branch as teacher, and its parts."""
    import torch

    model, rows = made(form)
    optimizer = torch.optim.Adam(model.branches["id"].parameters(), lr=0.001)

    def once() -> None:
        optimizer.zero_grad()
        if form == "as released":
            score_idle(model, rows)
        model.calculate_loss(rows).backward()
        optimizer.step()

    # Importing RecBole's models may turn this on, and it slows every backward pass.
    torch.autograd.set_detect_anomaly(False)
    numbers = {"seconds": common.median_seconds(once, repeats), "drawing": 0.0}
    numbers["product"] = common.product_seconds(BATCH, WIDTH, N_ITEMS)
    if model.plan.negatives == "hard":
        teacher = torch.randn(BATCH, N_ITEMS + 1)
        numbers["drawing"] = common.median_seconds(lambda: model.sampler.hard(teacher), repeats)
    return numbers


def report() -> None:
    """Print the times of all forms, and how many times as long the slow ones take."""
    losses = {form: common.run_part("same", form=form)["loss"] for form in ("shared", *SLOW)}
    common.agree("AlterRec on the same draws", losses)
    found = {form: common.run_part("step", form=form, repeats=5) for form in FORMS}
    print(f"{BATCH} rows, {N_ITEMS:,} items, d = {WIDTH}, ranks {FIRST:,} to {LAST:,}\n")
    header = ("negatives", "CPU seconds", "of these the draw", "row by row / this",
              "as released / this", "x product", "peak MiB")  # fmt: skip
    slow = [found[form]["seconds"] for form in SLOW]
    rows = [
        (form, x["seconds"], x["drawing"], *(s / x["seconds"] for s in slow),
         x["seconds"] / x["product"], x["peak_mb"])
        for form, x in found.items()
    ]  # fmt: skip
    common.table(header, rows)
    for form in SLOW:
        print(f"{form}: {found[form]['seconds'] / found['shared']['seconds']:.2f} x shared")
    print(f"its draw alone: {found[SLOW[0]]['drawing'] / found['shared']['drawing']:.2f} x shared")


if __name__ == "__main__":
    common.main({"step": step, "same": same}, report)
