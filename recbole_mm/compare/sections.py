"""The page of a comparison: ``report.html``, one file that needs no network."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

from recbole_mm.compare import pictures
from recbole_mm.compare.results import Row, floor_row
from recbole_mm.compare.studied import content_section, knockout_section
from recbole_mm.compare.tables import (
    groups,
    main_metric,
    paired,
    protocol,
    row_interval,
    software,
    spread,
    warnings,
    what_was_ranked,
)
from recbole_mm.compare.worth import worth_section
from recbole_mm.evaluation.significance import Difference
from recbole_mm.page.elements import Cell, Html, element, folded, joined, page, section, table
from recbole_mm.run.record import Record
from recbole_mm.times import span

# What differs between runs without being a setting of theirs.
_NO_SETTING = ("model", "seed", "run_folder", "checkpoint_dir", "device", "show_progress")
Compared = dict[str, tuple[Difference, float]]


def comparison_page(rows: Sequence[Row], baseline: str | None) -> str:
    """Return the page of a comparison.

    Parameters
    ----------
    rows
        All rows, failed ones and the floor among them.
    baseline
        Label of the row that the others are compared with, if there is one.
    """
    done = [row for row in rows if row.records]
    if not done:
        told = element("p", "No run has ended well yet.")
        return page("Comparison", element("h1", "Comparison"), told, _failures(rows))
    floor = floor_row(done)
    against_floor = paired(done, floor.label) if floor else {}
    compared = against_floor if floor and floor.label == baseline else paired(done, baseline)
    records = [record for row in done for record in row.records]
    return page(
        f"Comparison on {records[0]['dataset']}",
        _head(records),
        _cards(done, floor, against_floor, rows),
        _main_section(done, floor, against_floor),
        _interval_section(done, floor, compared, baseline),
        _paired_section(compared, baseline),
        _slice_section(done),
        pictures.curve_section(done, floor),
        worth_section(done),
        content_section(done),
        knockout_section(done),
        pictures.cost_section(done, floor),
        _settings_section(done),
        _failures(rows),
        _commands(rows),
        _foot(records),
    )


def _head(records: Sequence[Record]) -> Html:
    first = records[0]
    marked = (
        element("p", element("b", f"{mark}: "), text, kind="mark")
        for mark, text in warnings(records).items()
    )
    return joined(
        [
            element("h1", f"Comparison on {first['dataset']}"),
            element("div", what_was_ranked(first), kind="sub"),
            element("div", f"Protocol: {protocol(first)}.", kind="sub"),
            *marked,
        ]
    )


def _cards(
    rows: Sequence[Row], floor: Row | None, against_floor: Compared, planned: Sequence[Row]
) -> Html:
    main = main_metric(rows)
    trained = [row for row in rows if row is not floor] or list(rows)
    best = max(trained, key=lambda row: _mean(row, main))
    low, high = row_interval(best, main)
    cards = [
        (best.label, f"best {main} of the rows: {_mean(best, main):.4f} ({low:.4f} to {high:.4f})")
    ]
    if floor is not None:
        places = [place_of(found) for found, _ in against_floor.values()]
        shares = [f"{places.count(p)} {p}" for p in ("above", "level", "below") if p in places]
        cards.append((", ".join(shares) or "–", "rows above, level with or below the floor"))
        cards.append((f"{_mean(floor, main):.4f}", f"{main} of the floor: counting, no training"))
    failed = sum(len(row.failed) for row in planned)
    good = sum(len(row.records) for row in rows if row.attempts[0].command)
    seconds = sum(float(row.values("seconds", "train").sum()) for row in rows)
    told = f"good runs{f', {failed} failed' if failed else ''}; {span(seconds)} of training"
    cards.append((str(good), told))
    return element(
        "div", *(element("div", element("b", big), element("span", small), kind="card")
                 for big, small in cards), kind="cards",
    )  # fmt: skip


def place_of(difference: Difference) -> str:
    """Return where a row stands to what it is compared with."""
    return "above" if difference.low > 0 else "below" if difference.high < 0 else "level"


def _mean(row: Row, metric: str) -> float:
    return float(row.values("test", metric).mean())


def _main_section(rows: Sequence[Row], floor: Row | None, against_floor: Compared) -> Html:
    names = list(rows[0].records[0]["test"])
    best = {name: max((_mean(row, name) for row in rows), default=np.nan) for name in names}
    head = ["model", *(["floor"] if floor else []), *names, "seeds", "best epoch", "train s"]
    head += ["parameters", "peak MiB", "marks"]
    lines = []
    for row in rows:
        found = against_floor.get(row.label)
        place = "" if found is None else place_of(found[0])
        cells = [
            Cell(row.label),
            *([Cell(place or "–", kind=place)] if floor else []),
            *(
                Cell(
                    spread(row.values("test", n)), _mean(row, n),
                    "best" if _mean(row, n) == best[n] else "",
                )
                for n in names
            ),
            _counted(row),
            _number(row.values("best_epoch").mean(), ".1f"),
            _number(row.values("seconds", "train").mean(), ".1f"),
            _number(row.values("parameters").mean(), ",.0f"),
            _number(row.values("peak_memory_mb").max(), ".0f"),
            Cell(row.marks or "–", kind="word"),
        ]  # fmt: skip
        lines.append(cells)
    note = (
        "Test metrics of the epoch that was best on validation, mean ± standard deviation over "
        "seeds; the best of a column is bold. floor: where the row stands to counting without "
        "training, by the 95 % interval of the paired difference of reciprocal ranks. A click on a "
        "column's head sorts."
    )
    return section("Results", table(head, lines), note=note)


def _counted(row: Row) -> Cell:
    good = len(row.records)
    return Cell(f"{good} of {len(row.attempts)}" if row.failed else str(good), good)


def _number(value: float, form: str) -> Cell:
    return Cell("–", np.nan) if np.isnan(value) else Cell(format(value, form), float(value))


def _interval_section(
    rows: Sequence[Row], floor: Row | None, compared: Compared, baseline: str | None
) -> Html:
    note = (
        "95 % bootstrap over sessions of the mean over seeds. The line on the left is the floor's "
        "value; red lies below it. On the right each row minus the baseline, paired session by "
        "session: an interval off the line is a difference that other sessions of the same kind "
        "would show, too. What another training would change is the spread over seeds in the table."
    )
    return section(
        "Intervals",
        element(
            "div",
            pictures.intervals(rows, floor),
            pictures.differences(compared, baseline),
            kind="charts",
        ),
        note=note,
    )


def _paired_section(compared: Compared, baseline: str | None) -> Html:
    if not compared:
        return Html("")
    head = [f"against {baseline}", "reciprocal rank", "95 %", "p (Holm)", "sessions"]
    lines = [
        [
            Cell(label),
            Cell(f"{d.delta:+.4f}", d.delta, place_of(d)),
            Cell(f"{d.low:+.4f} to {d.high:+.4f}", d.low),
            Cell(f"{p:.4f}", p),
            Cell(str(d.n), d.n),
        ]
        for label, (d, p) in compared.items()
    ]
    note = (
        "Reciprocal ranks averaged over seeds; paired bootstrap over sessions, two-sided p "
        f"corrected for {len(compared)} comparison(s) by Holm."
    )
    return section("Paired comparison", table(head, lines), note=note)


def _slice_section(rows: Sequence[Row]) -> Html:
    main = main_metric(rows)
    found = groups(rows, main)
    if not found:
        return Html("")
    head = ["model", *(f"{division} {name} (n={n})" for (division, name), n in found.items())]
    means = {
        row.label: [float(row.values("slices", *g, main).mean()) for g in found] for row in rows
    }
    lines = [
        [Cell(label), *(_heated(value, column) for value, column in zip(values, zip(
            *means.values(), strict=True), strict=True))]
        for label, values in means.items()
    ]  # fmt: skip
    note = (
        f"{main} of groups of test rows; the darker, the nearer to the best of the column. "
        "popularity: clicks on the target in the training sessions. history: items of the session "
        "that the model was given."
    )
    return section("Parts of the test rows", table(head, lines), note=note)


def _heated(value: float, column: Sequence[float]) -> Cell:
    if np.isnan(value):
        return Cell("–", value)
    top = np.nanmax(column)
    return Cell(f"{value:.4f}", value, "best" if value == top else "", value / (top or 1.0))


def _settings_section(rows: Sequence[Row]) -> Html:
    """Show the settings in which rows differ that have them."""
    configs = {row.label: row.records[0]["config"] for row in rows if row.attempts[0].command}
    keys = sorted({key for config in configs.values() for key in config} - {*_NO_SETTING})
    differing = []
    for key in keys:
        given = [str(config[key]) for config in configs.values() if key in config]
        if len(given) > 1 and len(set(given)) > 1:
            differing.append(key)
    if not differing:
        return Html("")
    lines = [
        [Cell(key), *(Cell(str(config.get(key, "–")), kind="text") for config in configs.values())]
        for key in differing
    ]
    note = "Keys that two rows or more have, and not with one value. – : the model has no such key."
    return section("Settings that differ", table(["key", *configs], lines), note=note)


def _failures(rows: Sequence[Row]) -> Html:
    lines = [
        [Cell(row.label), Cell(str(a.seed), a.seed), Cell(a.error, kind="text"),
         Cell(a.log, kind="text")]
        for row in rows
        for a in row.failed
    ]  # fmt: skip
    if not lines:
        return Html("")
    return section("Failed runs", table(["model", "seed", "error", "log"], lines))


def _commands(rows: Sequence[Row]) -> Html:
    lines = [shlex.join(a.command) for row in rows for a in row.attempts if a.command]
    text = element("pre", "\n".join(lines))
    return section("To repeat it", folded(f"{len(lines)} commands", text))


def _foot(records: Sequence[Record]) -> Html:
    print_ = records[0]["fingerprint"]["data"][:16]
    told = f"Software: {', '.join(software(records))}. Fingerprint of sessions and candidates: "
    return element("footer", f"{told}{print_}. This page is one file and loads nothing.")
