from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from recbole_mm.cli import main
from recbole_mm.data.card import load_dataset_card
from recbole_mm.errors import ConfigError
from recbole_mm.prepare.cli import add_arguments, prepare_command

TABLE = "basket,sku,when\np,a,2024-01-01T00:00\np,b,2024-01-01T00:05\n"


def _parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser)
    return parser.parse_args(argv)


def test_tabular_from_the_command_line(tmp_path, capsys):
    (tmp_path / "i.csv").write_text(TABLE)
    argv = [
        "prepare", "tabular", f"--out={tmp_path}", "--dataset=shop", f"--inter={tmp_path}/i.csv",
        "--user_col=basket", "--item_col=sku", "--time_col=when", "--gap_minutes=5",
        "--licence=CC0",
    ]  # fmt: skip
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "shop written to" in said and "interactions: 2" in said
    assert load_dataset_card(tmp_path / "shop").licence == "CC0"
    assert main(argv) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*argv, "--force=true"]) == 0


def test_bad_input_is_one_line_and_exit_code_two(tmp_path):
    (tmp_path / "i.csv").write_text("basket,sku\np\n")
    command = [
        sys.executable, "-m", "recbole_mm", "prepare", "tabular", f"--out={tmp_path}",
        "--dataset=shop", f"--inter={tmp_path}/i.csv", "--session_col=basket", "--item_col=sku",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "line 2" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "shop").exists()


def test_force_as_a_flag_and_with_a_value():
    assert _parse("synthetic", "--force").force is True
    assert _parse("synthetic", "--force=false").force is False
    assert _parse("synthetic").force is False


def test_options_reach_the_source(tmp_path):
    assert prepare_command(_parse("synthetic", f"--out={tmp_path}", "--seed=3")) == 0
    assert "seed 3" in load_dataset_card(tmp_path / "Cellphones").source
    assert prepare_command(_parse("ml-100k", f"--out={tmp_path}", "--gap_minutes=60")) == 0
    assert load_dataset_card(tmp_path / "ml-100k").report["gap_minutes"] == 60


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert prepare_command(_parse("synthetic")) == 0
    assert (tmp_path / "atomic_data" / "Cellphones" / "Cellphones.inter").is_file()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("synthetic", {"gap_minutes": 3}, "--gap_minutes has no effect"),
        ("ml-100k", {"seed": 3}, "--seed has no effect"),
        ("ml-100k", {"gap_minutes": -3}, "expected a positive number"),
        ("synthetic", {"seed": -1}, "expected 0 or a positive"),
        ("synthetic", {"seed": "x"}, "invalid int value"),
        ("synthetic", {"forse": True}, "Did you mean --force"),
        ("tabular", {}, "missing: --dataset=<name>; --inter=<file of interactions>[.]"),
        ("tabular", {"inter": "absent.csv"}, "missing: --dataset=<name>[.]"),
        ("tabular", {"dataset": "x"}, "missing: --inter=<file of interactions>[.]"),
    ],
)
def test_wrong_options_are_named(source, options, message):
    with pytest.raises(ConfigError, match=message):
        prepare_command(argparse.Namespace(source=source, options=options))


def test_parsing_options_needs_neither_pandas_nor_torch():
    code = (
        "import argparse, sys; from recbole_mm.prepare.cli import add_arguments; "
        "add_arguments(argparse.ArgumentParser()); "
        "sys.exit(bool({'pandas', 'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0
