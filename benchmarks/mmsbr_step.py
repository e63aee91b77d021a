"""One training step of MMSBR at the size of Amazon Cellphones, and the released form of it.

The released step compares every item with every item in the contrastive loss, runs its token maps
and layers in full, and has batches of 100; here it is written anew with plain tensors, two layers
of a modality per round, and the layer's softmax over the queries. Its loops over the batch, which
only look up rows, are left out, so that the comparison is about the mathematics. Both sides have
the same batch, and ``official`` the same loss, which is compared first.
"""

from __future__ import annotations

import math
from typing import Any

import common

N_ITEMS, N_SESSIONS, MEAN_LENGTH = 8_614, 20_000, 2.6
WIDTH, N_TOKENS, N_PIVOTS, N_HEADS, TOPK = 64, 4, 4, 4, 100
TEXT, IMAGE = 384, 512
# The released batch, and one of today: at another batch another work is done.
BATCHES = (100, 512)
# The first computes what the released form does; three rounds are the released model's.
OURS: dict[str, dict[str, Any]] = {
    "official, 3 rounds": {"preset": "official", "rounds": 3},
    "sound with 3 rounds": {"preset": "sound", "rounds": 3},
    "the same in chunks of 1,024 items": {"preset": "sound", "rounds": 3, "chunk": 1024},
    "sound (1 round)": {"preset": "sound", "rounds": 1},
}
QUICK = {"N_ITEMS": 300, "N_SESSIONS": 500, "BATCHES": (50,)}


def released(rounds: int, batch: int, repeats: int) -> dict[str, Any]:
    """Time the released form of a step: forward, backward, Adam."""
    import torch

    with common.temporary_folder() as folder:
        # Price, interest and scores are this package's: they cost next to nothing either way.
        prepared = _prepare(folder, "official", rounds, batch)
        model, rows = prepared.model.train(), next(iter(prepared.train))
        model.item_tables = lambda: _released_tables(model)
        model._contrasted = lambda contrast, items: _released_contrast(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        numbers = _timed(model, rows, optimizer, batch, repeats)
        return {**numbers, "product": common.product_seconds(batch, WIDTH, N_ITEMS)}


def ours(preset: str, rounds: int, batch: int, repeats: int, chunk: int = 0) -> dict[str, Any]:
    """Time a step of this package."""
    import torch

    with common.temporary_folder() as folder:
        prepared = _prepare(folder, preset, rounds, batch, item_chunk=chunk)
        model, rows = prepared.model.train(), next(iter(prepared.train))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        return _timed(model, rows, optimizer, batch, repeats)


def _timed(model: Any, rows: Any, optimizer: Any, batch: int, repeats: int) -> dict[str, Any]:
    """Return the seconds of a step and of a session."""
    import torch

    def once() -> float:
        optimizer.zero_grad()
        loss = torch.stack(model.calculate_loss(rows)).sum()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    first_loss = common.first_loss(model, rows)
    time = common.median_seconds(once, repeats, warm=1)
    return {"loss": first_loss, "seconds": time, "per_session": time / batch}


def _prepare(folder: Any, preset: str, rounds: int, batch: int, **keys: Any) -> Any:
    """Write the data set with prices and vectors, and build the model."""
    import numpy as np
    import pandas as pd

    from recbole_mm.data.atomic import write_atomic
    from recbole_mm.data.itememb import itememb_path, write_itememb

    common.write_dataset(folder, "cells", *common.zipf_sessions(N_ITEMS, N_SESSIONS, MEAN_LENGTH))
    random, tokens = np.random.default_rng(3), [str(item) for item in range(N_ITEMS)]
    for name, width in (("text", TEXT), ("image", IMAGE)):
        vectors = random.standard_normal((N_ITEMS, width), np.float32)
        write_itememb(itememb_path(folder / "cells", "cells", name), name, tokens, vectors)
    items = pd.DataFrame(
        {
            "item_id": tokens,
            "price": np.round(random.lognormal(3.0, 0.8, N_ITEMS), 2),
            "category": random.integers(0, 48, N_ITEMS),
        }
    )
    types = {"item_id": "token", "price": "float", "category": "token"}
    write_atomic(folder / "cells" / "cells.item", items, types)
    keys |= {"preset": preset, "n_rounds": rounds, "train_batch_size": batch}
    return common.prepare(folder, "MMSBR", "cells", **keys)


def _released_tables(model: Any) -> dict[str, Any]:
    """Make all item vectors as the released code does: one map at a time, whole layers."""
    import torch

    count = torch.arange(1, model.n_items)
    tokens = {name: _released_tokens(model, name, count) for name in model.used}
    pivots = model.pivots(count)
    for layers in model.fusion.rounds:
        for name in model.used:
            out = _released_layer(layers[name], torch.cat([pivots, tokens[name]], dim=1))
            pivots = (pivots + out[:, :N_PIVOTS]) / 2
            tokens[name] = tokens[name] + out[:, N_PIVOTS:]
    head = model.head
    hidden = head.dropout(torch.relu(head.first(head.dropout(pivots.flatten(1)))))
    vectors = head.dropout(torch.relu(head.second(hidden)))
    table = torch.cat([vectors.new_zeros(1, WIDTH), vectors])
    return {"candidates": table, "price": model.price.item_vectors()}


def _released_tokens(model: Any, name: str, count: Any) -> Any:
    """Return the feature tokens, one pair of maps after another."""
    import torch

    maps, vectors, made = model.tokens[name], model.real[name](count), []
    for token in range(N_TOKENS):
        hidden = torch.tanh(vectors @ maps.first[token] + maps.first_bias[token])
        hidden = maps.dropout(hidden)
        moved = torch.tanh(hidden @ maps.second[token] + maps.second_bias[token])
        made.append(maps.dropout(moved))
    return torch.stack(made, dim=1)


def _released_layer(layer: Any, tokens: Any) -> Any:
    """Run a whole layer, with the heads in front and the softmax over the queries."""
    import torch

    def heads(x: Any) -> Any:
        return torch.stack(x.split(WIDTH // N_HEADS, dim=-1))

    query = heads(layer.query(tokens))
    key, value = (heads(part) for part in layer.key_value(tokens).chunk(2, dim=-1))
    logits = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // N_HEADS)
    mixed = torch.cat(list(logits.softmax(dim=2) @ value), dim=-1)
    middle = layer.norm_attention(tokens + layer.dropout(layer.out(mixed)))
    return layer.norm_out(middle + layer.dropout(layer.narrow(torch.relu(layer.widen(middle)))))


def _released_contrast(model: Any) -> Any:
    """Compare every item with every item, with exponentials and logarithms as they stand."""
    import torch

    total = torch.zeros(())
    for name in model.pseudo:
        real, pseudo = model.real[name].vectors[1:], model.pseudo[name].vectors[1:]
        logits = real @ pseudo.T
        pair = (real * pseudo).sum(dim=1)
        near = logits.topk(TOPK, dim=1).values
        total = total + (near.exp().sum(dim=1).log10() - pair.exp().log10()).sum()
    return total


def report() -> None:
    """Print the table."""
    print(f"N = {N_ITEMS:,} items, d = {WIDTH}, {N_TOKENS} tokens, {N_PIVOTS} pivots\n")
    rows = []
    for batch in BATCHES:
        made = {"released form, 3 rounds": common.run_part(
            "released", rounds=3, batch=batch, repeats=1)}  # fmt: skip
        for name, keys in OURS.items():
            made[name] = common.run_part("ours", **keys, batch=batch, repeats=1)
        same = {name: made[name]["loss"] for name in list(made)[:2]}
        common.agree(f"MMSBR, batch {batch}", same)
        base = next(iter(made.values()))
        rows += [
            (batch, form, x["seconds"], x["per_session"] * 1000, base["seconds"] / x["seconds"],
             x["seconds"] / base["product"], x["peak_mb"])
            for form, x in made.items()
        ]  # fmt: skip
    header = ("batch", "step", "CPU seconds", "ms per session", "released / this at this batch",
              "x product", "peak MiB")  # fmt: skip
    common.table(header, rows, keys=2)


if __name__ == "__main__":
    common.main({"released": released, "ours": ours}, report)
