"""Two million Amazon reviews to a data set: time and peak memory against the size of the file."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import common

QUICK = {"LINES": 5_000, "USERS": 400, "ITEMS": 100}
LINES, USERS, ITEMS, WORDS = 2_000_000, 120_000, 30_000, 60


def generate(folder: str) -> dict[str, Any]:
    """Write a packed dump of reviews, a quarter of it, and the metadata of its items."""
    import numpy as np

    random = np.random.default_rng(0)
    vocabulary = np.array([f"word{n}" for n in range(2000)])
    texts = [" ".join(random.choice(vocabulary, WORDS)) for _ in range(5000)]
    user = (USERS * random.random(LINES) ** 1.5).astype(int)
    item = (ITEMS * random.random(LINES) ** 1.5).astype(int)
    day = 16_000 + random.integers(0, 1000, LINES)
    unpacked = 0
    packed = {"compresslevel": 1}
    with (
        gzip.open(Path(folder) / "reviews.json.gz", "wb", **packed) as stream,
        gzip.open(Path(folder) / "quarter.json.gz", "wb", **packed) as quarter,
    ):
        for n in range(LINES):
            line = (
                f'{{"overall": 5.0, "reviewerID": "A{user[n]:012d}", "asin": "B{item[n]:09d}", '
                f'"reviewText": "{texts[n % 5000]}", "unixReviewTime": {day[n] * 86_400}}}\n'
            )
            unpacked += stream.write(line.encode())
            if n < LINES // 4:
                quarter.write(line.encode())
    with gzip.open(Path(folder) / "meta.json.gz", "wb", **packed) as stream:
        for n in range(ITEMS):
            stream.write(json.dumps(_meta(n, texts)).encode() + b"\n")
    return {"unpacked": unpacked}


def _meta(n: int, texts: list[str]) -> dict[str, Any]:
    """Return the record of an item."""
    return {
        "asin": f"B{n:09d}", "title": texts[n % 5000][:60], "brand": "Norvik", "price": "$5.00",
        "category": ["Phones", "Cases"], "description": [texts[n % 5000]], "imageURLHighRes": [],
    }  # fmt: skip


def parts(folder: str, dump: str) -> dict[str, Any]:
    """Read a dump into parts, and nothing else."""
    from recbole_mm.prepare.amazon.lines import ReviewReader
    from recbole_mm.prepare.amazon.raw import stream_parts

    place = Path(folder)
    return {
        "seconds": common.seconds(
            lambda: stream_parts(place / dump, place / "parts", ReviewReader())
        )
    }


def prepare(folder: str) -> dict[str, Any]:
    """Prepare the data set; a second run finds the parts of the first."""
    from recbole_mm.data.card import load_dataset_card
    from recbole_mm.prepare.amazon.presets import AmazonOptions
    from recbole_mm.prepare.amazon.reviews import prepare_amazon

    place = Path(folder)
    options = AmazonOptions(
        dataset="generated",
        reviews=str(place / "reviews.json.gz"),
        meta=str(place / "meta.json.gz"),
        sequences=True,
    )
    start = time.process_time()
    made = prepare_amazon(options, place / "out", force=True)
    seconds = time.process_time() - start
    return {"seconds": seconds, "rows": load_dataset_card(made).report["interactions"]}


def whole(folder: str) -> dict[str, Any]:
    """Read three columns of the reviews with pandas, the whole file at once."""
    import pandas as pd

    def read() -> None:
        frame = pd.read_json(Path(folder) / "reviews.json.gz", lines=True)
        frame[["reviewerID", "asin", "unixReviewTime"]]

    return {"seconds": common.seconds(read)}


def report() -> None:
    """Print the table."""
    print(__doc__)
    with common.temporary_folder() as folder:
        where = str(folder)
        unpacked = common.run_part("generate", folder=where)["unpacked"]
        packed = (folder / "reviews.json.gz").stat().st_size
        quarter = common.run_part("parts", folder=where, dump="quarter.json.gz")
        reading = common.run_part("parts", folder=where, dump="reviews.json.gz")
        first, second = (common.run_part("prepare", folder=where) for _ in range(2))
        pandas = common.run_part("whole", folder=where)
    print(
        f"{LINES:,} lines, {unpacked / 2**20:,.0f} MiB of text ({packed / 2**20:,.0f} MiB packed), "
        f"{first['rows']:,} rows kept\n"
    )
    runs = {
        "reading a quarter into parts": quarter,
        "reading all into parts": reading,
        "the whole command": first,
        "once more, from the parts": second,
        "pandas, reading alone": pandas,
    }
    rows = [(name, run["seconds"], run["peak_mb"]) for name, run in runs.items()]
    common.table(("", "seconds", "peak MiB"), rows)


if __name__ == "__main__":
    common.main({"generate": generate, "parts": parts, "prepare": prepare, "whole": whole}, report)
