"""A model in use: restoring a pack, sessions per second in batches, one session at a time.

20,000 items. Models are not trained: what is computed does not depend on it. `plain` scores the
same rows by `full_sort_predict` and takes `torch.topk`; `equal` checks that both give the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common

N_ITEMS, SESSIONS, LENGTH, WIDTH = 20_000, 60_000, 5.0, 384
MODELS: dict[str, dict[str, Any]] = {
    "SRIM": {}, "AlterRec": {}, "MMSBR": {"use_text": True}, "MDSRec": {"preset": "text"},
    "Counting": {"beta": 0.0}, "SASRec": {}, "GRU4Rec": {},
}  # fmt: skip
QUICK = {
    "N_ITEMS": 200, "SESSIONS": 600, "WIDTH": 16, "ASKED": 250, "BATCHES": 1, "ONES": 10,
    "REQUESTS": 64, "SERVED": ("SASRec",), "CLIENTS": (4,), "MODELS": {"SASRec": {}},
}  # fmt: skip
SERVED, CLIENTS = ("SRIM", "SASRec"), (1, 16, 64)
ASKED, BATCHES, ONES, REQUESTS = 4096, 3, 200, 2000


def pack(folder: Path, model: str) -> Path:
    """Pack an untrained model of a generated shop."""
    from recbole_mm.serve.catalogue import Catalogue
    from recbole_mm.serve.pack import write_pack
    from recbole_mm.serve.restored import Restored

    session, item = common.zipf_sessions(N_ITEMS, SESSIONS, LENGTH)
    common.write_dataset(folder, "shop", session, item, WIDTH)
    made = common.prepare(folder, model, "shop", **MODELS[model])
    dataset = made.train.dataset
    trained = Restored(made.config, made.model, dataset, Catalogue.of(dataset), folder)
    return write_pack(trained, folder / "pack")


def sessions_of(tokens: list[str], count: int) -> list[list[str]]:
    """Return new sessions of 1 to 9 items."""
    import numpy as np

    random = np.random.default_rng(3)
    lengths = random.integers(1, 10, count)
    return [[tokens[item] for item in random.integers(1, N_ITEMS, n)] for n in lengths]


def measure(model: str) -> dict[str, Any]:
    """Pack a model, restore it, and recommend ten items to each session."""
    import time

    import numpy as np

    from recbole_mm.serve.recommender import Recommender

    with common.temporary_folder() as folder:
        place = pack(folder, model)
        size = sum(file.stat().st_size for file in place.iterdir()) / 2**20
        start = time.perf_counter()
        recommender = Recommender.load(place)
        loaded = time.perf_counter() - start
        asked = sessions_of(recommender.items.tokens, ASKED)
        plain = common.median_seconds(lambda: by_topk(recommender, asked), BATCHES)
        batch = common.median_seconds(lambda: recommender.recommend(asked), BATCHES)
        expected = by_topk(recommender, asked[:200])
        found = [one.scores for one in recommender.recommend(asked[:200])]
        equal = sum(a == b for a, b in zip(expected, found, strict=True))
        ones = []
        for session in asked[:ONES]:
            start = time.perf_counter()
            recommender.recommend([session])
            ones.append(1000 * (time.perf_counter() - start))
        p50, p95 = np.percentile(ones[5:], [50, 95])
        return {
            "mb": size, "load": loaded, "rate": ASKED / batch, "plain": ASKED / plain,
            "p50": p50, "p95": p95, "equal": equal,
        }  # fmt: skip


def over_http(model: str, clients: int) -> dict[str, Any]:
    """Serve a pack in a process of its own and ask it, one session per request."""
    import http.client
    import json
    import signal
    import subprocess
    import sys
    import time
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from recbole_mm.serve.recommender import Recommender

    with common.temporary_folder() as folder:
        place = pack(folder, model)
        tokens = Recommender.load(place).items.tokens
        command = [sys.executable, "-m", "recbole_mm", "serve", f"--pack={place}", "--port=0"]
        service = subprocess.Popen([*command, "--rate=0"], stdout=subprocess.PIPE, text=True)
        assert service.stdout is not None
        port = int(service.stdout.readline().split("127.0.0.1:")[1].split()[0])
        asked = sessions_of(tokens, REQUESTS)

        def client(number: int) -> list[float]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            times = []
            for session in asked[number::clients]:
                body = json.dumps({"sessions": [session]})
                start = time.perf_counter()
                connection.request("POST", "/recommend", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
                times.append(1000 * (time.perf_counter() - start))
            return times

        client(0)  # what is made at the first request does not count
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            times = [one for found in pool.map(client, range(clients)) for one in found]
        passed = time.perf_counter() - start
        service.send_signal(signal.SIGTERM)
        service.wait()
    p50, p99 = np.percentile(times, [50, 99])
    return {"rate": len(times) / passed, "p50": p50, "p99": p99}


def by_topk(recommender: Any, asked: list[list[str]]) -> list[list[float]]:
    """Return the largest scores, as one would write it by hand; items are looked up as well."""
    import torch

    tokens, index, scorer = recommender.items.tokens, recommender.items.index, recommender.scorer
    found = []
    for start in range(0, len(asked), scorer.batch_size):
        part = asked[start : start + scorer.batch_size]
        rows = scorer.rows([[index[token] for token in session] for session in part])
        with torch.no_grad():
            scores = scorer.model.full_sort_predict(rows).view(len(part), -1)
        scores[:, 0] = -torch.inf
        best = scores.topk(10, dim=1)
        named = [[tokens[item] for item in items] for items in best.indices.tolist()]
        assert len(named) == len(part)
        found += best.values.tolist()
    return found


def report() -> None:
    """Print the table."""
    print(f"{N_ITEMS:,} items, {ASKED:,} sessions of 1 to 9 items, ten recommended to each\n")
    rows = []
    for model in MODELS:
        made = common.run_part("measure", model=model)
        names = ("mb", "load", "rate", "plain", "p50", "p95", "equal")
        rows.append((model, *(made[name] for name in names)))
    header = (
        "model", "pack MB", "load wall s", "sessions/s", "plain", "one: p50 wall ms", "p95",
        "equal of 200",
    )  # fmt: skip
    common.table(header, rows)
    rows = []
    for model in SERVED:
        for clients in CLIENTS:
            made = common.run_part("over_http", model=model, clients=clients)
            rows.append((model, clients, made["rate"], made["p50"], made["p99"]))
    title = f"{REQUESTS:,} requests of one session over HTTP; service and clients on one machine"
    common.table(("model", "clients", "requests/s", "p50 wall ms", "p99"), rows, title, keys=2)


if __name__ == "__main__":
    common.main({"measure": measure, "over_http": over_http}, report)
