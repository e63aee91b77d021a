"""The page of a comparison, as text and in a browser from the disk."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from recbole_mm.compare import sections
from recbole_mm.compare.report import write_report
from recbole_mm.evaluation.ranking import metrics_from_ranks

from .made import N, record, write

EVIL = "<img src=x onerror=alert(1)>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def counted(found):
    """Give a record the floor of a model that ranks every target in place 20."""
    rank = [20] * N
    test = metrics_from_ranks(np.array(rank), [10, 20], ["Hit", "NDCG"])
    delta = {"metric": "ndcg@20", "delta": 0.0, "low": 0.0, "high": 0.0}
    found["floor"] = {
        "model": "Counting", "valid": test, "test": test, "slices": {}, "rank": rank, "tied": 0,
        "difference": delta,
    }  # fmt: skip
    return found


def trained(values, **more):
    """Return a record with a course of validation metrics."""
    history = [
        {"epoch": n, "loss": {"loss": 1 / n}, "valid": {"ndcg@20": value}}
        for n, value in enumerate(values, start=1)
    ]
    return record(history=history, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a comparison with everything a page can show, a row with a hostile name among it."""
    better = np.r_[np.ones(N // 2, int), np.full(N - N // 2, 40)]
    parts = {"whole": {"ndcg@20": 0.6}, "id": {"ndcg@20": 0.3}}
    best = trained([0.1, 0.3, 0.2], ranks=better, parts={"valid": parts, "test": parts})
    best["config"]["n_layers"] = 2
    other = trained([0.2, 0.1], seed=2)
    other["config"]["n_layers"] = 1
    shuffled = trained([0.1], ranks=np.full(N, 15), model="SRIM")
    shuffled["config"]["feature_source"] = "shuffled"
    shuffled["fingerprint"]["features"] = {"text": "a" * 64}
    rows = {
        "SASRec": [counted(other)],
        EVIL: [trained([0.2, 0.3], ranks=better, model="SRIM")],
        "best": [best],
        "shuffled": [shuffled],
        "broken": [f"error: {EVIL}"],
    }
    write(tmp_path, {label.replace("<", "").replace(">", ""): r for label, r in rows.items()})
    plan = json.loads((tmp_path / "plan.json").read_text())
    for row, label in zip(plan["rows"], rows, strict=True):
        row["label"] = label
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "baseline": "SASRec"}))
    return tmp_path


def written(folder: Path) -> str:
    write_report(folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_all_sections_stand_on_the_page_and_names_are_escaped(folder):
    text = written(folder)
    titles = [part.split("</h2>")[0] for part in text.split("<h2>")[1:]]
    assert titles == [
        "Results", "Intervals", "Paired comparison", "Parts of the test rows", "Curves",
        "Is content worth anything?", "Knock-outs", "Cost against quality",
        "Settings that differ", "Failed runs", "To repeat it",
    ]  # fmt: skip
    assert "<img" not in text and "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "best ndcg@20 of the rows" in text and "1 failed" in text
    assert (folder / "table.tex").is_file()


def test_rows_stand_above_and_below_the_floor(folder):
    text = written(folder)
    results = text.split("<h2>Results")[1].split("</section>")[0]
    row = next(part for part in results.split("<tr>") if '"row">best<' in part)
    assert '<td class="above">above</td>' in row
    assert '"row">floor: Counting<' in results and "<td>–</td>" in results


def test_settings_that_differ_and_only_those(folder):
    settings = written(folder).split("<h2>Settings that differ")[1].split("</section>")[0]
    keys = [part.split("<")[0] for part in settings.split('scope="row">')[1:]]
    assert keys == ["n_layers"]
    values = [part.split("<")[0] for part in settings.split('class="text">')[1:]]
    assert values == ["1", "–", "2", "–"]


def test_knock_outs_and_content(folder):
    text = written(folder)
    knock = text.split("<h2>Knock-outs")[1].split("</section>")[0]
    assert '"row">best: id<' in knock and "best: whole" not in knock
    content = text.split("<h2>Is content worth anything?")[1].split("</section>")[0]
    assert '"row">shuffled<' in content


def test_no_run_has_ended(tmp_path):
    write(tmp_path, {"SASRec": [f"error: {EVIL}"]})
    text = written(tmp_path)
    assert "No run has ended well yet" in text and "<img" not in text
    assert not (tmp_path / "table.tex").exists()


def test_one_plain_run_is_enough(tmp_path):
    write(tmp_path, {"SASRec": [record()]})
    text = written(tmp_path)
    assert "<h2>Results" in text and "Paired" not in text and "<h2>Curves" not in text


def test_the_floor_is_the_baseline_where_no_other_is(tmp_path, caplog):
    write(tmp_path, {"SRIM": [counted(record())]})
    with caplog.at_level(logging.INFO):
        table = write_report(tmp_path).read_text()
    assert "tested against floor: Counting" in caplog.text and "against floor: Counting" in table


def test_no_baseline_at_all_is_said(tmp_path, caplog):
    write(tmp_path, {"SRIM": [record()], "Pop": [record(seed=2)]})
    write_report(tmp_path)
    assert "no row to test the others against: name one with --baseline" in caplog.text


def test_a_page_that_fails_costs_a_warning_only(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr(sections.pictures, "intervals", fail)
    write(tmp_path, {"SASRec": [record()]})
    assert write_report(tmp_path).is_file() and not (tmp_path / "report.html").exists()
    assert "report.html is not written: RuntimeError: no font" in caplog.text


# ---- In a browser ----


def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser here ({', '.join(BROWSERS)}): apt-get install chromium")
    return found


def opened(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page from the disk; no name on the network is found."""
    command = [
        browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={page.parent / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--enable-logging=stderr", "--virtual-time-budget=2000", *options, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


CLICK = """<script>
const table = document.querySelector("section table"), names = () =>
  [...table.tBodies[0].rows].map(row => row.cells[0].textContent).join("|");
const head = [...table.tHead.rows[0].cells].find(cell => cell.textContent === "ndcg@20");
head.click(); const down = names(); head.click();
document.title = down + "#" + names() + "#" + head.getAttribute("aria-sort");
</script></body>"""


def test_a_click_sorts_in_a_browser_and_nothing_is_complained_of(folder):
    text = written(folder)
    page = folder / "clicked.html"
    page.write_text(text.replace("</body>", CLICK), encoding="utf-8")
    done = opened(page, "--dump-dom")
    assert "CONSOLE" not in done.stderr, done.stderr
    title = done.stdout.split("<title>")[1].split("</title>")[0]
    down, up, state = title.replace("&lt;", "<").replace("&gt;", ">").split("#")
    assert up.split("|") == sorted(up.split("|"), key=order) and state == "ascending"
    assert [order(name) for name in down.split("|")] == sorted(map(order, down.split("|")))[::-1]


def order(label: str) -> float:
    """Return the NDCG@20 that the rows of the fixture have."""
    high = float(metrics_from_ranks(np.r_[1, 40], [20], ["NDCG"])["ndcg@20"])
    low = float(metrics_from_ranks(np.full(1, 15), [20], ["NDCG"])["ndcg@20"])
    floor = float(metrics_from_ranks(np.full(1, 20), [20], ["NDCG"])["ndcg@20"])
    other = float(record(seed=2)["test"]["ndcg@20"])
    return {"best": high, EVIL: high, "shuffled": low, "SASRec": other}.get(label, floor)


def test_the_page_is_drawn_from_the_disk(folder):
    written(folder)
    shot = folder / "shot.png"
    opened(folder / "report.html", f"--screenshot={shot}", "--window-size=1280,2400")
    pixels = imread(shot)
    assert pixels.shape[:2] == (2400, 1280)
    rows = pixels[:, :, :3].std(axis=1).max(axis=1)
    assert (rows > 0.01).mean() > 0.5  # more than half of the lines have something on them
