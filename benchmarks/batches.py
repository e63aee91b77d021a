"""An epoch on batches by length (`length_buckets`) against batches at random, and stock RecBole.

Real sessions, leave-one-out, every prefix a row, default sizes, batches of 2,048; text vectors are
random numbers. Looked at first: RecBole and this package train on the same rows, and with the same
weights and no dropout the mean loss over them is the same in batches of either kind.

    python benchmarks/batches.py [folder of the data sets] [data set]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import common

MODELS = {"SASRec": {}, "GRU4Rec": {}, "SRIM": {}, "AlterRec": {}, "MDSRec": {"preset": "text"},
          "MMSBR": {"use_image": False, "use_price": False}}  # fmt: skip
POOL = 16
SHARED = {"MAX_ITEM_LIST_LENGTH": 20, "train_batch_size": 2048, "epochs": 1}
WIDTH = 384


def vectors(folder: Path, data: Path, name: str) -> None:
    """Write random text vectors of a data set's items."""
    import numpy as np

    from recbole_mm.data.atomic import read_atomic
    from recbole_mm.data.itememb import itememb_path, write_itememb

    items = read_atomic(data / name / f"{name}.inter", ["item_id"])["item_id"]
    tokens = sorted(set(items))
    made = np.random.default_rng(2).standard_normal((len(tokens), WIDTH), np.float32)
    write_itememb(itememb_path(folder, name, "text"), "text", tokens, made)


def prepared(model: str, buckets: int, folder: str, data: str, dataset: str) -> Any:
    """Build one of our runs."""
    keys = {**SHARED, **MODELS[model], "feature_path": folder, "split_by": "leave_one_out"}
    keys = {**keys, "run_folder": f"{folder}/{model}-{buckets}", "length_buckets": buckets}
    return common.prepare(Path(data), model, dataset, **keys)


def mean_loss(model: Any, loader: Any) -> float:
    """Return the mean loss over all rows, without dropout and with equal random draws."""
    import torch

    model.eval()
    total = count = 0.0
    with torch.no_grad():
        for batch in loader:
            loss = model.calculate_loss(batch)
            parts = loss if isinstance(loss, tuple) else (loss,)
            total += sum(map(float, parts)) * len(batch)
            count += len(batch)
    model.train()
    return total / count


def epoch(made: Any, trainer: Any) -> float:
    """Return the processor time of one epoch of training."""
    return common.seconds(lambda: trainer._train_epoch(made, 0, show_progress=False))


def ours(model: str, **places: str) -> dict[str, Any]:
    """Time an epoch of one model with and without buckets."""
    from recbole_mm.trainer.base import trainer_class

    plain, bucketed = (prepared(model, pool, **places) for pool in (0, POOL))
    losses = {}
    if model in ("SASRec", "GRU4Rec"):  # The others draw per batch, or compare inside of it.
        losses = {"loss": mean_loss(plain.model, plain.train)}
        bucketed.model.load_state_dict(plain.model.state_dict())
        losses["bucketed loss"] = mean_loss(bucketed.model, bucketed.train)
    found: dict[str, Any] = {"rows": len(plain.train.dataset), **losses}
    cells = [batch["item_id_list"].numel() for batch in bucketed.train]
    found["cells"] = sum(cells) / plain.train.dataset.inter_feat["item_id_list"].numel()
    for key, made in (("random", plain), ("buckets", bucketed)):
        trainer = trainer_class(made.spec, type(made.model))(made.config, made.model)
        found[key] = epoch(made.train, trainer)
    return found


def stock(anomaly: bool, folder: str, data: str, dataset: str) -> dict[str, Any]:
    """Time an epoch of SASRec by RecBole's own data set, loader and trainer."""
    config, build = common.stock_sasrec(data, dataset, folder, anomaly, **SHARED)
    from recbole.trainer import Trainer

    train, model = build()
    if not anomaly:
        assert rows(train.dataset) == rows(_our_rows(folder, data, dataset)), "other rows"
    return {"rows": len(train.dataset), "random": epoch(train, Trainer(config, model))}


def _our_rows(folder: str, data: str, dataset: str) -> Any:
    import torch

    made = prepared("SASRec", 0, folder, data, dataset)
    torch.autograd.set_detect_anomaly(False)
    return made.train.dataset


def rows(dataset: Any) -> list[tuple[str, ...]]:
    """Return the training rows in tokens, sorted: session, target, history."""
    inter = dataset.inter_feat
    users, items = (dataset.field2id_token[name] for name in ("session_id", "item_id"))
    return sorted(
        (users[user], items[target], *items[[item for item in history if item]])
        for user, target, history in zip(
            inter["session_id"].numpy(), inter["item_id"].numpy(), inter["item_id_list"].numpy(),
            strict=True,
        )
    )  # fmt: skip


def report(data: str, name: str) -> None:
    """Print the table."""
    print(__doc__)
    with common.temporary_folder() as folder:
        vectors(folder, Path(data), name)
        places = {"folder": str(folder), "data": data, "dataset": name}
        made = {model: common.run_part("ours", model=model, **places) for model in MODELS}
        stocks = {on: common.run_part("stock", anomaly=on, **places) for on in (True, False)}
    for model, numbers in made.items():
        if "loss" in numbers:
            same = abs(numbers["loss"] - numbers["bucketed loss"]) < 1e-5 * numbers["loss"]
            print(f"{model}: mean loss {numbers['loss']:.6f}, in buckets the same: {same}")
    print(f"{made['SASRec']['rows']:,} rows, the same in RecBole\n")
    table = [
        (model, x["cells"], x["random"], x["buckets"], x["random"] / x["buckets"])
        for model, x in made.items()
    ]
    common.table(("", "columns left", "random s", "buckets s", "times faster"), table)
    fast = made["SASRec"]["buckets"]
    for anomaly, x in stocks.items():
        what = "as it is" if anomaly else "without anomaly detection"
        ratio = fast / x["random"]
        print(f"stock SASRec {what}: {x['random']:.1f} s; ours in buckets takes {ratio:.2f} of it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    if len(sys.argv) > 1 and sys.argv[1].startswith("["):
        common.main({"ours": ours, "stock": stock}, lambda: None)
    else:
        parser.add_argument("data", nargs="?", default="../shared/data")
        parser.add_argument("name", nargs="?", default="amazon_scientific")
        chosen = parser.parse_args()
        report(str(Path(chosen.data).resolve()), chosen.name)
