"""The options of ``recbole-mm encode``. Nothing here imports torch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from recbole_mm import options

# Options of a step that encodes text, of one that encodes pictures, and of both.
TEXT = {
    "fields": 'columns of the .item file: "title brand"; @image: class names of the pictures',
    "field_pooling": "join the fields to one text (default), or mean of the fields' vectors",
    "text_encoder": "minilm, or a name or folder for sentence-transformers or transformers",
    "pooling": "mean, cls or pooler (BERT); default: as the model says",
    "max_length": "tokens read of a text, at most",
}
IMAGE = {
    "images": "folder of pictures named by item, such as B000123.jpg",
    "image_urls": "column of the .item file with addresses of pictures to fetch",
    "image_encoder": "googlenet (default), or a name or folder of a CLIP model",
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
_NUMBERS: dict[str, Callable[[str], Any]] = {
    "batch_size": int, "max_length": int, "labels": int, "max_downloads": int,
    "max_megabytes": float, "download_pause": float,
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``encode``, grouped by what they are about."""

    def add(group: Any, name: str, help_: str, **more: Any) -> None:
        group.add_argument(f"--{name}", help=help_, **{"action": options.Once, **more})

    add(parser, "dataset", "data set, such as Cellphones or ml-100k")
    add(parser, "data_path", "folder that holds one folder per data set", metavar="FOLDER")
    add(parser, "modality", "name of the feature file's modality (default text)")
    add(parser, "recipe", "make a paper's features: srim, mmsbr, alterrec or clip")
    parser.add_argument(
        "--strict", action="store_true", help="with --recipe: nothing may be left out"
    )
    add(parser, "encoder", "text_encoder or image_encoder, whichever the modality needs")
    parser.add_argument("--download", action="store_true", help="fetch a model that is not here")
    for name, help_ in BOTH.items():
        add(parser, name, help_, type=_NUMBERS.get(name, str))
    for title, table in (("text", TEXT), ("pictures", IMAGE)):
        group = parser.add_argument_group(title)
        for name, help_ in table.items():
            if name == "fields":
                more = {"action": options.Flat, "nargs": "+", "type": options.words, "default": []}
                add(group, name, help_, metavar="WORD", **more)
            else:
                add(group, name, help_, type=_NUMBERS.get(name, str))
    group = parser.add_argument_group("vectors you have")
    add(group, "from_npy", "take the vectors of this .npy file instead", metavar="FILE")
    add(group, "ids", "item ids of the .npy rows, one per line", metavar="FILE")
