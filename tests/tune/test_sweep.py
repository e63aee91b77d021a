"""Sweeps with real trainings, and their tables, pictures and errors."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from recbole_mm import cli
from recbole_mm.compare.results import read_rows

SMALL = ["--epochs=2", "--inner_size=8", "--use_gpu=false", "--train_batch_size=32", "--seeds=1 2"]


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    return ["sweep", "--model=SASRec", "--dataset=toy", f"--data_path={data}",
            f"--output={output}", *SMALL, *more]  # fmt: skip


@pytest.mark.usefixtures("in_process")
def test_a_sweep_is_run_kept_and_written_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = arguments(data, tmp_path, "--hidden_size=8", "--key=n_layers", "--values=1 2")
    assert cli.main(argv) == 0
    text = (tmp_path / "sweep.md").read_text("utf-8")
    assert text in capsys.readouterr().out
    rows, _ = read_rows(tmp_path)
    assert [(row.label, len(row.records)) for row in rows] == [("n_layers=1", 2), ("n_layers=2", 2)]
    assert [row.records[0]["config"]["n_layers"] for row in rows] == [1, 2]
    with open(tmp_path / "sweep.csv", encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["n_layers"] for line in lines] == ["1", "2"]
    for line, row in zip(lines, rows, strict=True):
        assert float(line["ndcg@20"]) == row.values("test", "ndcg@20").mean()
        assert float(line["ndcg@20 low"]) <= float(line["ndcg@20"]) <= float(line["ndcg@20 high"])
        assert f"| {line['n_layers']} | 2 | " in text
    assert "| floor | 1 | " in text and "valid ndcg@20" in text
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")

    # One value more: those of before are kept.
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/*/result.json")}
    assert cli.main([*argv[:-1], "--values=1 2 3"]) == 0
    assert {file: file.stat().st_mtime_ns for file in kept} == kept and len(kept) == 4
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 6
    text = (tmp_path / "sweep.md").read_text("utf-8")
    (tmp_path / "sweep.md").unlink()
    again = ["sweep", "--table_only", "--dataset=toy", f"--output={tmp_path}"]
    assert cli.main(again) == 0
    assert (tmp_path / "sweep.md").read_text("utf-8") == text


@pytest.mark.usefixtures("in_process")
def test_two_keys_make_a_heat_map(data: Path, tmp_path: Path) -> None:
    argv = arguments(data, tmp_path, "--key=hidden_size", "--values=4 8", "--key2=n_heads",
                     "--values2=1 2")  # fmt: skip
    argv[argv.index("--seeds=1 2")] = "--seeds=1"
    assert cli.main(argv) == 0
    text = (tmp_path / "sweep.md").read_text("utf-8")
    assert text.startswith("# SASRec over hidden_size and n_heads")
    for pair in ("4 | 1", "4 | 2", "8 | 1", "8 | 2"):
        assert f"| {pair} | 1 | " in text
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--key=n_layers"], "values of n_layers must be different ones"),
        (["--key=n_layers", "--values=1 1"], "values of n_layers must be different ones"),
        (["--key=n_layer", "--values=1 2"], "unknown key 'n_layer'"),
        (["--key=n_layers", "--values=0 1"], "n_layers = 0 is not accepted"),
        (["--key=inner_size", "--values=1 2"], "--inner_size is given and swept"),
        (["--key=seed", "--values=1 2"], "a sweep itself decides it"),
        (["--key=n_layers", "--values=1 2", "--key2=n_heads"], "--key2 and --values2 belong"),
        (["--key=n_layers", "--values=1", "--key2=n_layers", "--values2=2"], "two different ones"),
        (["--values=1 2"], "which key?"),
    ],
)
def test_what_is_no_sweep_is_one_line(
    more: list[str], words: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(data, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and words in error
    assert not (tmp_path / "out").exists()


def test_tables_of_no_sweep_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sweep", "--table_only", "--dataset=toy", f"--output={tmp_path}"]
    assert cli.main(argv) == 2
    assert "holds no sweep.json" in capsys.readouterr().err
    (tmp_path / "sweep.json").write_text('{"model": "SRIM", "axes": [{"key": 1}]}')
    assert cli.main(argv) == 2
    assert "sweep.json is damaged" in capsys.readouterr().err
