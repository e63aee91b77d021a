"""Tables of papers: every study can be run, and the layout has what runs have found."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from recbole_mm import cli
from recbole_mm.compare.results import read_rows
from recbole_mm.config import MMConfig
from recbole_mm.errors import ConfigError
from recbole_mm.tune.paper_spec import axis, names, paper_of, without
from recbole_mm.yaml_files import parse_value

SMALL = ["--epochs=1", "--use_gpu=false", "--text_encoder=tfidf", "--embedding_size=8"]


@pytest.mark.parametrize("name", names())
def test_every_study_of_a_paper_can_be_run(name: str) -> None:
    """Models, presets, keys and values are accepted, on the paper's data sets and on others."""
    paper = paper_of(name)
    seen = set()
    for study in paper.studies.values():
        for dataset in [*paper.datasets, "Cellphones"]:
            for row in paper.rows(study, dataset):
                if (row.model, row.keys) in seen:
                    continue
                seen.add((row.model, row.keys))
                MMConfig(row.model, dataset, (), {**paper.protocol, **without(row, [])})
        swept = axis(study)
        if swept:
            (row,) = paper.rows(study, "Cellphones")
            for text in (swept.values[0], swept.values[-1]):
                keys = {**without(row, [swept.key]), swept.key: parse_value(text)}
                MMConfig(row.model, "Cellphones", (), {**paper.protocol, **keys})
        assert study.get("groups", "history") in ("history", "popularity")
        assert paper.metric(study) in paper.columns
    assert len(seen) > 5
    metrics = {metric.partition("@")[0] for metric in paper.columns}
    known = {str(one).lower() for one in paper.protocol["metrics"]}  # type: ignore[union-attr]
    assert metrics <= known


def arguments(shop: Path, output: Path, *more: str) -> list[str]:
    return ["paper", "--name=srim", f"--data_path={shop}", f"--output={output}", *SMALL, *more]


@pytest.mark.usefixtures("in_process")
def test_a_table_has_the_papers_rows_metrics_and_data_sets(
    shop: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    argv = arguments(shop, tmp_path, "--study=table3", "--n_heads=1", "--n_layers=1")
    assert cli.main(argv) == 0
    shown = capsys.readouterr()
    text = (tmp_path / "paper.md").read_text("utf-8")
    assert text in shown.out and text.startswith("# SRIM: Table 3, ablation")
    # Two of three data sets are not there: the command that makes each is named.
    for name in ("Grocery", "Sports"):
        line = f"recbole-mm prepare amazon --preset={name} --raw=amazon_raw"
        assert f"Missing: Amazon_{name} is not in {shop}: {line}" in text and line in caplog.text
    head = "|  | Cellphones P@10 | Cellphones M@10 | Cellphones P@20 | Cellphones M@20 |"
    assert head in text
    rows, _ = read_rows(tmp_path / "Amazon_Cellphones")
    assert [row.label for row in rows] == ["SRIM-IdMo", "SRIM-JoIn", "SRIM-DirAtt", "SRIM"]
    assert rows[0].records[0]["config"]["w_align"] == 0
    with open(tmp_path / "paper.csv", encoding="utf-8", newline="") as stream:
        lines = {(line["row"], line["column"]): line for line in csv.DictReader(stream)}
    for row in rows:
        found = float(lines[row.label, "P@20"]["mean"])
        assert found == pytest.approx(100 * row.records[0]["test"]["hit@20"])
        assert f"{found:.2f}" in text
    assert ("floor: Counting", "P@20") in lines


@pytest.mark.usefixtures("in_process")
def test_a_figure_of_another_data_set_is_a_sweep_with_picture(shop: Path, tmp_path: Path) -> None:
    argv = arguments(shop, tmp_path, "--study=figure3", "--datasets=toy", "--n_layers=1")
    argv[argv.index("--embedding_size=8")] = "--embedding_size=20"
    assert cli.main(argv) == 0
    text = (tmp_path / "paper.md").read_text("utf-8")
    assert "| n_heads=1 |" in text and "| n_heads=10 |" in text and "toy P@10" in text
    assert (tmp_path / "paper.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "toy" / "sweep.md").is_file()


@pytest.mark.usefixtures("in_process")
def test_groups_of_rows_are_columns(shop: Path, tmp_path: Path) -> None:
    argv = arguments(shop, tmp_path, "--study=figure4", "--datasets=toy")[:-1]
    argv = [one for one in argv if one != "--embedding_size=8"]
    assert cli.main([*argv, "--datasets=toy", "--history_groups=[2]"]) == 0
    text = (tmp_path / "paper.md").read_text("utf-8")
    (row,) = [r for r in read_rows(tmp_path / "toy")[0] if r.label == "SRIM"]
    groups = row.records[0]["slices"]["history"]
    filled = {name: group["hit@20"] for name, group in groups.items() if group["n"]}
    assert list(filled) == ["1-2", "3+"]  # Not at 5, where the paper parts them.
    for name, value in filled.items():
        assert f"toy P@20, history {name}" in text and f"{100 * value:.2f}" in text
    assert "| DIMO |" in text and "not here" not in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--name=nobody"], "--name=nobody: no such paper; expected one of alterrec, mdsrec"),
        (["--name=srim", "--study=table9"], "no such study, but: table1 (Table 1"),
        (["--name=mdsrec", "--data_path=nowhere"], "MDSRec: no data set is there. Amazon_Scien"),
    ],
)
def test_what_is_not_there_is_one_line(
    more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["paper", f"--output={tmp_path / 'out'}", *more]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and words in error
    assert not (tmp_path / "out").exists()


def test_the_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["paper", "--name=alterrec", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "figure7b" in shown and "recbole-mm prepare amazon-m2" in shown


def test_a_file_of_another_form_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_mm.tune import paper_spec

    monkeypatch.setattr(paper_spec.yaml_files, "load_yaml", lambda file: {"title": "SRIM"})
    with pytest.raises(ConfigError, match="a key is missing or has a value of another type"):
        paper_of("srim")
