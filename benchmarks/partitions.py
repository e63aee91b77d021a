"""Reading interactions: the atomic file against Parquet partitions, the same rows in one order.

Sessions of 5 items on average, names of 14 and 11 characters. The data set is read and numbered,
then split by time; training rows are whole sessions, so that the dense table of prefixes, which
both have, does not hide the reading. Fingerprints must agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common

SIZES = (300_000, 3_000_000)
QUICK = {"SIZES": (3_000,), "N_ITEMS": 200}
NAME, N_ITEMS, FILES = "shop", 100_000, 8


def write(folder: str, size: int) -> dict[str, Any]:
    """Write the data set twice, below ``atomic`` and ``parquet``."""
    import numpy as np
    import polars as pl

    from recbole_mm.data.card import DatasetCard

    session, item = common.zipf_sessions(N_ITEMS, size // 5, 5.0)
    table = pl.DataFrame({"session_id": session, "item_id": item}).select(
        pl.format("visit-{}", pl.col("session_id") + 10_000_000).alias("session_id"),
        pl.format("product-{}", pl.col("item_id") + 100).alias("item_id"),
        pl.Series("timestamp", 1.7e9 + np.arange(len(session))),
    )
    places = {form: Path(folder) / form / NAME for form in ("atomic", "parquet")}
    for place in places.values():
        place.mkdir(parents=True)
        DatasetCard(NAME, timestamps="real", synthetic=True).save(place)
    types = {"session_id": "token", "item_id": "token", "timestamp": "float"}
    with open(places["atomic"] / f"{NAME}.inter", "wb") as stream:
        header = [f"{name}:{kind}" for name, kind in types.items()]
        table.rename(dict(zip(types, header, strict=True))).write_csv(stream, separator="\t")
    parts = places["parquet"] / f"{NAME}.inter.parquet"
    parts.mkdir()
    for number in range(FILES):
        here = slice(number * len(table) // FILES, (number + 1) * len(table) // FILES)
        table[here].write_parquet(parts / f"part-{number:05}.parquet")
    return {"interactions": len(table)}


def read(folder: str) -> dict[str, Any]:
    """Read and split the data set as a run does."""
    from recbole_mm.config import MMConfig
    from recbole_mm.data.session_dataset import SessionDataset

    keys = {"data_path": folder, "train_prefixes": False, "use_gpu": False}
    config = MMConfig("SASRec", NAME, (), keys)
    before = common.peak_memory_mb()
    built: list[Any] = []
    read = common.seconds(lambda: built.append(SessionDataset(config)))
    peak = common.peak_memory_mb()
    split = common.seconds(built[0].build)
    return {
        "seconds": read, "split": split, "reading_mb": peak - before,
        "all_mb": common.peak_memory_mb() - before, "fingerprint": built[0].fingerprint(),
    }  # fmt: skip


def report() -> None:
    """Print the table."""
    print(__doc__)
    rows: list[Any] = []
    for size in SIZES:
        with common.temporary_folder() as folder:
            made = common.run_part("write", folder=str(folder), size=size)["interactions"]
            found = {
                f: common.run_part("read", folder=str(folder / f)) for f in ("atomic", "parquet")
            }
        base = found["atomic"]
        assert base["fingerprint"] == found["parquet"]["fingerprint"]
        for form, numbers in found.items():
            per_row = numbers["reading_mb"] * 2**20 / made
            ratios = [base[key] / numbers[key] for key in ("seconds", "reading_mb", "all_mb")]
            sums = (numbers["reading_mb"], per_row, ratios[1], numbers["all_mb"], ratios[2])
            rows.append((form, made, numbers["seconds"], ratios[0], *sums))
    header = ("form", "interactions", "read CPU s", "s, atomic / this", "MiB", "bytes per row",
              "MiB, atomic / this", "MiB with the split", "with it, atomic / this")  # fmt: skip
    common.table(header, rows, keys=2)


if __name__ == "__main__":
    common.main({"write": write, "read": read}, report)
