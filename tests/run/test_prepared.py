"""What a run refuses before it trains, and that an earlier result survives it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recbole_mm import cli
from recbole_mm.errors import ConfigError, DataError
from recbole_mm.run import run

ROOT = Path(__file__).parents[2]
SMALL = {"data_path": str(ROOT / "atomic_data"), "epochs": 1, "floor": False}


def test_a_list_longer_than_the_items_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    settings = {**SMALL, "run_folder": str(tmp_path / "run")}
    run("Pop", "Cellphones", (), {**settings, "topk": [20, 600]})
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("[!.]*")}
    assert "result.json" in before
    with pytest.raises(ConfigError, match="topk asks for the first 601 items, but"):
        run("Pop", "Cellphones", (), {**settings, "topk": [20, 601]})
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("[!.]*")}
    assert {n: b for n, b in after.items() if n != "run.log"} == {
        n: b for n, b in before.items() if n != "run.log"
    }


def test_what_a_killed_run_left_goes_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for resume in (None, folder):
        folder.mkdir(exist_ok=True)
        for name in ("last.safetensors", "best.safetensors", "config.yaml", "result.json"):
            (folder / f".{name}.k1ll3d_9").write_bytes(b"half")
        names = ("", "") if resume else ("Pop", "Cellphones")
        settings = {} if resume else {**SMALL, "run_folder": str(folder)}
        run(*names, (), settings, resume=resume)
        assert [path.name for path in folder.glob(".*")] == [".lock"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preload_weight": "text"}, "expected dict"),
        ({"preload_weight": {"a": "b"}}, r"preload_weight = \{'a': 'b'\} \(command line\)"),
        ({"alias_of_item_id": "text"}, "expected list"),
        ({"alias_of_item_id": ["text"]}, r"alias_of_item_id = \['text'\] \(command line\)"),
        ({"additional_feat_suffix": "abc"}, "additional_feat_suffix = 'abc'"),
        ({"benchmark_filename": ["a", "b"]}, "benchmark_filename"),
        ({"hidden_size": 10**18}, "hidden_size = 10{18} is not accepted; .* at most 2147483647"),
        ({"n_layers": 10**6}, "at most 1000"),
        ({"epochs": 10**30}, "epochs"),
        ({"n_heads": 3}, "a divisor of hidden_size"),
        ({"train_neg_sample_args": {"distribution": "x"}, "loss_type": "BPR"}, "uniform"),
    ],
)
def test_settings_that_recbole_stumbles_over(
    settings: dict, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        run("SASRec", "Cellphones", (), {**SMALL, **settings})


def test_a_width_that_no_memory_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "--model=SASRec", "--dataset=Cellphones", "--hidden_size=2000000000"]
    assert cli.main([*words, f"--data_path={SMALL['data_path']}"]) == 2
    assert "error: out of memory" in capsys.readouterr().err


def test_a_step_that_no_memory_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(self: object, *args: object) -> None:
        torch.empty(2**50)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("recbole.model.sequential_recommender.sasrec.SASRec.forward", too_large)
    words = ["run", "--model=SASRec", "--dataset=Cellphones", "--train_batch_size=512"]
    assert cli.main([*words, f"--data_path={SMALL['data_path']}"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: out of memory. Estimate for SASRec and ")
    for words in ("train_batch_size = 512", "eval_batch_size = 2048", "DefaultCPUAllocator"):
        assert words in last


def test_a_bug_is_not_blamed_on_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, *args: object) -> None:
        raise ValueError("a bug")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("recbole.model.sequential_recommender.sasrec.SASRec.__init__", broken)
    with pytest.raises(ValueError, match="a bug"):
        run("SASRec", "Cellphones", (), dict(SMALL))
    with pytest.raises(ConfigError, match=r"SASRec on .* a bug \(ValueError\).*hidden_size = 8"):
        run("SASRec", "Cellphones", (), {**SMALL, "hidden_size": 8})


@pytest.mark.parametrize("model", ["SASRecF", "GRU4RecF", "FDSA"])
def test_models_of_columns_read_numbers_too(model: str, tmp_path: Path) -> None:
    settings = {**SMALL, "selected_features": ["category", "price", "title"],
                "run_folder": str(tmp_path), "hidden_size": 8, "embedding_size": 8,
                "inner_size": 8, "n_layers": 1, "num_layers": 1}  # fmt: skip
    known = {"SASRecF": ("hidden_size", "inner_size", "n_layers"),
             "GRU4RecF": ("hidden_size", "embedding_size", "num_layers"),
             "FDSA": ("hidden_size", "inner_size", "n_layers")}[model]  # fmt: skip
    sizes = {"hidden_size", "embedding_size", "inner_size", "n_layers", "num_layers"}
    chosen = {key: value for key, value in settings.items() if key not in sizes - set(known)}
    assert 0 <= run(model, "Cellphones", (), chosen).test["hit@20"] <= 1


def test_an_item_file_that_is_not_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "d.inter").write_text("session_id:token\titem_id:token\ttimestamp:float\ns\ta\t1\n")
    for content, line in ((b"\xffitem_id:token\n", 1), (b"item_id:token\tc:token\na\t\xff\n", 2)):
        (folder / "d.item").write_bytes(content)
        settings = {"data_path": str(tmp_path), "selected_features": ["c"], "epochs": 1,
                    "run_folder": str(tmp_path / "run")}  # fmt: skip
        with pytest.raises(DataError, match=rf"d\.item, line {line}: the bytes are not UTF-8"):
            run("SASRecF", "d", (), settings)
