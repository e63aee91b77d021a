"""The files that tell what a comparison found, written from result files alone."""

from __future__ import annotations

import logging
from pathlib import Path

from recbole_mm.compare.latex import latex
from recbole_mm.compare.results import Row, check_comparable, floor_row, read_rows, with_floor
from recbole_mm.compare.sections import comparison_page
from recbole_mm.compare.tables import comma_separated, markdown
from recbole_mm.compare.worth import worth_csv, worth_table
from recbole_mm.errors import ConfigError
from recbole_mm.files import atomic_write, remove_unfinished

logger = logging.getLogger(__name__)

TABLE, CSV, TEX, PAGE = "table.md", "table.csv", "table.tex", "report.html"
WORTH = "knock_out.csv"


def write_report(folder: str | Path, baseline: str | None = None) -> Path:
    """Write the tables and the page of a comparison folder; return the path of ``table.md``.

    ``table.csv``, ``table.tex`` and ``report.html`` stand beside it, and ``knock_out.csv`` where
    modalities were knocked out. The page has pictures; if
    they cannot be drawn, that costs a warning, not the tables.

    Parameters
    ----------
    folder
        Output folder of a comparison.
    baseline
        Label of the row that the others are compared with; None takes the comparison's own, or
        else the floor.

    Raises
    ------
    ConfigError
        Runs of different data or features, no ``plan.json``, or no such baseline.
    """
    folder = Path(folder)
    rows, planned = read_rows(folder)
    check_comparable(rows)
    rows = with_floor(rows)
    against = _baseline(rows, baseline, planned)
    for name in (TABLE, CSV, TEX, PAGE, WORTH):
        remove_unfinished(folder, name)
    with atomic_write(folder / TABLE) as stream:
        stream.write(markdown(rows, against, [worth_table(rows)]))
    with atomic_write(folder / CSV) as stream:
        stream.write(comma_separated(rows, against))
    if worth := worth_csv(rows):
        with atomic_write(folder / WORTH) as stream:
            stream.write(worth)
    if done := [row for row in rows if row.records]:
        with atomic_write(folder / TEX) as stream:
            stream.write(latex(done))
    _write_page(folder, rows, against)
    return folder / TABLE


def _baseline(rows: list[Row], asked: str | None, planned: str | None) -> str | None:
    """Return the label of the row that the others are tested against, if there is one.

    Without a baseline that has run, the floor takes its place, and a line says so.
    """
    labels = [row.label for row in rows]
    if asked and asked not in labels:
        raise ConfigError(f"baseline {asked!r} is no row; the rows are {', '.join(labels)}.")
    if wanted := asked or planned:
        return wanted
    floor = floor_row(rows)
    if floor is None:
        if len(rows) > 1:
            logger.warning("no row to test the others against: name one with --baseline=<label>")
        return None
    logger.info("no baseline among the rows (--baseline=<label>): tested against %s", floor.label)
    return floor.label


def _write_page(folder: Path, rows: list[Row], baseline: str | None) -> None:
    try:
        content = comparison_page(rows, baseline)
        with atomic_write(folder / PAGE) as stream:
            stream.write(content)
    except Exception as error:  # matplotlib may fail for its fonts, its cache, or its own setup
        logger.warning("%s is not written: %s: %s", PAGE, type(error).__name__, error)
