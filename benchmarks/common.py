"""What the benchmarks share: generated sessions, timing, parts in processes of their own, tables.

Importing this module imports neither torch nor RecBole; each part pays for what it needs itself.
A script takes ``--json=FILE``, where its tables go besides, and ``--quick``: the sizes that its
``QUICK`` names, to see that it works. Times of such sizes mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
_QUICK = "RECBOLE_MM_QUICK"
_parts: dict[str, Callable[..., dict[str, Any]]] = {}
_tables: list[dict[str, Any]] = []


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process in MiB.

    ``ru_maxrss`` of a started process may still hold its parent's; VmHWM does not.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def median_seconds(job: Callable[[], Any], repeats: int, warm: int = 1) -> float:
    """Return the median processor time of ``repeats`` calls, after ``warm`` uncounted ones."""
    if os.environ.get(_QUICK):
        return seconds(job)
    for _ in range(warm):
        job()
    return statistics.median(seconds(job) for _ in range(repeats))


def seconds(job: Callable[[], Any]) -> float:
    """Return the processor time of one call; other programs on the machine change it little."""
    start = time.process_time()
    job()
    return time.process_time() - start


def run_part(name: str, **settings: Any) -> dict[str, Any]:
    """Run one part of the calling script in a new process and return its numbers."""
    if os.environ.get(_QUICK) and hasattr(os, "fork"):
        return _forked(name, settings)
    command = [sys.executable, sys.argv[0], json.dumps([name, settings])]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _forked(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run a part in a copy of this process, which has imported what takes long."""
    importlib.import_module("recbole_mm.run")
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        code = 1
        try:
            numbers = {**_parts[name](**settings), "peak_mb": peak_memory_mb()}
            os.write(writer, json.dumps(numbers).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"the part {name} failed with {settings}")
    return dict(json.loads(said))


def main(parts: Mapping[str, Callable[..., dict[str, Any]]], report: Callable[[], None]) -> None:
    """Run the part named on the command line, or the whole report."""
    _parts.update(parts)
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    if len(sys.argv) < 2 or sys.argv[1].startswith("--"):
        _report(report)
        return
    _shrink()
    warnings.simplefilter("ignore", FutureWarning)  # RecBole's, a page of them
    name, settings = json.loads(sys.argv[1])
    numbers = parts[name](**settings)
    print(json.dumps({**numbers, "peak_mb": peak_memory_mb()}))


def _report(report: Callable[[], None]) -> None:
    """Make the report, and write its tables to a file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file for the tables")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    args = parser.parse_args()
    if args.quick:
        os.environ[_QUICK] = "1"  # for the parts, too
    _shrink()
    report()
    if args.json:
        Path(args.json).write_text(json.dumps(_tables, indent=1))


def _shrink() -> None:
    """Take the script's quick sizes, if they are asked for."""
    script = vars(sys.modules["__main__"])
    if os.environ.get(_QUICK):
        script.update(script["QUICK"])


def agree(what: str, losses: Mapping[str, float], apart: float = 1e-4) -> None:
    """Stop if the first losses of both sides differ: then they do not compute the same."""
    values = list(losses.values())
    if max(values) - min(values) > apart * abs(values[0]):
        raise SystemExit(f"{what}: first losses differ, so there is nothing to compare: {losses}")
    print(f"{what}: first losses without dropout agree ({values[0]:.6g})")


def table(
    header: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "", keys: int = 1
) -> None:
    """Print rows of text and numbers as a Markdown table, and keep them for the file.

    Parameters
    ----------
    header, rows
        Names of the columns, and the cells.
    title
        Of the table, printed above it; needed where a script has several.
    keys
        How many columns in front name a row.
    """
    if title:
        print(f"{title}\n")
    plain = [list(row) for row in rows]
    _tables.append({"title": title, "keys": keys, "header": list(header), "rows": plain})
    cells = [list(header), *([text(value) for value in row] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    for number, row in enumerate(cells):
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
    print()


def text(value: Any) -> str:
    """Return a number with three significant digits, anything else as it is."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="recbole_mm_bench_") as folder:
        yield Path(folder)


def zipf_sessions(
    n_items: int, n_sessions: int, mean_length: float, shortest: int = 2, topic_size: int = 60
) -> tuple[Any, Any]:
    """Draw sessions of ``shortest`` or more items: ``(session, item)`` arrays, in order.

    Items are drawn by Zipf popularity inside a topic of about ``topic_size`` items, which gives a
    co-occurrence structure with few partners per item, as product data have. Every item occurs.
    """
    import numpy as np

    random = np.random.default_rng(1)
    lengths = shortest + random.poisson(mean_length - shortest, n_sessions)
    session = np.repeat(np.arange(n_sessions), lengths)
    n_topics = max(n_items // topic_size, 1)
    weight = 1 / np.arange(1, n_topics + 1) ** 0.5
    topic = np.searchsorted(np.cumsum(weight / weight.sum()), random.random(n_sessions))
    rank = (topic_size ** random.random(len(session)) - 1) / (topic_size - 1) * topic_size
    item = np.minimum(topic[session] + n_topics * rank.astype(np.int64), n_items - 1)
    # One occurrence of each item in a place drawn at random.
    item[random.permutation(len(item))[:n_items]] = np.arange(n_items)
    return session, item


def write_dataset(folder: Path, name: str, session: Any, item: Any, width: int = 0) -> None:
    """Write sessions as an atomic data set; ``width`` above 0 adds text vectors of that width."""
    import numpy as np
    import pandas as pd

    from recbole_mm.data.atomic import write_atomic
    from recbole_mm.data.card import DatasetCard
    from recbole_mm.data.itememb import itememb_path, write_itememb

    # Times are whole and small, because stock RecBole turns them into float32.
    time_ = np.arange(len(session)) % 2**24
    frame = pd.DataFrame({"session_id": session, "item_id": item, "timestamp": time_})
    types = {"session_id": "token", "item_id": "token", "timestamp": "float"}
    write_atomic(folder / name / f"{name}.inter", frame, types)
    DatasetCard(name, timestamps="real", synthetic=True).save(folder / name)
    if width:
        tokens = [str(token) for token in np.unique(item)]
        vectors = np.random.default_rng(2).standard_normal((len(tokens), width), np.float32)
        write_itememb(itememb_path(folder / name, name, "text"), "text", tokens, vectors)


def prepare(folder: Path, model: str, dataset: str, **overrides: Any) -> Any:
    """Build data, loaders and model of a generated data set on the CPU."""
    import torch

    from recbole_mm import run
    from recbole_mm.config import MMConfig

    base = {"data_path": str(folder), "run_folder": str(folder / "run"), "use_gpu": False}
    prepared = run.prepare(MMConfig(model, dataset, (), {**base, **overrides}))
    # Importing RecBole's models may turn this on, and it slows every backward pass.
    torch.autograd.set_detect_anomaly(False)
    return prepared


def stock_sasrec(
    data: str, dataset: str, folder: str, anomaly: bool, **keys: Any
) -> tuple[Any, Callable[[], tuple[Any, Any]]]:
    """Set RecBole's own SASRec up on leave-one-out rows, as ``recbole.quick_start`` does.

    RecBole 1.2.1 turns torch's anomaly detection on for every model as soon as its sequential
    models are imported (in ``sine.py``); ``anomaly=False`` turns it off again.

    Parameters
    ----------
    data
        Folder of the data sets.
    folder
        Gets ``saved/``.
    keys
        Settings beside these.

    Returns
    -------
    tuple
        The configuration, and what builds the loader of the training rows and the model.
    """
    sys.argv = sys.argv[:1]  # RecBole's Config reads the command line
    import torch
    from recbole.config import Config
    from recbole.data import data_preparation
    from recbole.data.dataset import SequentialDataset
    from recbole.model.sequential_recommender import SASRec
    from recbole.utils import init_seed

    from recbole_mm import compat

    compat.restore_numpy_names()
    torch.autograd.set_detect_anomaly(anomaly)
    columns = {"USER_ID_FIELD": "session_id", "ITEM_ID_FIELD": "item_id"}
    settings = {
        **keys, **columns, "TIME_FIELD": "timestamp", "data_path": data, "use_gpu": False,
        "load_col": {"inter": ["session_id", "item_id", "timestamp"]}, "benchmark_filename": None,
        "train_neg_sample_args": None, "checkpoint_dir": f"{folder}/saved",
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        "user_inter_num_interval": None, "item_inter_num_interval": None,
    }  # fmt: skip
    config = Config(model="SASRec", dataset=dataset, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])

    def build() -> tuple[Any, Any]:
        train = data_preparation(config, SequentialDataset(config))[0]
        return train, SASRec(config, train.dataset).to(config["device"])

    return config, build


def first_loss(model: Any, rows: Any) -> float:
    """Return the loss of a batch without dropout; what is drawn for it is always the same."""
    import torch

    dropouts = [part for part in model.modules() if isinstance(part, torch.nn.Dropout)]
    before = [part.p for part in dropouts]
    for part in dropouts:
        part.p = 0.0
    torch.manual_seed(1)
    with torch.no_grad():
        loss = model.train().calculate_loss(rows)
    for part, p in zip(dropouts, before, strict=True):
        part.p = p
    return float(sum(loss) if isinstance(loss, tuple) else loss)


def product_seconds(rows: int, width: int, n_items: int) -> float:
    """Return the time of what a step over all items cannot do without: three matrix products.

    The scores of ``rows`` vectors of ``width`` numbers, and the gradients of both sides.
    """
    import torch

    query, items = torch.rand(rows, width), torch.rand(n_items, width)
    scores = query @ items.T

    def once() -> tuple[Any, ...]:
        return query @ items.T, scores @ items, scores.T @ query

    return median_seconds(once, 3)


def gemm_rate(size: int = 1500) -> float:
    """Return the FLOP/s that a matrix product of this process reaches."""
    import torch

    size = 200 if os.environ.get(_QUICK) else size
    left = torch.rand(size, size)
    return 2 * size**3 / median_seconds(lambda: left @ left, 5)


def copy_rate(megabytes: int = 256) -> float:
    """Return the bytes/s read and written by a copy of memory in this process."""
    import torch

    megabytes = 1 if os.environ.get(_QUICK) else megabytes
    source = torch.rand(megabytes * 2**18)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / median_seconds(lambda: target.copy_(source), 5)
