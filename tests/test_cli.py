"""The command line: quick help, RecBole's habits, delegation, and one-line errors."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import recbole_mm
from recbole_mm import cli, options
from recbole_mm.errors import ConfigError, DataError, TrainingError
from recbole_mm.files import BEST, CONFIG
from recbole_mm.protocol import PROTOCOL

COMMANDS = ["run", "compare", "encode", "prepare", "audit", "export", "doctor"]
CLONE = Path(cli.__file__).parents[1]


def replace(monkeypatch: pytest.MonkeyPatch, module: str, **members: Any) -> None:
    """Put a module with these members in the place of one of the package's."""
    fake = types.ModuleType(f"recbole_mm.{module}")
    for name, member in members.items():
        setattr(fake, name, member)
    monkeypatch.setitem(sys.modules, f"recbole_mm.{module}", fake)
    parent, _, name = module.rpartition(".")
    holder = sys.modules.get(f"recbole_mm.{parent}".rstrip("."), recbole_mm)
    monkeypatch.setattr(holder, name, fake, raising=False)


def fake_run(monkeypatch: pytest.MonkeyPatch, outcome: Any = None) -> list[tuple]:
    """Replace the run by one that records its arguments, and raises what it is told to."""
    calls: list[tuple] = []

    def run(*args: Any, **kwargs: Any) -> str:
        calls.append((*args, kwargs))
        if isinstance(outcome, BaseException):
            raise outcome
        return "result"

    replace(monkeypatch, "run", run=run, format_result=lambda result: f"table of {result}")
    return calls


# ---- Help without heavy imports ----


def test_help_of_every_command_imports_nothing_heavy() -> None:
    code = (
        "import sys, io, contextlib\n"
        "import recbole_mm, recbole_mm.cli as cli\n"
        "with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        f"    codes = [cli.main([*c, '--help']) for c in [[], *([c] for c in {COMMANDS})]]\n"
        "codes.append(cli.main(['--version']))\n"
        "heavy = ('torch', 'recbole', 'pandas', 'numpy', 'scipy', 'transformers')\n"
        "print(codes, [m for m in heavy if m in sys.modules], text.getvalue().count('usage:'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, counts = done.stdout.splitlines()
    assert version == f"recbole_mm {recbole_mm.__version__}"
    assert counts == f"{[0] * 9} [] 8"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("run --model=SRIM --learning_rat=0.1", "unknown key 'learning_rat'. Did you mean"),
        ("run --model=SASRec --alternation_epochs=2", "It is a key of AlterRec"),
        ("run --model=SRIM --n_layers=two", "n_layers = 'two' is not accepted"),
        ("run --model=SRIM --preset=papper", "no preset 'papper'"),
        ("run --model=SRIM --config_files=bad.yaml", "bad.yaml: unknown key 'epoch'"),
        ("audit --split=time", "unknown key 'split'"),
        (
            "compare --models=SASRec --learning_rat=0.1",
            "row SASRec: command line: unknown key 'learning_rat'",
        ),
        ("compare --models=a=SRIM:n_layer=2", "row a: command line: unknown key 'n_layer'"),
        ("compare --models=SRIM,", "unknown model 'SRIM,'"),
        ("tune --models=SRIM:n_layers=two", "command line: n_layers = 'two' is not"),
        ("sweep --model=SRIM --key=n_layers --values=1 --epoch=3", "unknown key 'epoch'"),
    ],
)
def test_a_misspelt_key_is_refused_before_torch_is_imported(
    tmp_path: Path, arguments: str, message: str
) -> None:
    (tmp_path / "bad.yaml").write_text("epoch: 3\n")
    said, lines = refusal([*arguments.split(), "--dataset=Cellphones"], tmp_path)
    assert said == "2 []\n" and len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--score_part=[lexical]", "unknown key 'score_part'"),
        ("--epochs=two", "epochs = 'two' is not accepted"),
        ("", "c: no config.yaml and best.safetensors there"),
    ],
)
def test_a_blend_is_refused_before_torch_is_imported(
    tmp_path: Path, more: str, message: str
) -> None:
    stored = {**dict.fromkeys(PROTOCOL), "dataset": "Cellphones", "model": "SASRec"}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        places = {"data_path": "atomic_data", "feature_path": None}
        (tmp_path / name / CONFIG).write_text(json.dumps({**stored, **places}))
        (tmp_path / name / BEST).touch()
    said, lines = refusal(["blend", "--runs=a b" if more else "--runs=a c", more], tmp_path)
    assert said == "2 []\n" and len(lines) == 1 and message in lines[0]


def refusal(argv: list[str], folder: Path) -> tuple[str, list[str]]:
    """Return code and what was imported that takes seconds, of a process of its own, and errors."""
    code = (
        "import sys\n"
        "from recbole_mm.cli import main\n"
        f"code = main({[word for word in argv if word]})\n"
        "heavy = ('torch', 'recbole', 'pandas', 'numpy', 'scipy', 'sklearn')\n"
        "print(code, [m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True
    )
    return done.stdout, done.stderr.splitlines()


def test_all_three_ways_to_start(tmp_path: Path) -> None:
    """The module, and the script of the clone with run's arguments."""
    for command in (["-m", "recbole_mm", "run"], [str(CLONE / "run_recbole_mm.py")]):
        done = subprocess.run(
            [sys.executable, *command, "--model=Nope", "--dataset=ml-100k"],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith("error: unknown model 'Nope'"), done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "COMMAND" in capsys.readouterr().out
    assert cli.main(["dance"]) == 2


# ---- Overrides ----


def test_overrides() -> None:
    tokens = [
        "--learning_rate=1e-3", "--n_layers", "2", "--shift", "-1", "--topk=[5, 10]",
        "--note=a=b", "--train_neg_sample_args=~", "--flag=true", "--empty=", "--n_layers=2",
        "--interval=[5,inf)", "--gpu_id=0,1",
    ]  # fmt: skip
    assert options.parse_overrides(tokens) == {
        "learning_rate": 0.001, "n_layers": 2, "shift": -1, "topk": [5, 10], "note": "a=b",
        "train_neg_sample_args": None, "flag": True, "empty": None, "interval": "[5,inf)",
        "gpu_id": "0,1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["--epochs=1", "--epochs=2"], "--epochs is given twice, as 1 and as 2"),
        (["--epochs"], "--epochs has no value"),
        (["--epochs", "--seed=1"], "--epochs has no value"),
        (["epochs=1"], "'epochs=1' belongs to no option"),
        (["--epochs=1", "2"], "'2' belongs to no option"),
        (["-e", "1"], "'-e' belongs to no option"),
        (["--x=!!python/name:os.system"], "only plain YAML values"),
    ],
)
def test_overrides_that_cannot_be_read(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options.parse_overrides(tokens)


# ---- run ----


@pytest.mark.parametrize(
    "argv",
    [
        "run --model=SRIM --dataset=X --preset=paper --epochs=3 --config_files|a.yaml b.yaml",
        "run --model SRIM --dataset X --preset paper --epochs 3 --config_files a.yaml b.yaml",
        "run --epochs=3 --config_files=a.yaml|b.yaml --preset=paper --dataset=X --model=SRIM",
    ],
)
def test_run_in_recboles_ways(
    argv: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = fake_run(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        Path(name).write_text("epochs: 1\n")
    words = [word.replace("|", " ") for word in argv.split(" ")]
    if "--config_files a.yaml" in words:
        words[words.index("--config_files a.yaml") :] = ["--config_files", "a.yaml b.yaml"]
    assert cli.main(words) == 0
    overrides = {"preset": "paper", "epochs": 3}
    assert calls == [("SRIM", "X", ["a.yaml", "b.yaml"], overrides, {"resume": None})]
    assert capsys.readouterr().out == "table of result\n"


def test_run_takes_model_and_data_set_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_run(monkeypatch)
    file = tmp_path / "my run.yaml"
    file.write_text("model: Pop\ndataset: X\n")
    assert cli.main(["run", f"--config_files={file}"]) == 0
    assert calls[0][:3] == ("Pop", "X", [str(file)])
    assert cli.main(["run", "--model=Pop"]) == 2
    assert cli.main(["run", "--model=Pip", "--dataset=X"]) == 2
    assert len(calls) == 1
    assert "which dataset? Give --dataset" in capsys.readouterr().err


def test_resume_needs_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_run(monkeypatch)
    assert cli.main(["run", "--resume=saved/x", "--epochs=9"]) == 0
    assert calls == [("", "", [], {"epochs": 9}, {"resume": "saved/x"})]


def test_an_option_given_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_run(monkeypatch)
    assert cli.main(["run", "--model=Pop", "--model=SASRec", "--dataset=X"]) == 2
    assert "--model is given twice, as Pop and as SASRec" in capsys.readouterr().err
    assert cli.main(["run", "--model=Pop", "--model=Pop", "--dataset=X"]) == 0
    assert calls[0][0] == "Pop"


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["run", "--model=SASRec", "--dataset=ml-100k", "--epochs=3"]
    assert cli.main([*argv, "--explain=epochs"]) == 0
    assert capsys.readouterr().out.startswith("epochs = 3\n  accepts int, at least 1\n")
    assert cli.main([*argv, "--explain"]) == 0
    assert "\nsplit_by = 'session_time'\n" in capsys.readouterr().out


def test_plugins_are_loaded_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cli_plugin_one.py").write_text("loaded = True\n")
    argv = ["run", "--model=Pop", "--dataset=X"]
    assert cli.main([*argv, "--plugins=cli_plugin_one"]) == 0
    assert sys.modules["cli_plugin_one"].loaded
    assert cli.main([*argv, "--plugins=cli_plugin_one,cli_plugin_two"]) == 2
    assert "cannot import 'cli_plugin_two'" in capsys.readouterr().err


# ---- The other commands hand over what was typed ----


def test_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[argparse.Namespace, dict]] = []
    replace(monkeypatch, "compare.execute", compare_command=lambda *args: calls.append(args) or 1)
    models = "SRIM SRIM:preset=official,n_layers=2 SASRec"
    argv = ["compare", f"--models={models}", "--dataset=X", "--seeds=0 1 2", "--jobs=2"]
    code = cli.main([*argv, "--seeds_for=SRIM=3 Pop=1", "--output=o", "--epochs=2"])
    args, overrides = calls[0]
    assert code == 1
    assert args.models == ["SRIM", "SRIM:preset=official,n_layers=2", "SASRec"]
    assert (args.dataset, args.seeds, args.jobs, args.output) == ("X", [0, 1, 2], 2, "o")
    assert args.seeds_for == {"SRIM": 3, "Pop": 1}
    assert (args.config_files, args.plugins, overrides) == ([], [], {"epochs": 2})
    assert (args.baseline, args.table_only) == (None, False)
    cli.main(["compare", "--output=o", "--table_only", "--baseline=SASRec"])
    assert (calls[1][0].baseline, calls[1][0].table_only) == ("SASRec", True)


@pytest.mark.parametrize("wrong", ["--seeds=a", "--seeds_for=SRIM", "--seeds_for=SRIM=x"])
def test_compare_with_wrong_numbers(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--models=Pop", "--dataset=X", wrong]) == 2
    assert "must be" in capsys.readouterr().err


def test_encode(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[argparse.Namespace, dict]] = []
    replace(monkeypatch, "encode.cli", encode_command=lambda *args: calls.append(args) or 0)
    argv = ["encode", "--dataset=X", "--fields=title categories", "--batch_size=8", "--out=o"]
    assert cli.main([*argv, "--encoder=minilm", "--ITEM_ID_FIELD=i"]) == 0
    args, overrides = calls[0]
    assert (args.dataset, args.fields, args.batch_size) == ("X", ["title", "categories"], 8)
    assert (args.modality, args.encoder, args.out) == (None, "minilm", "o")
    assert (args.from_npy, args.ids, args.data_path) == (None, None, None)
    assert overrides == {"ITEM_ID_FIELD": "i"}
    assert cli.main(["encode"]) == 2
    assert "which dataset?" in capsys.readouterr().err


def test_prepare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recbole_mm.prepare import cli as prepare

    calls: list[argparse.Namespace] = []
    with monkeypatch.context() as patch:
        patch.setattr(prepare, "prepare_command", lambda args: calls.append(args) or 0)
        assert cli.main(["prepare", "synthetic", f"--out={tmp_path}", "--seed=3"]) == 0
    assert (calls[0].source, calls[0].out, calls[0].seed) == ("synthetic", str(tmp_path), 3)
    assert cli.main(["prepare", "synthetic", "--sed=3"]) == 2
    assert "unknown option --sed. Did you mean --seed?" in capsys.readouterr().err
    assert cli.main(["prepare", "elsewhere"]) == 2
    assert list(tmp_path.iterdir()) == []


def test_audit_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--dataset=Cellphones", f"--data_path={CLONE / 'atomic_data'}"]
    assert cli.main(["audit", *where]) == 0
    shown = capsys.readouterr()
    assert "passed: no session stands in two parts" in shown.out
    assert "Warning" not in shown.err
    assert cli.main(["export", *where, f"--out={tmp_path}"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'Cellphones'}\n"
    assert (tmp_path / "Cellphones" / "Cellphones.train.inter").is_file()
    assert cli.main(["export", *where]) == 2
    assert "--out" in capsys.readouterr().err


# ---- Errors ----


def allocate_too_much() -> BaseException:
    try:
        torch.empty(2**60)
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("x.inter line 3: two fields, expected three"), 2, ["error: x.inter line 3"]),
        (TrainingError("the loss is nan in epoch 4"), 3, ["error: the loss is nan"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (MemoryError(), 2, ["train_batch_size", "eval_batch_size", "MAX_ITEM_LIST_LENGTH"]),
        (torch.OutOfMemoryError("CUDA"), 2, ["train_batch_size", "CUDA"]),
        (allocate_too_much(), 2, ["train_batch_size", "eval_batch_size"]),
        (
            ModuleNotFoundError("no", name="sentence_transformers.util"),
            2,
            ["pip install 'recbole_mm[text]'"],
        ),
        (ModuleNotFoundError("no", name="recbole"), 2, ["Type: recbole-mm doctor"]),
    ],
)
def test_errors_end_in_one_line_and_a_code(
    error: BaseException,
    code: int,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_run(monkeypatch, error)
    assert cli.main(["run", "--model=Pop", "--dataset=X"]) == code
    captured = capsys.readouterr()
    assert all(word in captured.err for word in words), captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    "bug", [RuntimeError("shape mismatch"), ModuleNotFoundError("no", name="my_own_module")]
)
def test_bugs_keep_their_traceback(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_run(monkeypatch, bug)
    with pytest.raises(type(bug)):
        cli.main(["run", "--model=Pop", "--dataset=X"])


def test_a_reader_that_went_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = ["-m", "recbole_mm", "run", "--model=SASRec", "--dataset=ml-100k", "--explain"]
    done = subprocess.run([sys.executable, *argv], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
