"""Which file is an item's picture: one named by the item, or one that a column names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from recbole_mm.data.atomic import header, read_atomic
from recbole_mm.data.card import load_dataset_card
from recbole_mm.encode.image.download import Limits, download_pictures
from recbole_mm.encode.image.files import find_pictures
from recbole_mm.encode.text.fields import item_file

_SHOWN = 80  # characters of a cell that leads nowhere


class Places:
    """Where pictures lie.

    Attributes
    ----------
    named
        Folder of pictures named by item.
    root
        Where relative paths of the column begin.
    fetched
        Where fetched pictures go.
    """

    def __init__(self, folder: Path, dataset: str, images: str | Path | None, out: Path):
        card = load_dataset_card(folder)
        self.fetched = Path(images) if images else out / f"{dataset}.pictures"
        self.root = Path(images) if images else folder / card.image_folder
        self.named = Path(images) if images else self.fetched


def picture_column(folder: str | Path, dataset: str, asked: str | None) -> str:
    """Return the column with paths or addresses: the one asked for, else the data set's own."""
    if asked:
        return asked
    named = load_dataset_card(folder).image_field
    path = item_file(folder, dataset)
    return named if path.is_file() and named in header(path) else ""


def picture_cells(folder: str | Path, dataset: str, item_field: str, column: str) -> dict[str, str]:
    """Return what the column says of every item, without empty cells."""
    frame = read_atomic(item_file(folder, dataset), [item_field, column])
    cells: dict[str, str] = {}
    for token, cell in zip(frame[item_field], frame[column].astype(str), strict=True):
        if token and cell.strip():
            cells.setdefault(token, cell.strip())
    return cells


def find(
    tokens: list[str],
    cells: Mapping[str, str],
    places: Places,
    fetch: bool,
    limits: Limits | None,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the picture file of each item that has one, and why others have none.

    A path in the column wins over a file named by item; an address is fetched if the user named
    the column.
    """
    urls = {token: cell.split()[0] for token, cell in cells.items() if _is_address(cell)}
    failed = {token: "an address; name the column (--image_col) to fetch it" for token in urls}
    if urls and fetch:
        failed = download_pictures(urls, places.fetched, limits)
    paths = {token: places.root / cell for token, cell in cells.items() if token not in urls}
    there = {token: path for token, path in paths.items() if _is_file(path)}
    failed |= {token: f"no file {cells[token][:_SHOWN]}" for token in paths if token not in there}
    if places.named.is_dir() or not cells:
        there = {**find_pictures(places.named, tokens), **there}
    return there, failed


def _is_file(path: Path) -> bool:
    """Tell whether there is such a file; a text may be no possible name at all."""
    try:
        return path.is_file()
    except OSError:
        return False


def _is_address(cell: str) -> bool:
    return cell.lower().startswith(("http://", "https://"))
