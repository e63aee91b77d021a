"""What is fuzzed: one good file per format, and what reads it."""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from recbole_mm import cli, key_table, registry, yaml_files
from recbole_mm.compare.report import write_report
from recbole_mm.config import MMConfig
from recbole_mm.data.atomic import read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.data.itememb import itememb_path, read_itememb
from recbole_mm.data.sidecar import sidecar_path
from recbole_mm.encode import importer
from recbole_mm.encode.image.files import PictureError, open_picture
from recbole_mm.encode.image.labels import read_labels
from recbole_mm.encode.manifest import load_manifest, manifest_path
from recbole_mm.errors import MMError
from recbole_mm.options import parse_overrides
from recbole_mm.prepare.cli import add_arguments, prepare_command
from recbole_mm.run.execute import run
from recbole_mm.run.prepared import load_dataset
from recbole_mm.run.record import read_result
from recbole_mm.testing.case import SMALL, write_toy
from recbole_mm.trainer.checkpoint import load_checkpoint, save_checkpoint

# The only exceptions that may come out of a reader.
OURS = (MMError, PictureError)
NAME = SMALL.name
PARTS = "parts"


def make_folder(folder: Path) -> Path:
    """Write one good file of every format."""
    write_toy(folder, SMALL, ("text",))
    place = folder / NAME
    # The vectors as `recbole-mm encode --from_npy` leaves them, with a manifest and a binary copy.
    emb = read_itememb(itememb_path(place, NAME, "text"), "text")
    itememb_path(place, NAME, "text").unlink()
    sidecar_path(itememb_path(place, NAME, "text")).unlink(missing_ok=True)
    np.save(folder / "vectors.npy", emb.vectors)
    (folder / "ids.txt").write_text("\n".join(emb.ids) + "\n")
    path = importer.import_vectors(folder / "vectors.npy", folder / "ids.txt", place, NAME, "text")
    read_itememb(path, "text")
    labels = {"format": "recbole_mm.labels/1", "itememb_sha256": emb.sha256, "top": 1,
              "labels": {token: ["cup"] for token in emb.ids[:3]}}  # fmt: skip
    (place / f"{NAME}.image.labels.json").write_text(json.dumps(labels))
    parts = "".join(f"s{k:04d}\t{('train', 'valid', 'test')[k % 3]}\n" for k in range(300))
    (place / f"{NAME}.split").write_text("session_id:token\tpart:token\n" + parts)
    _write_partitions(folder)
    _write_runs(folder)
    _write_raw(folder)
    return folder


def _write_partitions(folder: Path) -> None:
    """Write the sessions once more, as a data set of Parquet partitions."""
    parts = folder / PARTS / f"{PARTS}.inter.parquet"
    parts.mkdir(parents=True)
    frame = read_atomic(folder / NAME / f"{NAME}.inter")
    table = pl.DataFrame({name: frame[name].tolist() for name in frame})
    table[:100].write_parquet(parts / "part-0.parquet", compression="uncompressed")
    table[100:].write_parquet(parts / "part-1.parquet")


def _write_runs(folder: Path) -> None:
    settings = {"data_path": str(folder), "epochs": 1, "floor": False, "use_gpu": False}
    run("Pop", NAME, (), {**settings, "run_folder": str(folder / "runs" / "Pop-s1")})
    one = {"seed": 1, "folder": "runs/Pop-s1", "log": "logs/x.log", "command": ["recbole-mm"]}
    plan = {"baseline": None, "rows": [{"label": "Pop", "model": "Pop", "runs": [one]}]}
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "user.yaml").write_text(
        "model: SASRec\nhidden_size: 32\nlearning_rate: 1e-3\nmetrics: [Hit, NDCG]\ntopk: [5, 10]\n"
        "valid_metric: NDCG@10\nclip_grad_norm: {max_norm: 5}\nval_interval: ~\n"
    )
    generator = torch.Generator().manual_seed(1)
    state = {"model": {"weight": torch.rand(3, 4, generator=generator)}, "epoch": 3,
             "history": [{"loss": 0.5}], "rng": (1, float("inf"))}  # fmt: skip
    save_checkpoint(folder / "state.safetensors", state)


def _write_raw(folder: Path) -> None:
    draw = random.Random(3)
    rows = [f"u{k // 3},i{draw.randrange(9)},{1_600_000_000 + 60 * k}" for k in range(60)]
    (folder / "raw.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    goods = [f'i{k},"Cup {k}, red",${k}.50' for k in range(9)]
    (folder / "goods.csv").write_text("\n".join(["item,title,price", *goods]) + "\n")
    reviews = [
        {"reviewerID": f"u{k % 7}", "asin": f"A{k % 5}", "unixReviewTime": 1_500_000_000 + k * 9000}
        for k in range(80)
    ]
    meta = [{"asin": f"A{k}", "title": f"cup {k}", "price": f"${k}.99",
             "category": ["Home", "Cups"], "brand": "b"} for k in range(5)]  # fmt: skip
    for name, records in (("reviews.json", reviews), ("meta.json", meta)):
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "reviews.json.gz").write_bytes(
        gzip.compress((folder / "reviews.json").read_bytes(), mtime=0)
    )
    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (9, 9, 3), np.uint8))
    picture.save(folder / "picture.png")
    picture.save(folder / "picture.jpg")
    picture.save(folder / "picture.gif")


@dataclass(frozen=True)
class Target:
    """One format.

    Attributes
    ----------
    name
        Of the format.
    file
        The file that is damaged, below the folder.
    read
        Reads it; gets the folder. May return anything or raise one of `OURS`.
    writes
        Patterns of files that reading may make or change; all others must stay as they are.
    make
        Writes the folder of good files.
    """

    name: str
    file: str
    read: Callable[[Path], object]
    writes: tuple[str, ...] = ()
    make: Callable[[Path], Path] = make_folder


# ---- Readers ----


def _data(folder: Path, **keys: object) -> object:
    return load_dataset("SASRecF", NAME, (), {
        "data_path": str(folder), "selected_features": ["class", "price"], **keys})  # fmt: skip


def _prepare(folder: Path, *words: str) -> object:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    try:
        return prepare_command(parser.parse_args([*words, f"--out={out}", "--force"]))
    except SystemExit as stop:
        return stop.code


def _tabular(folder: Path) -> object:
    return _prepare(
        folder, "tabular", "--dataset=shop", f"--inter={folder / 'raw.csv'}", "--user_col=user",
        "--item_col=item", "--time_col=time", f"--items={folder / 'goods.csv'}",
        "--text_cols=title", "--price_col=price",
    )  # fmt: skip


def _amazon(folder: Path, reviews: str) -> object:
    return _prepare(
        folder, "amazon", "--dataset=shop", f"--reviews={folder / reviews}", "--core=1",
        f"--meta={folder / 'meta.json'}", "--sequences=true", f"--cache={folder / 'out' / 'cache'}",
    )  # fmt: skip


def _resume(folder: Path) -> object:
    return run("", "", resume=folder / "runs" / "Pop-s1")


def _import(folder: Path) -> object:
    shutil.rmtree(folder / "out", ignore_errors=True)
    return importer.import_vectors(
        folder / "vectors.npy", folder / "ids.txt", folder / "out", NAME, "text"
    )


def _text(folder: Path) -> object:
    """Read the vectors without the binary copy, which would hide the text."""
    sidecar_path(itememb_path(folder / NAME, NAME, "text")).unlink(missing_ok=True)
    return read_itememb(itememb_path(folder / NAME, NAME, "text"), "text")


def _copy(folder: Path) -> object:
    """Read the vectors: a damaged copy must give what the text says."""
    emb = read_itememb(itememb_path(folder / NAME, NAME, "text"), "text")
    np.testing.assert_array_equal(emb.vectors, np.load(folder / "vectors.npy"))
    return emb


def _value(folder: Path) -> object:
    """Take the file's first line for what stands behind a key on the command line."""
    text = (folder / "value.txt").read_bytes().decode("utf-8", "surrogateescape")
    key, _, value = text.partition("=")
    return MMConfig("SASRec", NAME, (), {**parse_overrides([f"--{key}={value}"]),
                                         "data_path": str(folder)})  # fmt: skip


COPY = f"{NAME}/{NAME}.text.itememb.safetensors"
OUT = ("out/*", "out/**/*")
RUN = tuple(f"runs/Pop-s1/{name}" for name in ("*", "tensorboard/*"))
TARGETS = [
    Target("inter", f"{NAME}/{NAME}.inter", _data),
    Target("partition", f"{PARTS}/{PARTS}.inter.parquet/part-0.parquet",
           lambda f: load_dataset("SASRec", PARTS, (), {"data_path": str(f)})),
    Target("packed partition", f"{PARTS}/{PARTS}.inter.parquet/part-1.parquet",
           lambda f: load_dataset("SASRec", PARTS, (), {"data_path": str(f)})),
    Target("item", f"{NAME}/{NAME}.item", _data),
    Target("split", f"{NAME}/{NAME}.split", lambda f: _data(f, split_by="given")),
    Target("card", f"{NAME}/dataset.json", lambda f: load_dataset_card(f / NAME)),
    Target("itememb", f"{NAME}/{NAME}.text.itememb", _text, (COPY,)),
    Target("itememb copy", COPY, _copy, (COPY,)),
    Target("manifest", f"{NAME}/{NAME}.text.manifest.json",
           lambda f: load_manifest(manifest_path(itememb_path(f / NAME, NAME, "text")))),
    Target("labels", f"{NAME}/{NAME}.image.labels.json",
           lambda f: read_labels([f / NAME], NAME, "image")),
    Target("npy", "vectors.npy", _import, OUT),
    Target("ids", "ids.txt", _import, OUT),
    Target("yaml", "user.yaml", lambda f: yaml_files.load_yaml(f / "user.yaml")),
    Target("configuration", "user.yaml",
           lambda f: MMConfig(None, NAME, [f / "user.yaml"], {"data_path": str(f)})),
    Target("value", "value.txt", _value),
    Target("checkpoint", "state.safetensors", lambda f: load_checkpoint(f / "state.safetensors")),
    Target("result", "runs/Pop-s1/result.json", lambda f: (read_result(f / "runs" / "Pop-s1"),
           write_report(f)), ("table*", "report*")),
    Target("plan", "plan.json", write_report, ("table*", "report*")),
    Target("resume: config", "runs/Pop-s1/config.yaml", _resume, RUN),
    Target("resume: last", "runs/Pop-s1/last.safetensors", _resume, RUN),
    Target("table of interactions", "raw.csv", _tabular, OUT),
    Target("table of items", "goods.csv", _tabular, OUT),
    Target("Amazon reviews", "reviews.json", lambda f: _amazon(f, "reviews.json"), OUT),
    Target("Amazon reviews, packed", "reviews.json.gz",
           lambda f: _amazon(f, "reviews.json.gz"), OUT),
    Target("Amazon metadata", "meta.json", lambda f: _amazon(f, "reviews.json"), OUT),
    Target("PNG", "picture.png", lambda f: open_picture(f / "picture.png")),
    Target("JPEG", "picture.jpg", lambda f: open_picture(f / "picture.jpg")),
    Target("GIF", "picture.gif", lambda f: open_picture(f / "picture.gif")),
]  # fmt: skip


# ---- The command line ----

WORDS = (
    "run", "compare", "encode", "audit", "export", "--model=Pop", "--model=SASRec", "--model=",
    f"--dataset={NAME}", "--dataset=../x", "--dataset=", "--explain", "--explain=topk",
    "--models=Pop", "--models=Pop:seed=x", "--models=:::", "--seeds=1", "--seeds=x", "--table_only",
    "--epochs=[[", "--topk=[]", "--topk=[1, 2", "--topk=-1", "--valid_metric=x", "--out=out/x",
    "--output=out/y", "--modality=a/b", "--recipe=none", "--from_npy=vectors.npy", "--ids=ids.txt",
    "--config_files=user.yaml", "--config_files=none.yaml", "--config_files='", "--plugins=os.none",
    "--", "-", "--=", "--x", "x", "--split_by=given", "--split_ratio=[1,2]",
    "--split_ratio=[0,0,0]",
    "--learning_rate=nan", "--learning_rate=1e400", "--seed=-1", "--gpu_id=99", "--resume=none",
    "--resume=.", "--run_folder=out/z", "--jobs=0", "--jobs=x", "--baseline=x", "--fields=none",
    "--text_encoder=tfidf", "--preset=none", "--candidates=features", "--selected_features=[x]",
    "--MAX_ITEM_LIST_LENGTH=0", "--TIME_FIELD=none", "--data_path=none", "--data_path=.",
)  # fmt: skip
# What would train is asked to explain itself; what would be downloaded or encoded is named wrongly.
_QUICK = {"run": "--explain", "compare": "--table_only", "encode": "--modality=text"}


def command_line(draw: random.Random) -> list[str]:
    """Return arguments, some of them sensible."""
    command = draw.choice(("run", "run", "compare", "encode", "audit", "export"))
    words = [draw.choice(WORDS) for _ in range(draw.randrange(1, 4))]
    if draw.random() < 0.8:
        words += [f"--dataset={NAME}", "--data_path=."]
        words += ["--model=SASRec"] if command == "run" else []
    if draw.random() < 0.3:
        place = draw.randrange(len(words))
        words[place] = words[place][: draw.randrange(len(words[place]) + 1)] + draw.choice(
            ("\0", "é", "=", "[", "'", "%", "\n", "{a: b}", "9" * 50)
        )
    quick = [_QUICK[command]] if command in _QUICK else []
    return [command, *words, *quick]


def run_command(argv: list[str]) -> int:
    """Run a command in this process; anything but an exit code is an escape."""
    return cli.main(argv)


VALUES = (
    "1", "0", "-1", "1e-3", "1e400", "nan", "-.inf", "true", "~", "x", "''", "[]", "[1]", "[x, 2]",
    "[[1]]", "{}", "{a: 1}", "{1: [2]}", "2147483648", "9" * 60, "[5,inf)", "2026-01-01", "a b",
    "[NDCG, 3]", "{max_norm: 5}", "{inter: [a]}", "null", "0x1f", "1_0", "é", "../x", "Hit@10",
)  # fmt: skip


def values(draw: random.Random) -> str:
    """Return ``key=value`` for a key of SASRec."""
    names = sorted(key_table.known_keys(registry.spec_of("SASRec")))
    return f"{draw.choice(names)}={draw.choice(VALUES)}"
