"""The options of ``recbole-mm encode``. Nothing here imports torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial

from recbole_mm import options

# Options of a step that encodes text, of one that encodes pictures, and of both.
TEXT = {
    "fields": 'columns of the .item file: "title brand"; @image: class names of the pictures',
    "field_pooling": "join the fields to one text (default), or mean of the fields' vectors",
    "text_encoder": "minilm (default), tfidf (word counts, no model), or a name or folder for "
    "sentence-transformers or transformers",
    "pooling": "mean, cls or pooler (BERT); default: as the model says; not for tfidf",
    "max_length": "tokens read of a text, at most; not for tfidf",
    "precision": "float32 (default), or bfloat16: faster, last digits differ; not for tfidf",
}
IMAGE = {
    "images": "folder of pictures named by item, such as B000123.jpg, or where paths begin",
    "image_col": "column of the .item file with paths of pictures, or addresses to fetch",
    "image_encoder": "googlenet (default), or a name or folder of a vision model (CLIP, SigLIP, "
    "DINOv2, ...)",
    "weights": "checkpoint of GoogLeNet, such as googlenet-1378be20.pth",
    "labels": "class names kept per picture (default 2)",
    "max_downloads": "pictures fetched at most (default 100000)",
    "max_megabytes": "largest picture fetched, in MiB (default 10)",
    "download_pause": "seconds between two requests to one host (default 0.2)",
}
BOTH = {
    "batch_size": "texts or pictures per step",
    "out": "folder for the feature files (default: the data set's)",
}
_NUMBERS: dict[str, Callable[[str], float]] = {
    "batch_size": int, "max_length": int, "labels": int, "max_downloads": int,
    "max_megabytes": float, "download_pause": float,
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``encode``, grouped by what they are about."""
    add = partial(parser.add_argument, action=options.Once)
    add("--dataset", help="data set, such as Cellphones or ml-100k")
    add("--data_path", metavar="FOLDER", help="folder that holds one folder per data set")
    add("--modality", help="name of the feature file's modality (default text)")
    add("--recipe", help="make a paper's features: srim, mmsbr, alterrec or clip")
    parser.add_argument(
        "--strict", action="store_true", help="with --recipe: nothing may be left out"
    )
    add("--encoder", help="text_encoder or image_encoder, whichever the modality needs")
    parser.add_argument("--download", action="store_true", help="fetch a model that is not here")
    _add_table(parser.add_argument, BOTH)
    _add_table(parser.add_argument_group("text").add_argument, TEXT)
    pictures = parser.add_argument_group("pictures")
    _add_table(pictures.add_argument, IMAGE)
    pictures.add_argument(
        "--allow_private",
        action="store_true",
        help="also fetch from this machine and local networks",
    )
    add = partial(parser.add_argument_group("vectors you have").add_argument, action=options.Once)
    add("--from_npy", metavar="FILE", help="take the vectors of this .npy file instead")
    add("--ids", metavar="FILE", help="item ids of the .npy rows, one per line")


def _add_table(add: Callable[..., object], table: Mapping[str, str]) -> None:
    """Add the options of a table; ``fields`` alone takes several words."""
    for name, help_ in table.items():
        if name == "fields":
            add(
                f"--{name}", action=options.Flat, nargs="+", type=options.words, default=[],
                metavar="WORD", help=help_,
            )  # fmt: skip
        else:
            add(f"--{name}", action=options.Once, type=_NUMBERS.get(name, str), help=help_)
