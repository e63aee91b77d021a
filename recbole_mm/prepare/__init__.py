"""From raw interactions to RecBole's atomic files."""

from __future__ import annotations

from pathlib import Path


def ensure_dataset(name: str, folder: Path) -> None:
    """Prepare ``ml-100k`` in ``folder`` if its files are missing; other names are left alone.

    Parameters
    ----------
    name
        Name of the data set.
    folder
        ``<data_path>/<dataset>``, where a run will look for the atomic files.
    """
    if name == "ml-100k":
        from recbole_mm.prepare.movielens import ensure_ml100k

        ensure_ml100k(folder)
